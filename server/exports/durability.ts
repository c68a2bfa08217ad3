// What may be lost: every range that was changed since the last good sync (unflushed), and, once a sync has failed, the
// ranges of which nobody knows (suspect). Law: Linux tells of failed write-back once and forgets it; this does not.

import type { Backend } from '../../backends/backend.js'
import { DETACHED, DONE, EIO, errnoOf, isSyncFailure, type Outcome, SYNC_FAILED } from '../../backends/index.js'
import type { ExportState } from '../observe/counters.js'
import type { Change, DurabilityEvents, DurableRecord, KnownDurability, Standing } from './durable-record.js'
import { SEVERITY, SYNC_REASON } from './durable-record.js'
import type { Range, RangeSet } from './range-set.js'
import { SuspectRanges } from './suspect-ranges.js'
import { Unflushed } from './unflushed.js'

export class Durability {
  readonly #backend: () => Backend
  readonly #record: DurableRecord | undefined
  readonly #events: DurabilityEvents
  readonly #flush = () => this.#backend().flush()
  readonly #unflushed = new Unflushed()
  readonly #suspects = new SuspectRanges()
  #running: Promise<Outcome> | undefined
  #next: Promise<Outcome> | undefined
  readonly #now: Standing = { state: 'ok', failure: DONE, unrecorded: false, epoch: 0 }
  /** Settles when all that is known is stored: before an error that rests on it goes out. */
  stored: Promise<Outcome> = Promise.resolve(DONE)

  /** `backend` is asked for anew each time: fault injection may stand before it for a while. */
  constructor(backend: () => Backend, record: DurableRecord | undefined, events: DurabilityEvents) {
    this.#backend = backend
    this.#record = record
    this.#events = events
  }

  /** Bytes that may be lost: they read as EIO until they are written again. */
  get suspect(): RangeSet {
    return this.#suspects.now
  }

  get state(): ExportState {
    return this.#now.state
  }

  get failure(): Outcome {
    return this.#now.failure
  }

  get epoch(): number {
    return this.#now.epoch
  }

  get unrecorded(): boolean {
    return this.#now.unrecorded
  }

  #noted(kept: boolean): void {
    if (kept || this.#now.unrecorded) return
    this.#now.unrecorded = true
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
    return this.#unflushed.begin(offset, length, this.#now.epoch)
  }

  /** Storage has answered. A whole success clears what was suspect, unless a failure came in between. */
  finish(change: Change, succeeded: boolean, durable: boolean): void {
    this.#unflushed.finish(change)
    if (!succeeded || change.epoch !== this.#now.epoch) return
    if (this.suspect.count !== 0) this.rewritten(change.start, change.end - change.start)
    if (durable) this.#unflushed.durable(change)
  }

  /** A range was written whole by a change that began and ended in this turn. Clearing is exact. */
  rewritten(offset: number, length: number): void {
    this.#suspects.rewrite(offset, offset + length)
    this.#events.changed()
  }

  /**
   * A read has succeeded: where write-back gave pages up, storage or the kernel may just have filled them with what was
   * there before. Asked of reads from the cache as well, which holes get into without a word.
   */
  readBack(offset: number, length: number): void {
    if (!this.#unflushed.empty && this.#unflushed.intersects(offset, length)) this.#ask(true)
  }

  /** Asks whether write-back has failed since the last sync; once a second, and after reads that missed the cache. */
  probe(): void {
    if (!this.#unflushed.empty) this.#ask()
  }

  #ask(quick = false): void {
    const errno = errnoOf(this.#backend().probe(quick))
    if (errno !== 0) this.#failed(errno | SYNC_FAILED, 'write-back failed before any sync')
  }

  /** Everything that completed before the call is durable when the outcome is DONE. Concurrent callers share a sync. */
  flush(): Promise<Outcome> {
    if (this.#now.failure !== DONE) return Promise.resolve(this.#now.failure)
    // A next one that is about to begin covers this call too; two syncs at a time would lose each other's marks.
    if (this.#next !== undefined) return this.#next
    if (this.#running === undefined) return this.#sync(this.#flush)
    // The running sync began before this call: what completed in between needs the next one.
    this.#next = this.#alone(() => {
      this.#next = undefined
      return this.#now.failure === DONE ? this.#sync(this.#flush) : Promise.resolve(this.#now.failure)
    })
    return this.#next
  }

  /** Starts a sync in the very turn in which no other one is running. */
  async #alone(start: () => Promise<Outcome>): Promise<Outcome> {
    while (this.#running !== undefined) await this.#running
    return start()
  }

  /** `run` syncs; no other sync may be running. `pardons`: success ends what an earlier failure began. */
  #sync(run: () => Promise<Outcome>, pardons = false): Promise<Outcome> {
    const epoch = this.#now.epoch
    this.#unflushed.syncBegins()
    this.#suspects.syncBegins()
    this.#running = run().then((outcome) => {
      this.judge(outcome, epoch)
      this.#synced(outcome === DONE && this.#now.epoch === epoch, pardons)
      this.#running = undefined
      return this.#told(outcome, epoch)
    })
    return this.#running
  }

  /** The running sync has ended. One that has not succeeded covers nothing, whatever became of the export. */
  #synced(succeeded: boolean, pardons: boolean): void {
    this.#unflushed.syncEnds(succeeded, this.#backend().size)
    const lessToStore = this.#suspects.syncEnds(succeeded)
    if (!succeeded) return
    this.#noted(this.#record?.synced(this.#unflushed.ranges(this.#backend().size)) ?? true)
    if (pardons) {
      this.#now.failure = DONE
      this.#now.state = 'ok'
      this.#events.changed()
    }
    if (pardons || lessToStore) this.#store()
  }

  /**
   * Draws the consequences of a sync's outcome, or of a durable change's, and returns what the client is to hear. The
   * kernel tells an error once: a success is none when a sync beside it, or the probe, was told in its place since
   * `epoch`, though an operator may have resumed in between.
   */
  judge(outcome: Outcome, epoch = this.#now.epoch): Outcome {
    if (outcome === DONE) this.#ask()
    if (outcome === DETACHED) this.detach('the path of the image leads to another file, or to none')
    else if (isSyncFailure(outcome)) this.#failed(outcome, SYNC_REASON)
    return this.#told(outcome, epoch)
  }

  #told(outcome: Outcome, epoch: number): Outcome {
    if (outcome !== DONE && outcome !== DETACHED) return outcome
    return this.#now.failure === DONE && this.#now.epoch !== epoch ? EIO | SYNC_FAILED : this.#now.failure
  }

  /** All that was not synced is suspect now, whatever is in flight included. */
  #failed(outcome: Outcome, reason: string): void {
    this.#now.epoch += 1
    // The same failure waits at the other descriptor too: heard later, it would condemn what is written from here on.
    this.#backend().probe()
    for (const { start, end } of this.#unflushed.give(this.#backend().size)) this.suspect.add(start, end)
    this.#worsen('degraded', outcome, reason)
  }

  /** Bytes are gone from under our feet. */
  missing(start: number, end: number, reason: string): void {
    this.#now.epoch += 1
    this.suspect.add(start, end)
    this.#worsen('degraded', EIO | SYNC_FAILED, reason)
  }

  /** The image cannot be found under its name any more, so nothing that is written lasts. */
  detach(reason: string): void {
    this.#worsen('detached', EIO | DETACHED, reason)
  }

  #worsen(state: ExportState, failure: Outcome, reason: string): void {
    if (this.#now.failure === DONE) this.#now.failure = failure
    const worse = SEVERITY[state] > SEVERITY[this.#now.state]
    if (worse) this.#now.state = state
    this.#store()
    this.#events.changed()
    if (worse) this.#events.worsened(state, reason)
  }

  #store(): void {
    if (this.#record === undefined) return
    this.stored = this.#record.store(this.#now.state, errnoOf(this.#now.failure), this.#suspects.stored())
    this.stored.then((outcome) => this.#noted(outcome === DONE))
  }

  /** What an earlier server knew, before the first client comes. */
  restore(state: ExportState, errno: number, suspect: Iterable<Range>): void {
    for (const { start, end } of suspect) this.suspect.add(start, Math.min(end, this.#backend().size))
    if (state !== 'ok') this.#worsen(state, (errno || EIO) | SYNC_FAILED, 'it was so when it was last served')
    this.#events.changed()
  }

  /** For the process that takes over, while nothing is in flight and no sync runs. */
  get known(): KnownDurability {
    return { ...this.#now, ...this.#suspects.known, unflushed: this.#unflushed.pack() }
  }

  /** Goes on with what another process knew, whose record this is. */
  goOn({ suspect, rewritten, unflushed, ...now }: KnownDurability): void {
    Object.assign(this.#now, now)
    this.#suspects.goOn(suspect, rewritten)
    this.#unflushed.unpack(unflushed)
    this.#events.changed()
  }

  /** The operator's word that storage is good again, given at `epoch`: believed when a sync succeeds. Suspects stay. */
  async resume(epoch = this.#now.epoch): Promise<Outcome> {
    const sync = () => (this.#now.epoch === epoch ? this.#sync(this.#flush, true) : Promise.resolve(this.#now.failure))
    const outcome = await this.#alone(sync)
    return outcome === DONE ? this.stored : outcome
  }

  /** The operator's wish to unmount what lies under the image: it is synced and let go of. Returns that sync's outcome. */
  async release(): Promise<Outcome> {
    const outcome = await this.#alone(() => this.#sync(() => this.#backend().release()))
    await this.stored
    return outcome
  }

  /** The operator's word that the image was restored: nothing is suspect any more. */
  async forget(): Promise<Outcome> {
    this.#suspects.clear()
    // Nobody restored what a change that is still on its way may have lost to an earlier failure.
    for (const { start, end, epoch } of this.#unflushed.inFlight)
      if (epoch !== this.#now.epoch) this.suspect.add(start, end)
    this.#store()
    this.#events.changed()
    return this.stored
  }
}
