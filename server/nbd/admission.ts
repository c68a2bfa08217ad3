// Whether a request may be taken on now. Law: who may not is told of the moment in which it is worth asking again, and who may
// waits for nothing any more.
import { type DecodedRequest, NBD_CMD_READ } from 'nbd-protocol'
import type { Export } from '../exports/export.js'
import type { LargeWrites } from './large-writes.js'
import { type PayloadBudget, SMALL_BYTES } from './payload-budget.js'
import type { ReplyBatch } from './reply-batch.js'
import type { SlowRequests } from './slow-requests.js'
import { STREAM_BYTES_MAX } from './streamed-write.js'
import type { TransmissionLimits } from './transmission-options.js'
import type { Terms } from './validation.js'

export interface AdmissionOptions {
  readonly served: Export
  readonly batch: ReplyBatch
  readonly slow: SlowRequests
  readonly large: LargeWrites
  readonly limits: TransmissionLimits
  readonly terms: Terms
  readonly budget: PayloadBudget
  /** Called when a request that was not admitted may be. */
  readonly onRoom: () => void
}

export class Admission {
  readonly #options: AdmissionOptions

  constructor(options: AdmissionOptions) {
    this.#options = options
  }

  /** `isStreamed`: its payload goes to storage as it comes. `isHeld`: it has come whole, and was admitted before it did. */
  admits({ type, length, payloadLength }: DecodedRequest, isStreamed: boolean, isHeld: boolean): boolean {
    const { served, batch, slow, large, limits, terms, budget, onRoom } = this.#options
    const { backlog } = batch
    const isFull = large.count > 0 && slow.bytes + large.bytes >= limits.slowBytesMax
    const mayServe = !(slow.full || isFull || backlog > limits.replyBacklogMax)
    // What waits for space or an operator waits for long, and nothing else is to wait for it.
    if (!mayServe || served.space.held > 0 || served.recess.active) {
      this.withdraw()
      return mayServe
    }
    const moves = type === NBD_CMD_READ || payloadLength > 0
    if (isHeld || length <= SMALL_BYTES || length > terms.payloadBytesMax || !moves) return true
    return budget.admits(isStreamed ? STREAM_BYTES_MAX : length, slow.bytes + backlog, onRoom)
  }

  /** Nothing is waited for any more. */
  withdraw(): void {
    this.#options.budget.withdraw(this.#options.onRoom)
  }
}
