// Requests that cannot be answered in the turn in which they arrived. Law: each is answered exactly once, after the
// backend's word; changes that overlap go in order of arrival, whichever connection they came on.

import {
  commandIndex,
  type DecodedRequest,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
} from 'nbd-protocol'
import { DONE, errnoOf, MOVED, type Outcome, RESERVED } from '../../backends/index.js'
import { attemptChange } from '../exports/attempt.js'
import type { Export } from '../exports/export.js'
import { type Hold, type HoldRequest, isSpaceError } from '../exports/space-hold.js'
import { dropUnwanted } from '../exports/unwanted.js'
import { count, DEFERRED_AT, IN_FLIGHT_AT, READ_BYTES_AT, REQUESTS_AT, WRITTEN_BYTES_AT } from '../observe/counters.js'
import type { Answers } from './answers.js'
import type { BlockStatus } from './block-status.js'
import { copyOf, giveBuffer, type OwnedPayload } from './buffer-pool.js'
import { submitChange, takesSpace } from './changes.js'
import type { MovedRequest } from './moved.js'
import type { PayloadBudget } from './payload-budget.js'
import { syncPieces } from './piece-io.js'
import { type ReadReply, readUnharmed } from './read-reply.js'
import { changesImage } from './validation.js'

export interface SlowLimits {
  /** Requests of one connection that may be slow at once; at the bound its socket is not read. */
  readonly slowRequestsMax: number
  /** Bytes of payload, to be written or to be read, that they may hold. */
  readonly slowBytesMax: number
}

/** A request, which may be the rest of one that another process began: promises speak of what failed since as well. */
export interface Begun extends DecodedRequest {
  readonly since?: number | undefined
}

const NOTHING: OwnedPayload = { bytes: new Uint8Array(0), pooled: undefined }

export class SlowRequests {
  readonly #export: Export
  readonly #status: BlockStatus
  readonly #answers: Answers
  readonly #limits: SlowLimits
  readonly #budget: PayloadBudget
  readonly #client: string
  readonly #peerGone: () => boolean
  #count = 0
  #bytes = 0
  #lost = false
  #moved: MovedRequest[] = []

  constructor(
    served: Export,
    status: BlockStatus,
    answers: Answers,
    limits: SlowLimits,
    budget: PayloadBudget,
    client: string,
    peerGone: () => boolean,
  ) {
    this.#budget = budget
    this.#client = client
    this.#peerGone = peerGone
    this.#export = served
    this.#status = status
    this.#answers = answers
    this.#limits = limits
  }

  /** Requests that are not answered yet. */
  get count(): number {
    return this.#count
  }

  /** Bytes that they hold. */
  get bytes(): number {
    return this.#bytes
  }

  get full(): boolean {
    return this.#count >= this.#limits.slowRequestsMax || this.#bytes >= this.#limits.slowBytesMax
  }

  /** The connection is gone: what the kernel has not been given yet is dropped, and no answer is sent any more. */
  connectionLost(): void {
    this.#lost = true
    for (const { request } of this.takeMoved()) this.#forget(request)
    dropUnwanted(this.#export)
  }

  /** Requests that were to be begun anew, since the export was frozen; they are the caller's. */
  takeMoved(): MovedRequest[] {
    const moved = this.#moved
    this.#moved = []
    return moved
  }

  /**
   * Takes a request on. The payload is owned from here, and given back in the end; the request is copied. `earlier`: it was
   * taken elsewhere before.
   */
  start(request: Begun, payload: OwnedPayload = NOTHING, earlier?: MovedRequest): void {
    const own = { ...request }
    const { type: command, offset, length } = own
    const who: HoldRequest = { client: this.#client, command, offset, length, hold: earlier?.hold }
    const bytes = payload.bytes.length + (own.type === NBD_CMD_READ ? own.length : 0)
    this.#count += 1
    this.#bytes += bytes
    this.#budget.take(bytes)
    const { latency } = this.#answers
    const sinceMs = earlier === undefined ? latency.sinceMs : performance.now() - earlier.ageMs
    if (earlier === undefined) count(this.#export.counters, DEFERRED_AT + commandIndex(own.type))
    if (earlier?.counted === false) count(this.#export.counters, REQUESTS_AT + commandIndex(own.type))
    count(this.#export.counters, IN_FLIGHT_AT)
    const waiting = this.#export.waiting.enter(own.type)
    void this.#run(own, payload.bytes, who).then((outcome) => {
      if (outcome === MOVED) this.#move(own, payload.bytes, waiting.number, performance.now() - sinceMs, who.hold)
      else if (outcome !== undefined) latency.answered(own.type, outcome, sinceMs)
      if (payload.pooled !== undefined) giveBuffer(payload.pooled)
      this.#export.waiting.leave(waiting)
      this.#count -= 1
      this.#bytes -= bytes
      this.#budget.give(bytes)
      count(this.#export.counters, IN_FLIGHT_AT, -1)
      this.#answers.settled()
    })
  }

  #move(request: Begun, payload: Uint8Array, number: number, ageMs: number, hold: Hold | undefined): void {
    if (this.#lost) return this.#forget(request)
    this.#moved.push({ request, payload: copyOf(payload, 0, payload.length), number, ageMs, hold, counted: true })
  }

  /** Nobody misses what would have changed nothing. */
  #forget(request: DecodedRequest): undefined {
    if (changesImage(request.type)) this.#dropped(request)
  }

  /** What came of it; undefined when it was dropped, or done for nobody; MOVED when the export was frozen. */
  async #run(request: Begun, payload: Uint8Array, who: HoldRequest): Promise<Outcome | undefined> {
    const asks = request.type !== NBD_CMD_FLUSH && !changesImage(request.type)
    const told = asks && this.#export.recess.active ? await this.#recessOver() : DONE
    if (told === MOVED) return MOVED
    if (told !== DONE) return this.#lost ? undefined : this.#failed(request, told)
    if (request.type === NBD_CMD_READ) return this.#read(request)
    if (request.type === NBD_CMD_BLOCK_STATUS) return this.#blockStatus(request, payload)
    const outcome = changesImage(request.type) ? await this.#change(request, payload, who) : await this.#other(request)
    if (outcome === undefined || outcome === MOVED) return outcome
    if (outcome !== DONE) return this.#failed(request, outcome)
    if (this.#lost) return undefined
    this.#answers.done(request)
    return DONE
  }

  /** When nobody hears the answer any more, the operator does all the same. */
  #failed(request: DecodedRequest, outcome: Outcome): Outcome | undefined {
    const { type, offset, length } = request
    if (this.#lost && isSpaceError(outcome)) return this.#forget(request)
    if (!this.#lost) this.#answers.failed(request, outcome)
    else this.#export.failed({ client: this.#client, command: type, errno: errnoOf(outcome), offset, length })
    return outcome
  }

  #recessOver(): Promise<Outcome> {
    return this.#export.recess.wait(() => !this.#lost)
  }

  #data({ parts, pooled }: ReadReply): Outcome | undefined {
    if (!this.#lost) this.#answers.data(parts, pooled)
    else if (pooled !== undefined) giveBuffer(pooled)
    return this.#lost ? undefined : DONE
  }

  async #read(request: DecodedRequest): Promise<Outcome | undefined> {
    const reply = await readUnharmed(this.#export, this.#status.style, request, () => !this.#lost)
    if (reply === MOVED) return MOVED
    if (typeof reply === 'number') return this.#failed(request, reply)
    if (!this.#lost) count(this.#export.counters, READ_BYTES_AT, request.length)
    return this.#data(reply)
  }

  async #blockStatus(request: DecodedRequest, payload: Uint8Array): Promise<Outcome | undefined> {
    const reply = await this.#status.answer(request, payload)
    return typeof reply === 'number' ? this.#failed(request, reply) : this.#data({ parts: [reply], pooled: undefined })
  }

  /** undefined: dropped with its connection, before the kernel had it. */
  async #change(request: Begun, payload: Uint8Array, who: HoldRequest): Promise<Outcome | undefined> {
    const { order, recess } = this.#export
    const turn = order.enter(request.offset, request.length)
    try {
      const waited = turn.waitsFor > 0 || recess.active
      const came = turn.waitsFor > 0 ? await order.wait(turn, () => !this.#lost) : DONE
      const told = came === DONE && recess.active ? await this.#recessOver() : came
      // Asked after a wait: the peer may have gone meanwhile, and its socket not have been read.
      if (waited ? !this.#wanted() : this.#lost) return this.#dropped(request)
      if (told !== DONE) return told
      return this.#export.frozen ? MOVED : await this.#changeNow(request, payload, who)
    } finally {
      order.leave(turn)
    }
  }

  /** Asked after a wait: whether anybody still waits for an answer. */
  #wanted(): boolean {
    if (!this.#lost && this.#peerGone()) this.connectionLost()
    return !this.#lost
  }

  #dropped({ type, offset, length }: DecodedRequest): undefined {
    this.#export.dropped({ client: this.#client, command: type, errno: 0, offset, length })
  }

  async #changeNow(request: Begun, payload: Uint8Array, who: HoldRequest): Promise<Outcome> {
    const { gate, space } = this.#export
    const attempt = () =>
      gate.pass(
        () => this.#attempt(request, payload),
        () => !this.#lost,
      )
    const outcome = await space.run(attempt, () => this.#wanted(), who)
    if (outcome === DONE && who.command === NBD_CMD_WRITE) count(this.#export.counters, WRITTEN_BYTES_AT, who.length)
    return outcome
  }

  async #attempt(request: Begun, payload: Uint8Array): Promise<Outcome> {
    const { type, offset, length, since } = request
    const promises = (request.flags & NBD_CMD_FLAG_FUA) !== 0
    // What has landed of it elsewhere is not durable by the rest's being so: all of it is synced when the rest is written.
    const durable = promises && since === undefined
    const submit = async () => (this.#lost ? RESERVED : submitChange(this.#export.backend, request, payload, durable))
    const how = { durable, isTrim: type === NBD_CMD_TRIM, takesSpace: takesSpace(request) }
    const outcome = await attemptChange(this.#export, { offset, length, ...how, submit })
    return outcome === DONE && promises && since !== undefined ? syncPieces(this.#export, type, since) : outcome
  }

  #other({ type, offset, length }: DecodedRequest): Promise<Outcome> {
    if (type === NBD_CMD_FLUSH) return this.#export.flush()
    if (type === NBD_CMD_CACHE) return this.#export.backend.cache(offset, length)
    throw new TypeError(`validation let command ${type} through`)
  }
}
