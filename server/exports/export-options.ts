// What an export is made of, and who is told of what goes wrong on it.
import type { Backend } from '../../backends/index.js'
import type { SlowLimits } from '../nbd/slow-requests.js'
import type { ExportState } from '../observe/counters.js'
import type { Ledger } from '../state/ledger.js'
import type { DurableRecord } from './durable-record.js'
import type { SpacePolicy } from './space-hold.js'
import type { Waiting } from './waiting.js'

/** Told of everything that went wrong on an export; never blocks. */
export interface ExportWitness {
  /** A request was answered with an error. */
  requestFailed(name: string, failure: Failure): void
  /** The export's state changed for the worse; `reason` is a sentence. */
  stateChanged(name: string, state: ExportState, reason: string): void
  /** Storage has not answered a request for a long time. */
  requestHangs(name: string, waiting: Waiting): void
  /** Requests that a lost connection left behind were dropped before the kernel had them. */
  requestsDropped(name: string, failure: Failure): void
  /** Lines of the ledger could not be written. */
  ledgerFailed(name: string, entries: number): void
}

/** A request that came to nothing. */
export interface Failure {
  /** Who asked, as the log names it. */
  readonly client: string
  /** The spec's number. */
  readonly command: number
  /** The host's errno, or the spec's value where candor itself refused; 0 for a request that was dropped. */
  readonly errno: number
  readonly offset: number
  readonly length: number
  /** The operator's reserve refused it; storage was not asked. */
  readonly byReserve?: boolean
}

/** What an operator may decide while the export is served. */
export interface ExportPolicy {
  readonly onSpace: SpacePolicy
  /** Bytes of the file system that the export leaves free. */
  readonly reserve: number
  /** Bytes that may be lost are read as if they were not. */
  readonly readsSuspects: boolean
  /** Of its connections, in the place of the server's. */
  readonly limits: Partial<SlowLimits>
}

export interface ExportOptions {
  readonly name: string
  /** For people; every client that may see the export reads it. */
  readonly description?: string
  readonly backend: Backend
  /** Where the export's state outlives the server; without one it does not. */
  readonly record?: DurableRecord | undefined
  readonly readsSuspects?: boolean
  readonly ledger?: Ledger | undefined
  /** Default: ENOSPC is told at once. */
  readonly onSpace?: SpacePolicy
  /** Bytes of the file system that the export leaves free. Default: 0. */
  readonly reserve?: number
  readonly witness: ExportWitness
}
