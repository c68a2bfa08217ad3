// What durability asks of those around it: a record that outlives the server, and ears for what changes.
import type { Outcome } from '../../backends/index.js'
import type { ExportState } from '../observe/counters.js'
import type { Range } from './range-set.js'

/** Where what must outlive the server is kept. */
export interface DurableRecord {
  /** Called before a range is changed; false when that could not be noted. */
  touched(offset: number, length: number): boolean
  /** Everything that was touched is on stable storage, but for what `still` marks; false as above. */
  synced(still: Iterable<Range>): boolean
  /** The state and the suspect ranges as they are now; settles when they are on stable storage. */
  store(state: ExportState, errno: number, suspect: Iterable<Range>): Promise<Outcome>
}

export interface DurabilityEvents {
  /** Bytes became suspect, were rewritten, or the state changed. */
  changed(): void
  /** The state changed for the worse; `reason` is a sentence. */
  worsened(state: ExportState, reason: string): void
}

/** A change of the image that storage has not answered yet. */
export interface Change {
  readonly start: number
  readonly end: number
  /** Failures that were known when it began. */
  readonly epoch: number
}
