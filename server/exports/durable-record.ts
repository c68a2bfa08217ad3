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
  /** The image is about to grow, or was made shorter; settles when the record has room for it, on stable storage. */
  resized(size: number): Promise<Outcome>
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

export const SYNC_REASON = 'a sync failed: what was written since the last good one may be lost'
export const SEVERITY: Readonly<Record<ExportState, number>> = { ok: 0, degraded: 1, detached: 2 }

/** How an export stands. */
export interface Standing {
  state: ExportState
  /** DONE while syncs can be believed; else what FLUSH and FUA have to tell. */
  failure: Outcome
  /** The record cannot be kept: then no command may be answered with success any more. */
  unrecorded: boolean
  /** Failures so far: what began before one says nothing about the bytes that it took. */
  epoch: number
}

/** What is known of the bytes of an image, for the process that takes it over. */
export interface KnownDurability extends Standing {
  readonly suspect: readonly Range[]
  /** Written again, and stored as suspect until a sync. */
  readonly rewritten: readonly Range[]
  /** As PageMarks packs them. */
  readonly unflushed: Uint32Array
}
