// The large WRITEs of one connection, which go to storage as they come. Law: whatever a small one would be refused for, a
// large one is refused for too, before any of it reaches storage.
import { commandIndex, type DecodedRequest, NBD_CMD_WRITE, NBD_ESHUTDOWN, NBD_SUCCESS } from 'nbd-protocol'
import { DONE, EIO, type Outcome } from '../../backends/index.js'
import type { Export } from '../exports/export.js'
import { count, REQUESTS_AT } from '../observe/counters.js'
import type { Answers } from './answers.js'
import { type PayloadSink, PIECE_BYTES } from './payload-feed.js'
import { RefusedPayload } from './refused-payload.js'
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
  readonly #writes = new Set<StreamedWrite>()
  #draining = false
  #frozen = false
  /** Payload that nobody wants is on its way. */
  #refusing = false

  constructor(options: LargeWritesOptions) {
    this.#options = options
    this.#export = options.served
    this.#answers = options.answers
  }

  /** Those that wait for storage; one whose payload has not come whole may wait for its client alone. */
  get inFlight(): number {
    let writes = 0
    for (const { waitsForStorage } of this.#writes) if (waitsForStorage) writes += 1
    return writes
  }

  /** Those that are not answered yet. */
  get count(): number {
    return this.#writes.size
  }

  /** Bytes that they hold. */
  get bytes(): number {
    let bytes = 0
    for (const { queued } of this.#writes) bytes += queued * PIECE_BYTES
    return bytes
  }

  /** Who takes the payload of this WRITE, of which a part may have landed under the epoch `since`. */
  open(request: DecodedRequest, since?: number): PayloadSink {
    this.#count(1)
    const own = { ...request }
    const refusal = this.#draining ? NBD_ESHUTDOWN : validate(own, this.#options.terms)
    if (refusal !== NBD_SUCCESS) return this.#refused(own, () => this.#answers.refuse(own, refusal))
    const failure = this.#failure(own)
    if (failure !== DONE) return this.#refused(own, () => this.#answers.failed(own, failure))
    const onEnd = () => {
      this.#writes.delete(write)
      if (this.#frozen) this.#count(1)
    }
    const write = new StreamedWrite({ ...this.#options, request: own, since, onEnd })
    this.#writes.add(write)
    return write
  }

  #count(requests: number): void {
    count(this.#export.counters, REQUESTS_AT + commandIndex(NBD_CMD_WRITE), requests)
  }

  /** What it would fail with whatever storage says. */
  #failure(request: DecodedRequest): Outcome {
    if (this.#export.durability.unrecorded) return EIO
    return promisesDurability(request) ? this.#export.durability.failure : DONE
  }

  #refused({ payloadLength }: DecodedRequest, answer: () => void): PayloadSink {
    this.#refusing = true
    return new RefusedPayload(payloadLength, () => {
      this.#refusing = false
      this.#answers.turnBegins()
      answer()
      this.#answers.turnEnds()
    })
  }

  /** Some cannot go on in another process: they have failed, others wait for them, or replies tell where they began. */
  get areFixed(): boolean {
    if (this.#refusing) return true
    for (const write of this.#writes)
      if (!write.canMove || (this.#options.terms.extended && write.landing.bytes > 0)) return true
    return false
  }

  /** The epochs under which those began that promise durability, in order. */
  get began(): number[] {
    return [...this.#writes].filter(({ isDurable }) => isDurable).map(({ epoch }) => epoch)
  }

  /** What is left of them, as requests of their own, in order, the last one perhaps not whole; they are of no more use. */
  takeMoved(): Uint8Array[] {
    return [...this.#writes].flatMap((write) => write.takeMoved(this.#options.terms.extended))
  }

  /** Another process is about to go on with them, where they are counted: its counters are taken before they are. */
  freeze(): void {
    if (!this.#frozen) this.#count(-this.#writes.size)
    this.#frozen = true
    for (const { landing } of this.#writes) landing.freeze()
  }

  /** The export goes on here after all. */
  thaw(): void {
    if (this.#frozen) this.#count(this.#writes.size)
    this.#frozen = false
    for (const write of this.#writes) write.thaw()
  }

  drain(): void {
    this.#draining = true
    for (const write of [...this.#writes]) write.drain()
  }

  connectionLost(): void {
    for (const write of [...this.#writes]) write.connectionLost()
  }
}
