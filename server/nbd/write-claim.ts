// What a WRITE that comes in pieces holds from its first piece to its end: its turn among overlapping changes, and its marks.
// Law: nothing counts as cleared before all of it is done, under the epoch in which it began.
import { DONE, type Outcome } from '../../backends/index.js'
import type { Change } from '../exports/durable-record.js'
import type { Turn } from '../exports/write-order.js'
import { count, IN_FLIGHT_AT } from '../observe/counters.js'
import { Silence } from './silence.js'
import type { StreamedWriteOptions } from './streamed-write-options.js'

interface Held {
  readonly turn: Turn
  readonly change: Change
  readonly silence: Silence
}

export class WriteClaim {
  readonly #options: StreamedWriteOptions
  readonly #silent: () => void
  #held: Held | undefined
  #first: { readonly epoch: number; readonly number: number } | undefined
  isMyTurn = false

  /** `silent` is called when it is held and `touch` was not called for the time in the options. */
  constructor(options: StreamedWriteOptions, silent: () => void) {
    this.#options = options
    this.#silent = silent
  }

  /** Holds it, where it is not held: from the first piece on, and again where it was left for a while. */
  begin(): void {
    if (this.#held !== undefined) return
    const { served, request, since, stallTimeoutMs } = this.#options
    const { offset, length } = request
    const turn = served.order.enter(offset, length)
    const change = served.durability.begin(offset, length)
    this.isMyTurn = turn.waitsFor === 0
    // Behind whatever took its turn meanwhile, if it gave up its own.
    this.#first = { epoch: this.#first?.epoch ?? since ?? served.durability.epoch, number: served.waiting.next() }
    this.#held = { turn, change, silence: new Silence(stallTimeoutMs, this.#silent) }
    count(served.counters, IN_FLIGHT_AT)
  }

  /** It was held, and given up: what was put aside begins anew. */
  get isGivenUp(): boolean {
    return this.#first !== undefined && this.#held === undefined
  }

  /** A piece has come. */
  get hasBegun(): boolean {
    return this.#first !== undefined
  }

  /** Failures of the export when it began, wherever that was. */
  get epoch(): number {
    return this.#first?.epoch ?? this.#options.since ?? this.#options.served.durability.epoch
  }

  /** Its place in the order of arrival among all requests of the export. */
  get number(): number {
    return this.#first?.number ?? 0
  }

  /** DONE when its turn has come; else why it is not waited for any longer, as WriteOrder says. */
  async turn(wanted: () => boolean): Promise<Outcome> {
    if (this.#held === undefined || this.isMyTurn) return DONE
    const told = await this.#options.served.order.wait(this.#held.turn, wanted)
    if (told === DONE) this.isMyTurn = true
    return told
  }

  /** Others wait behind it. */
  get delays(): boolean {
    return this.#held !== undefined && this.#options.served.order.delays(this.#held.turn)
  }

  touch(): void {
    this.#held?.silence.touch()
  }

  /** Storage has answered for all of it, or will not be asked any more. */
  finish(succeeded: boolean): void {
    if (this.#held !== undefined) this.#options.served.durability.finish(this.#held.change, succeeded, false)
  }

  /** Another begins anew for it, or nobody does. */
  giveUp(): void {
    this.finish(false)
    this.leave()
  }

  leave(): void {
    const held = this.#held
    if (held === undefined) return
    const { served } = this.#options
    this.#held = undefined
    this.isMyTurn = false
    held.silence.end()
    count(served.counters, IN_FLIGHT_AT, -1)
    served.order.leave(held.turn)
  }
}
