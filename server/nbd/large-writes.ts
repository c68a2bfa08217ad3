// The large WRITEs of one connection, which go to storage as they come. Law: whatever a small one would be refused for, a
// large one is refused for too, before any of it reaches storage.
import { commandIndex, type DecodedRequest, NBD_CMD_WRITE, NBD_ESHUTDOWN, NBD_SUCCESS } from 'nbd-protocol'
import { DONE, EIO, type Outcome } from '../../backends/index.js'
import type { Export } from '../exports/export.js'
import { count, REQUESTS_AT } from '../observe/counters.js'
import type { Answers } from './answers.js'
import type { MovedRequest } from './moved.js'
import { type PayloadSink, PIECE_BYTES } from './payload-feed.js'
import { restOf } from './piece-io.js'
import { RefusedPayload } from './refused-payload.js'
import type { Judged, Verdict } from './region.js'
import { StreamedWrite } from './streamed-write.js'
import type { StreamedWriteOptions } from './streamed-write-options.js'
import { promisesDurability, type Terms, validate } from './validation.js'

export interface LargeWritesOptions extends Omit<StreamedWriteOptions, 'request' | 'since' | 'onEnd'> {
  readonly terms: Terms
}

export class LargeWrites {
  readonly #options: LargeWritesOptions
  readonly #export: Export
  readonly #answers: Answers
  readonly #writes = new Map<StreamedWrite, DecodedRequest>()
  #draining = false
  #thawed = false
  #frozen = false
  /** Payload that nobody wants is on its way. */
  #refused: Judged | undefined

  constructor(options: LargeWritesOptions) {
    this.#options = options
    this.#export = options.served
    this.#answers = options.answers
  }

  /** Those that wait for storage; one whose payload has not come whole may wait for its client alone. */
  get inFlight(): number {
    let writes = 0
    for (const { waitsForStorage } of this.#writes.keys()) if (waitsForStorage) writes += 1
    return writes
  }

  /** Those that are not answered yet. */
  get count(): number {
    return this.#writes.size
  }

  /** Bytes that they hold. */
  get bytes(): number {
    let bytes = 0
    for (const { pieces } of this.#writes.keys()) bytes += pieces.length * PIECE_BYTES
    return bytes
  }

  /** Who takes the payload of this WRITE, of which a part may have landed under the epoch `since`. */
  open(request: DecodedRequest, since?: number): PayloadSink {
    this.#count(1)
    const own = { ...request }
    const refusal = this.#draining ? NBD_ESHUTDOWN : validate(own, this.#options.terms)
    if (refusal !== NBD_SUCCESS) return this.#refuse(own, { kind: 'refused', error: refusal })
    const failure = this.#failure(own)
    if (failure !== DONE) return this.#refuse(own, { kind: 'failed', outcome: failure })
    const onEnd = () => {
      this.#writes.delete(write)
      if (this.#frozen) this.#count(1)
    }
    const write = new StreamedWrite({ ...this.#options, request: own, since, onEnd })
    this.#writes.set(write, own)
    return write
  }

  get #unanswered(): number {
    return this.#writes.size + (this.#refused === undefined ? 0 : 1)
  }

  #count(requests: number): void {
    count(this.#export.counters, REQUESTS_AT + commandIndex(NBD_CMD_WRITE), requests)
  }

  /** What it would fail with whatever storage says. */
  #failure(request: DecodedRequest): Outcome {
    if (this.#export.durability.unrecorded) return EIO
    return promisesDurability(request) ? this.#export.durability.failure : DONE
  }

  #refuse(request: DecodedRequest, verdict: Verdict): PayloadSink {
    this.#refused = this.#judge(request, verdict)
    return new RefusedPayload(request.payloadLength, () => {
      this.#refused = undefined
      if (this.#frozen) this.#count(1)
      this.#answers.judged(request, verdict)
    })
  }

  #judge(request: DecodedRequest, verdict: Verdict): Judged {
    return { header: restOf(request, 0, this.#options.terms.extended), verdict }
  }

  /** The one whose payload is thrown away as it comes: asked before `takeMoved`. */
  get judged(): Judged | undefined {
    for (const [{ failure }, request] of this.#writes)
      if (failure !== undefined) return this.#judge(request, { kind: 'failed', outcome: failure })
    return this.#refused
  }

  /** Some cannot go on in another process: others wait for them, or replies tell where they began. */
  get areFixed(): boolean {
    for (const write of this.#writes.keys())
      if (!write.canMove || (this.#options.terms.extended && write.landing.bytes > 0)) return true
    return false
  }

  get #going(): [StreamedWrite, DecodedRequest][] {
    return [...this.#writes].filter(([{ failure, isWhole }]) => failure === undefined && !isWhole)
  }

  /** The epochs under which those began that promise durability, in order. */
  get began(): number[] {
    return this.#going.filter(([{ isDurable }]) => isDurable).map(([{ claim }]) => claim.epoch)
  }

  /** What has come of those that are not whole, as requests of their own for the rest; they are of no more use. */
  takeMoved(): Uint8Array[] {
    return this.#going.flatMap(([write, request]) => {
      write.leave()
      return [restOf(request, write.landing.bytes, this.#options.terms.extended), ...write.pieces.takeAside()]
    })
  }

  /** Those that are whole begin anew with all other requests, in their order. `counted`: where they are counted already. */
  takeRequests(counted = false): MovedRequest[] {
    const whole = [...this.#writes].filter(
      ([{ isWhole, failure, claim }]) => isWhole && failure === undefined && claim.isGivenUp,
    )
    return whole.map(([write, request]) => {
      const { landing, pieces, claim, sinceMs, isDurable } = write
      const [offset, length] = [request.offset + landing.bytes, request.length - landing.bytes]
      const rest = { ...request, offset, length, payloadLength: length, since: isDurable ? claim.epoch : undefined }
      write.leave()
      this.#writes.delete(write)
      const payload = Buffer.concat(pieces.takeAside())
      return {
        request: rest,
        payload,
        number: claim.number,
        ageMs: performance.now() - sinceMs,
        hold: undefined,
        counted,
      }
    })
  }

  /** Another process is about to go on with them, where they are counted: its counters are taken before they are. */
  freeze(): void {
    if (!this.#frozen) this.#count(-this.#unanswered)
    this.#frozen = true
    for (const { failure, landing } of this.#writes.keys()) if (failure === undefined) landing.freeze()
  }

  /** The export goes on here after all; what is returned is to be begun anew. */
  thaw(): MovedRequest[] {
    if (this.#frozen) this.#count(this.#unanswered)
    this.#frozen = false
    this.#thawed = true
    return this.takeRequests(true)
  }

  /** Those that are still to come go on, behind what was begun anew. */
  goOn(): void {
    if (!this.#thawed) return
    this.#thawed = false
    for (const write of this.#writes.keys()) write.thaw()
  }

  drain(): void {
    this.#draining = true
    for (const write of [...this.#writes.keys()]) write.drain()
  }

  connectionLost(): void {
    for (const write of [...this.#writes.keys()]) write.connectionLost()
  }
}
