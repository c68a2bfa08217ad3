// What a WRITE that comes in pieces holds from its first piece to its end: its turn among overlapping changes, and its marks.
// Law: nothing counts as cleared before all of it is done, under the epoch in which it began.
import type { Change } from '../exports/durable-record.js'
import type { Export } from '../exports/export.js'
import type { Turn } from '../exports/write-order.js'
import { count, IN_FLIGHT_AT } from '../observe/counters.js'
import { Silence } from './silence.js'
import type { StreamedWriteOptions } from './streamed-write-options.js'

export class WriteClaim {
  readonly #export: Export
  readonly #turn: Turn
  readonly #change: Change
  readonly #silence: Silence
  /** Failures of the export when it began, wherever that was. */
  readonly epoch: number
  isMyTurn: boolean

  /** `silent` is called when `touch` was not for so long. */
  constructor({ served, request, since, stallTimeoutMs }: StreamedWriteOptions, silent: () => void) {
    const { offset, length } = request
    this.#export = served
    this.#turn = served.order.enter(offset, length)
    this.isMyTurn = this.#turn.ahead === undefined
    this.#change = served.durability.begin(offset, length)
    this.epoch = since ?? served.durability.epoch
    this.#silence = new Silence(stallTimeoutMs, silent)
    count(served.counters, IN_FLIGHT_AT)
  }

  async turn(): Promise<void> {
    if (!this.isMyTurn) await this.#turn.ahead
    this.isMyTurn = true
  }

  /** Others wait behind it. */
  get delays(): boolean {
    return this.#export.order.delays(this.#turn)
  }

  touch(): void {
    this.#silence.touch()
  }

  /** Storage has answered for all of it, or will not be asked any more. */
  finish(succeeded: boolean): void {
    this.#export.durability.finish(this.#change, succeeded, false)
  }

  leave(): void {
    this.#silence.end()
    count(this.#export.counters, IN_FLIGHT_AT, -1)
    this.#export.order.leave(this.#turn)
  }
}
