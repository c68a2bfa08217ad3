// What a transmission is made of.
import type { MetaContext, ReplyStyle } from 'nbd-protocol'
import type { Export } from '../exports/export.js'
import type { PayloadBudget } from './payload-budget.js'
import type { ReplyBatch } from './reply-batch.js'
import type { SlowLimits } from './slow-requests.js'
import type { Terms } from './validation.js'

/** Requests, and bytes of READ and WRITE, that one turn serves before other connections have theirs. */
export const TURN_MAX = { requests: 1024, bytes: 8 << 20 } as const

/** Why `serve` stopped before the end of its bytes. */
export type Halt = 'none' | 'room' | 'turn'

export interface TransmissionLimits extends SlowLimits {
  /** Bytes of replies that the peer has not taken; past them nothing more is served. */
  readonly replyBacklogMax: number
  /** How long a client may send nothing in the middle of a large WRITE that others wait for. */
  readonly payloadTimeoutMs: number
}

export interface TransmissionOptions {
  readonly served: Export
  readonly style: ReplyStyle
  readonly contexts: readonly MetaContext[]
  readonly terms: Terms
  readonly batch: ReplyBatch
  readonly limits: TransmissionLimits
  readonly budget: PayloadBudget
  /** Called when something that held serving up may have gone away. */
  readonly onRoom: () => void
  /** Whether the peer is gone although the socket, which is not read, does not say so; ends the connection then. */
  readonly peerGone: () => boolean
  /** Called when the client has sent nothing for too long in the middle of a WRITE; ends the connection. */
  readonly stalled: () => void
  /** The peer as log and ledger name it. */
  readonly client: string
}
