// What a streamed write is made of.
import type { DecodedRequest } from 'nbd-protocol'
import type { Export } from '../exports/export.js'
import type { Answers } from './answers.js'
import type { PayloadBudget } from './payload-budget.js'

export interface StreamedWriteOptions {
  readonly served: Export
  readonly request: DecodedRequest
  /** The epoch under which its first part landed, in another process. */
  readonly since: number | undefined
  readonly answers: Answers
  readonly budget: PayloadBudget
  readonly client: string
  /** How long the client may send nothing while others wait behind its write. */
  readonly stallTimeoutMs: number
  /** Called when it has. */
  readonly onStall: () => void
  readonly peerGone: () => boolean
  /** It is answered, or nobody waits for an answer any more. */
  readonly onEnd: () => void
}
