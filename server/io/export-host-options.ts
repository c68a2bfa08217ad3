// What a host of exports is made of.
import type { Reopen } from '../../backends/index.js'
import type { ConnectionLimits } from '../nbd/connection-options.js'
import type { PayloadHeld } from '../nbd/payload-budget.js'
import type { Counters } from '../observe/counters.js'
import type { Log } from '../observe/log.js'
import type { HostEvents } from './io-host.js'

export interface ExportHostOptions {
  readonly limits: ConnectionLimits & { readonly shutdownTimeoutMs: number }
  readonly stateDirectory: string | undefined
  readonly log: Log
  readonly events: HostEvents
  /** An image that can be written is held by another descriptor than before. */
  readonly reopened?: (exportName: string, fd: number) => void
  readonly pulse?: Counters
  /** What all threads of the server hold; without it, this one alone. */
  readonly payloadHeld?: PayloadHeld
  /** Opens an image that was let go of; without it, in this thread. */
  readonly reopen?: Reopen
}
