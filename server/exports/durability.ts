// What may be lost: every range that was changed since the last good sync (unflushed), and, once a sync has failed, the
// ranges of which nobody knows (suspect). Law: Linux tells of failed write-back once and forgets it; this does not.

import type { Backend } from '../../backends/backend.js'
import { DETACHED, DONE, EIO, errnoOf, isSyncFailure, type Outcome, SYNC_FAILED } from '../../backends/index.js'
import type { ExportState } from '../observe/counters.js'
import type { Change, DurabilityEvents, DurableRecord } from './durable-record.js'
import { PageMarks } from './page-marks.js'
import { type Range, RangeSet } from './range-set.js'

const SYNC_REASON = 'a sync failed: what was written since the last good one may be lost'
const SEVERITY: Readonly<Record<ExportState, number>> = { ok: 0, degraded: 1, detached: 2 }

export class Durability {
  /** Bytes that may be lost: they read as EIO until they are written again. */
  readonly suspect = new RangeSet()
  readonly #backend: () => Backend
  readonly #record: DurableRecord | undefined
  readonly #events: DurabilityEvents
  readonly #inFlight = new Set<Change>()
  #unflushed = new PageMarks()
  /** What the running sync covers. */
  #syncing: PageMarks | undefined
  #running: Promise<Outcome> | undefined
  #next: Promise<Outcome> | undefined
  #state: ExportState = 'ok'
  #failure: Outcome = DONE
  #unrecorded = false
  /** Grows whenever bytes become suspect: a change that began before says nothing about them. */
  #epoch = 0
  /** Suspect bytes were written again since the record was stored; it may drop them after the next good sync. */
  #rewritten = false
  #stored: Promise<Outcome> = Promise.resolve(DONE)

  /** `backend` is asked for anew each time: fault injection may stand before it for a while. */
  constructor(backend: () => Backend, record: DurableRecord | undefined, events: DurabilityEvents) {
    this.#backend = backend
    this.#record = record
    this.#events = events
  }

  get state(): ExportState {
    return this.#state
  }

  /** DONE while syncs can be believed; else what FLUSH and FUA have to tell. */
  get failure(): Outcome {
    return this.#failure
  }

  /** Failures so far: what began before one says nothing about the bytes that it took. */
  get epoch(): number {
    return this.#epoch
  }

  /** Settles when all that is known is stored: before an error that rests on it goes out. */
  get stored(): Promise<Outcome> {
    return this.#stored
  }

  /** The record cannot be kept: then no command may be answered with success any more. */
  get unrecorded(): boolean {
    return this.#unrecorded
  }

  #noted(kept: boolean): void {
    if (kept || this.#unrecorded) return
    this.#unrecorded = true
    this.#worsen('degraded', EIO | SYNC_FAILED, 'its record in the state directory cannot be written')
  }

  /** A change that is done in this turn is about to be submitted. */
  mark(offset: number, length: number): void {
    if (this.#record !== undefined && !this.#record.touched(offset, length)) this.#noted(false)
    this.#unflushed.mark(offset, length)
  }

  /** A change that waits for storage is about to be submitted. */
  begin(offset: number, length: number): Change {
    this.mark(offset, length)
    const change = { start: offset, end: offset + length, epoch: this.#epoch }
    this.#inFlight.add(change)
    return change
  }

  /** Storage has answered. A whole success clears what was suspect, unless a failure came in between. */
  finish(change: Change, succeeded: boolean, durable: boolean): void {
    this.#inFlight.delete(change)
    if (!succeeded || change.epoch !== this.#epoch) return
    if (this.suspect.count !== 0) this.rewritten(change.start, change.end - change.start)
    if (!durable) return
    this.#unflushed.unmark(change.start, change.end - change.start)
    this.#syncing?.unmark(change.start, change.end - change.start)
  }

  /** A range was written whole by a change that began and ended in this turn. Clearing is exact. */
  rewritten(offset: number, length: number): void {
    this.suspect.remove(offset, offset + length)
    this.#rewritten = true
    this.#events.changed()
  }

  /**
   * A read has succeeded: where write-back gave pages up, storage or the kernel may just have filled them with what was
   * there before. Asked of reads from the cache as well, which holes get into without a word.
   */
  readBack(offset: number, length: number): void {
    if (this.#unflushed.empty && this.#syncing === undefined) return
    const unflushed = this.#unflushed.intersects(offset, length) || this.#syncing?.intersects(offset, length)
    if (unflushed) this.probe()
  }

  /** Asks whether write-back has failed since the last sync; once a second, and after reads that missed the cache. */
  probe(): void {
    if (this.#unflushed.empty && this.#syncing === undefined) return
    this.#ask()
  }

  #ask(): void {
    const errno = errnoOf(this.#backend().probe())
    if (errno !== 0) this.#failed(errno | SYNC_FAILED, 'write-back failed before any sync')
  }

  /** Everything that completed before the call is durable when the outcome is DONE. Concurrent callers share a sync. */
  flush(): Promise<Outcome> {
    if (this.#failure !== DONE) return Promise.resolve(this.#failure)
    // A next one that is about to begin covers this call too; two syncs at a time would lose each other's marks.
    if (this.#next !== undefined) return this.#next
    if (this.#running === undefined) return this.#sync()
    // The running sync began before this call: what completed in between needs the next one.
    this.#next = this.#running.then(() => {
      this.#next = undefined
      return this.#failure === DONE ? this.#sync() : this.#failure
    })
    return this.#next
  }

  #sync(): Promise<Outcome> {
    const epoch = this.#epoch
    this.#syncing = this.#unflushed
    this.#unflushed = new PageMarks()
    for (const { start, end } of this.#inFlight) this.#unflushed.mark(start, end - start)
    // What is rewritten while the sync runs is not covered by it, so the record keeps what is suspect now.
    const suspect = this.#rewritten ? [...this.suspect] : undefined
    this.#rewritten = false
    this.#running = this.#backend()
      .flush()
      .then((outcome) => {
        const told = this.judge(outcome, epoch)
        if (told === DONE) this.#noted(this.#record?.synced(this.#unflushed.ranges(this.#backend().size)) ?? true)
        if (told === DONE && suspect !== undefined) this.#store(suspect)
        this.#syncing = undefined
        this.#running = undefined
        return told
      })
    return this.#running
  }

  /**
   * Draws the consequences of a sync's outcome, or of a durable change's, and returns what the client is to hear. The
   * kernel tells an error once: a success is none when a sync beside it, or the probe, was told in its place since
   * `epoch`, though an operator may have resumed in between.
   */
  judge(outcome: Outcome, epoch = this.#epoch): Outcome {
    if (outcome === DONE) this.#ask()
    if (outcome === DETACHED) this.detach('the path of the image leads to another file, or to none')
    else if (isSyncFailure(outcome)) this.#failed(outcome, SYNC_REASON)
    if (outcome !== DONE && outcome !== DETACHED) return outcome
    return this.#failure === DONE && this.#epoch !== epoch ? EIO | SYNC_FAILED : this.#failure
  }

  /** All that was not synced is suspect now, whatever is in flight included. */
  #failed(outcome: Outcome, reason: string): void {
    this.#epoch += 1
    // The same failure waits at the other descriptor too: heard later, it would condemn what is written from here on.
    this.#backend().probe()
    for (const marks of [this.#syncing, this.#unflushed]) {
      for (const { start, end } of marks?.ranges(this.#backend().size) ?? []) this.suspect.add(start, end)
    }
    this.#unflushed = new PageMarks()
    this.#syncing = this.#syncing && new PageMarks()
    for (const { start, end } of this.#inFlight) this.#unflushed.mark(start, end - start)
    this.#worsen('degraded', outcome, reason)
  }

  /** Bytes are gone from under our feet. */
  missing(start: number, end: number, reason: string): void {
    this.#epoch += 1
    this.suspect.add(start, end)
    this.#worsen('degraded', EIO | SYNC_FAILED, reason)
  }

  /** The image cannot be found under its name any more, so nothing that is written lasts. */
  detach(reason: string): void {
    this.#worsen('detached', EIO | DETACHED, reason)
  }

  #worsen(state: ExportState, failure: Outcome, reason: string): void {
    if (this.#failure === DONE) this.#failure = failure
    const worse = SEVERITY[state] > SEVERITY[this.#state]
    if (worse) this.#state = state
    this.#store()
    this.#events.changed()
    if (worse) this.#events.worsened(state, reason)
  }

  #store(suspect: Iterable<Range> = this.suspect): void {
    if (this.#record === undefined) return
    this.#stored = this.#record.store(this.#state, errnoOf(this.#failure), suspect)
    this.#stored.then((outcome) => this.#noted(outcome === DONE))
  }

  /** What an earlier server knew, before the first client comes. */
  restore(state: ExportState, errno: number, suspect: Iterable<Range>): void {
    for (const { start, end } of suspect) this.suspect.add(start, Math.min(end, this.#backend().size))
    if (state !== 'ok') this.#worsen(state, (errno || EIO) | SYNC_FAILED, 'it was so when it was last served')
    this.#events.changed()
  }

  /** The operator's word that storage is good again: believed when a sync succeeds. Suspect ranges stay. */
  async resume(): Promise<Outcome> {
    const epoch = this.#epoch
    // As in a FLUSH: what is rewritten meanwhile is not covered, and stays in the record until the next good sync.
    const suspect = [...this.suspect]
    const outcome = await this.#backend().flush()
    if (isSyncFailure(outcome)) this.#failed(outcome, SYNC_REASON)
    this.#ask()
    if (outcome !== DONE) return outcome
    if (this.#epoch !== epoch) return this.#failure
    this.#failure = DONE
    this.#state = 'ok'
    this.#store(suspect)
    this.#events.changed()
    return this.#stored
  }

  /** The operator's word that the image was restored: nothing is suspect any more. */
  async forget(): Promise<Outcome> {
    this.suspect.clear()
    // Nobody restored what a change that is still on its way may have lost to an earlier failure.
    for (const { start, end, epoch } of this.#inFlight) if (epoch !== this.#epoch) this.suspect.add(start, end)
    this.#store()
    this.#events.changed()
    return this.#stored
  }
}
