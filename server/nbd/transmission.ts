// THE hot loop: whole frames in, replies out. Law: a request is answered here in this turn, or handed to SlowRequests,
// which answers it; there is no third way. Nothing in this file waits.

import {
  commandIndex,
  type DecodedRequest,
  decodeRequest,
  emptyRequest,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_EINVAL,
  NBD_ESHUTDOWN,
  NBD_SUCCESS,
  type ReplyStyle,
  requestHeaderBytes,
} from 'nbd-protocol'
import { DONE, EIO, WOULD_BLOCK } from '../../backends/index.js'
import type { Export } from '../exports/export.js'
import { isSpaceError } from '../exports/space-hold.js'
import { count, READ_BYTES_AT, REQUESTS_AT, WRITTEN_BYTES_AT } from '../observe/counters.js'
import { Admission } from './admission.js'
import { Answers } from './answers.js'
import { BlockStatus } from './block-status.js'
import { copyOf, ownedCopy } from './buffer-pool.js'
import { LargeWrites } from './large-writes.js'
import type { PayloadSink } from './payload-feed.js'
import { readNow } from './read-now.js'
import { FRAME_BYTES_MAX } from './receive-buffer.js'
import type { Verdict } from './region.js'
import type { ReplyBatch } from './reply-batch.js'
import { SlowRequests } from './slow-requests.js'
import { type Halt, type TransmissionOptions, TURN_MAX } from './transmission-options.js'
import { changesImage, promisesDurability, type Terms, validate } from './validation.js'

export class Transmission {
  readonly #export: Export
  readonly #style: ReplyStyle
  readonly #extended: boolean
  readonly #terms: Terms
  readonly #batch: ReplyBatch
  readonly answers: Answers
  readonly #status: BlockStatus
  readonly slow: SlowRequests
  readonly large: LargeWrites
  readonly #admission: Admission
  readonly #request = emptyRequest()
  readonly #headerBytes: number
  #inspected = false
  #draining = false
  /** The pool's buffer that holds the one frame which is being served, and whether it was kept to wait for storage. */
  #pooled: Uint8Array | undefined
  keeps = false
  /** True after NBD_CMD_DISC: nothing that follows is served. */
  disconnected = false
  /** The epochs under which the next FUA WRITEs began in another process. */
  began: number[] = []
  /** Why the last `serve` left bytes unserved: for an incomplete frame ('none'), for want of room, for fairness. */
  halt: Halt = 'none'

  constructor({ served, style, contexts, terms, batch, limits, budget, ...others }: TransmissionOptions) {
    const { onRoom, peerGone, stalled, client } = others
    this.#export = served
    this.#style = style
    this.#extended = style === 'extended'
    this.#terms = terms
    this.#batch = batch
    this.answers = new Answers({ served, style, batch, client, settled: onRoom })
    this.#headerBytes = requestHeaderBytes(this.#extended)
    this.#status = new BlockStatus(served, style, contexts)
    const { answers } = this
    this.slow = new SlowRequests(served, this.#status, answers, limits, budget, client, peerGone)
    const stalling = { stallTimeoutMs: limits.payloadTimeoutMs, onStall: stalled }
    this.large = new LargeWrites({ served, terms, answers, budget, client, peerGone, ...stalling })
    const { slow, large } = this
    this.#admission = new Admission({ served, batch, slow, large, limits, terms, budget, onRoom })
  }

  /** Requests that were taken and not answered yet. */
  get inFlight(): number {
    return this.slow.count + this.large.inFlight
  }

  /** From now on every request is answered with NBD_ESHUTDOWN; those in flight go on. */
  drain(): void {
    this.#draining = true
    this.large.drain()
  }

  connectionLost(): void {
    this.#admission.withdraw()
    this.large.connectionLost()
    this.slow.connectionLost()
  }

  /**
   * Serves the whole frames of bytes[at, end) and returns where it stopped; `halt` says why. What has to outlive this
   * call is copied, or kept with `pooled`, the pool's buffer. @throws ProtocolError when the stream is lost
   */
  serve(bytes: Uint8Array, view: DataView, at: number, end: number, pooled?: Uint8Array): number {
    this.#pooled = pooled
    this.keeps = false
    this.answers.turnBegins()
    try {
      return this.#serve(bytes, view, at, end)
    } finally {
      this.answers.turnEnds()
    }
  }

  #serve(bytes: Uint8Array, view: DataView, at: number, end: number): number {
    const request = this.#request
    let requests = 0
    let moved = 0
    this.#inspected = false
    this.halt = 'none'
    while (end - at >= this.#headerBytes && !this.disconnected) {
      decodeRequest(view, at, this.#extended, request)
      const next = at + this.#headerBytes + request.payloadLength
      const isLarge = next - at > FRAME_BYTES_MAX
      // A large frame is asked for when its header has come, since the rest of it is kept, or handed on, as it comes.
      if (next > end && !isLarge) break
      if (!this.#admission.admits(request, isLarge && this.streams, isLarge && this.#pooled !== undefined)) {
        this.halt = 'room'
        break
      }
      if (next > end) break
      if (requests >= TURN_MAX.requests || moved >= TURN_MAX.bytes) {
        this.halt = 'turn'
        break
      }
      this.#take(request, bytes, at + this.#headerBytes)
      requests += 1
      moved += request.length
      at = next
    }
    return at
  }

  /** Kept whole is what may be held, or refused by a reserve, and what tells in its reply where it began. */
  get streams(): boolean {
    return !this.#extended && !this.#export.space.holds && this.#export.room.reserve === 0
  }

  /** Who takes the payload of the large request whose header lies at `at`; undefined for what brings none that counts. */
  openPayload(view: DataView, at: number): PayloadSink | undefined {
    const request = decodeRequest(view, at, this.#extended, emptyRequest())
    return request.type === NBD_CMD_WRITE ? this.large.open(request, this.#since(request)) : undefined
  }

  /** Where a FUA WRITE was begun in another process; asked once for each. */
  #since({ type, flags }: DecodedRequest): number | undefined {
    return type === NBD_CMD_WRITE && (flags & NBD_CMD_FLAG_FUA) !== 0 ? this.began.shift() : undefined
  }

  /** Answers a request whose payload was thrown away as it came: too large to be kept, unless there is a verdict. */
  answerSkipped(request: DecodedRequest, verdict: Verdict = { kind: 'refused', error: NBD_EINVAL }): void {
    count(this.#export.counters, REQUESTS_AT + commandIndex(request.type))
    this.answers.judged(request, verdict)
  }

  #take(request: DecodedRequest, bytes: Uint8Array, at: number): void {
    if (request.type === NBD_CMD_DISC) {
      this.disconnected = true
      return
    }
    count(this.#export.counters, REQUESTS_AT + commandIndex(request.type))
    const refusal = this.#draining ? NBD_ESHUTDOWN : validate(request, this.#terms)
    if (refusal !== NBD_SUCCESS) this.answers.refuse(request, refusal)
    else if (this.#export.durability.unrecorded) this.answers.failed(request, EIO)
    else if (promisesDurability(request) && this.#export.durability.failure !== DONE) {
      this.#since(request)
      this.answers.failed(request, this.#export.durability.failure)
    } else if (request.length === 0 && (request.type === NBD_CMD_READ || changesImage(request.type)))
      this.answers.done(request)
    else if (request.type === NBD_CMD_READ) this.#read(request)
    else if (request.type === NBD_CMD_WRITE) this.#write(request, bytes, at)
    else if (request.type === NBD_CMD_BLOCK_STATUS) this.#blockStatus(request, copyOf(bytes, at, request.payloadLength))
    else this.slow.start(request)
  }

  #read(request: DecodedRequest): void {
    const outcome = readNow(this.#export, this.#batch, this.#style, request)
    if (outcome === WOULD_BLOCK) return this.slow.start(request)
    if (outcome !== DONE) return this.answers.failed(request, outcome)
    count(this.#export.counters, READ_BYTES_AT, request.length)
    this.answers.latency.served(NBD_CMD_READ)
  }

  #write(request: DecodedRequest, bytes: Uint8Array, at: number): void {
    const served = this.#export
    const { offset, length, flags } = request
    if ((flags & NBD_CMD_FLAG_FUA) !== 0 || !served.room.has(length)) return this.#writeLater(request, bytes, at)
    if (served.order.pending !== 0 && served.order.overlaps(offset, length)) return this.#writeLater(request, bytes, at)
    if (!this.#inspected) {
      this.#inspected = true
      served.inspect()
    }
    served.durability.mark(offset, length)
    if (served.durability.unrecorded) return this.answers.failed(request, EIO)
    const outcome = served.backend.writeNow(bytes, at, length, offset)
    if (outcome === WOULD_BLOCK) return this.#writeLater(request, bytes, at)
    if (outcome !== DONE) {
      if (served.space.holds && isSpaceError(outcome)) return this.#writeLater(request, bytes, at)
      return this.answers.failed(request, outcome)
    }
    if (served.durability.suspect.count !== 0) served.durability.rewritten(offset, length)
    served.reached(offset + length)
    served.room.took(length)
    count(served.counters, WRITTEN_BYTES_AT, length)
    this.answers.done(request)
  }

  #writeLater(request: DecodedRequest, bytes: Uint8Array, at: number): void {
    const { length } = request
    const since = this.#since(request)
    const begun = since === undefined ? request : { ...request, since }
    const pooled = this.#pooled
    this.keeps = pooled !== undefined
    this.slow.start(begun, pooled ? { bytes: bytes.subarray(at, at + length), pooled } : ownedCopy(bytes, at, length))
  }

  #blockStatus(request: DecodedRequest, ownedFilter: Uint8Array): void {
    if (this.#status.question(request, ownedFilter) === undefined) return this.answers.refuse(request, NBD_EINVAL)
    this.slow.start(request, { bytes: ownedFilter, pooled: undefined })
  }
}
