// One export: a backend under a name, with what all its connections share. Law: its state only ever gets worse by
// itself; what makes it better is an operator's word.

import { commandName } from 'nbd-protocol'
import {
  type Backend,
  DONE,
  errnoName,
  errnoOf,
  type InjectionRule,
  injectionPlan,
  type Outcome,
  withFaults,
} from '../../backends/index.js'
import {
  type Counters,
  count,
  DROPPED_AT,
  EXPORT_STATES,
  type ExportState,
  errorAt,
  exportCounters,
  HELD_AT,
  HELD_SINCE_AT,
  INJECTED_AT,
  INJECTING_AT,
  LEDGER_LOST_AT,
  OLDEST_SINCE_AT,
  RECORD_FAILED_AT,
  REFUSED_BY_RESERVE_AT,
  RELEASED_SINCE_AT,
  STATE_AT,
  STATE_ERRNO_AT,
  STATE_SINCE_AT,
  SUSPECT_BYTES_AT,
} from '../observe/counters.js'
import type { Ledger, LedgerEntry } from '../state/ledger.js'
import { Durability } from './durability.js'
import type { ExportOptions, ExportPolicy, ExportWitness, Failure } from './export-options.js'
import { ImageLength } from './image-length.js'
import { Recess } from './recess.js'
import { Room } from './room.js'
import { SpaceHold } from './space-hold.js'
import { StorageGate } from './storage-gate.js'
import { transmissionFlagsOf } from './transmission-flags.js'
import { WaitingRequests } from './waiting.js'
import { WriteOrder } from './write-order.js'

/** A request that storage keeps for longer than this is told of, once and then in sums. */
const HUNG_MS = 10_000

export class Export {
  readonly name: string
  readonly description: string
  /** Where the bytes are. */
  readonly storage: Backend
  /** The same, with faults in front of it while some are injected. */
  backend: Backend
  readonly readOnly: boolean
  readonly counters: Counters = exportCounters()
  readonly order = new WriteOrder()
  readonly gate = new StorageGate((wanted) => this.recess.waitIfActive(wanted))
  readonly waiting = new WaitingRequests()
  readonly durability: Durability
  readonly space: SpaceHold
  readonly recess: Recess
  readonly room: Room
  /** In the place of the server's, for connections that come. */
  limits: ExportPolicy['limits'] = {}
  /** `--suspect-reads allow`: bytes that may be lost are read as if they were not. */
  #readsSuspects: boolean
  readonly #witness: ExportWitness
  readonly #ledger: Ledger | undefined
  readonly length: ImageLength
  /** Faults that are injected, and how often still. */
  rules = new Map<InjectionRule, number>()

  constructor(options: ExportOptions) {
    const { name, backend, record } = options
    this.name = name
    this.description = options.description ?? ''
    this.backend = backend
    this.storage = backend
    this.readOnly = !backend.can.write
    this.#readsSuspects = options.readsSuspects ?? false
    this.#witness = options.witness
    this.#ledger = options.ledger
    this.space = new SpaceHold(options.onSpace ?? { kind: 'report' }, {
      changed: (held, since) => {
        this.counters[HELD_AT] = held
        this.counters[HELD_SINCE_AT] = since ?? 0
        this.room.heldChanged()
      },
    })
    const { size } = backend
    const { readOnly, counters, space: hold } = this
    this.room = new Room({ name, size, readOnly, space: backend.space, reserve: options.reserve ?? 0, counters, hold })
    this.durability = new Durability(() => this.backend, record, {
      changed: () => this.#publish(),
      worsened: (state, reason) => this.#witness.stateChanged(this.name, state, reason),
    })
    this.length = new ImageLength({ storage: backend, durability: this.durability, record, room: this.room })
    this.recess = new Recess(backend, this.durability, (since) => {
      this.counters[RELEASED_SINCE_AT] = since ?? 0
    })
  }

  /** Fails requests by these rules from now on, until it is called with none. */
  inject(rules: readonly InjectionRule[]): void {
    this.rules = new Map(rules.map((rule) => [rule, rule.countMax]))
    const plan = injectionPlan(rules, (rule) => {
      count(this.counters, INJECTED_AT)
      this.rules.set(rule, (this.rules.get(rule) ?? 0) - 1)
    })
    this.backend = rules.length === 0 ? this.storage : withFaults(this.storage, plan)
    this.counters[INJECTING_AT] = rules.length
  }

  /** What the operator has decided; the words that are left out stay as they are. */
  set({ onSpace, reserve, readsSuspects, limits }: Partial<ExportPolicy>): void {
    if (limits !== undefined) this.limits = limits
    if (reserve !== undefined) this.room.reserve = reserve
    if (readsSuspects !== undefined) this.#readsSuspects = readsSuspects
    if (onSpace !== undefined) this.space.policy = onSpace
    // A smaller reserve may be all that held requests wait for.
    if (reserve !== undefined) this.space.release()
  }

  get policy(): ExportPolicy {
    return {
      onSpace: this.space.policy,
      reserve: this.room.reserve,
      readsSuspects: this.#readsSuspects,
      limits: this.limits,
    }
  }

  /** Called once a second: asks write-back whether it failed, and shows how long storage has kept a request. */
  beat(): void {
    this.durability.probe()
    const { oldest } = this.waiting
    this.counters[OLDEST_SINCE_AT] = oldest?.since ?? 0
    // What is held waits for space, and in a recess for an operator, which is told elsewhere.
    const hangs =
      this.space.held === 0 && !this.recess.active && oldest !== undefined && Date.now() - oldest.since > HUNG_MS
    if (hangs) this.#witness.requestHangs(this.name, oldest)
  }

  /** The image was synced when all was said and done. */
  wasSynced = false
  /** Another process takes it over: what would wait is moved, and nothing is begun. */
  frozen = false

  #publish(): void {
    this.counters[SUSPECT_BYTES_AT] = this.durability.suspect.bytes
    const state = EXPORT_STATES.indexOf(this.durability.state)
    if (state !== this.counters[STATE_AT]) this.counters[STATE_SINCE_AT] = state === 0 ? 0 : Date.now()
    this.counters[STATE_AT] = state
    this.counters[STATE_ERRNO_AT] = errnoOf(this.durability.failure)
    this.counters[RECORD_FAILED_AT] = this.durability.unrecorded ? 1 : 0
  }

  get state(): ExportState {
    return this.durability.state
  }

  /** Transmission flags ("Transmission flags") of every connection to this export. */
  get transmissionFlags(): number {
    return transmissionFlagsOf(this.backend.can)
  }

  /** A look at the image under our feet, before each batch that writes and before each FLUSH. */
  inspect(): void {
    this.length.inspect()
  }

  get size(): number {
    return this.storage.size
  }

  /** A write ended at `end`. */
  reached(end: number): void {
    this.length.reached(end)
  }

  /** The first byte of [offset, offset + length) that a READ may not be given, if any. */
  firstSuspect(offset: number, length: number): number | undefined {
    const { suspect } = this.durability
    if (suspect.count === 0 || this.#readsSuspects) return undefined
    return suspect.firstWithin(offset, offset + length)
  }

  /** Everything that completed before the call is durable when the outcome is DONE; an error is stored before it is told. */
  async flush(): Promise<Outcome> {
    this.inspect()
    const synced = await this.durability.flush()
    // On a network the sync was what asked for the image as it is: what it found counts for this answer.
    this.inspect()
    const outcome = synced === DONE ? this.durability.failure : synced
    if (outcome !== DONE) await this.durability.stored
    return outcome
  }

  /** The server leaves: what waits for space, or for an operator, is told so. */
  shutDown(): void {
    this.space.shutDown()
    this.recess.shutDown()
  }

  /** Counts a failed request and tells those who want to know. */
  failed(failure: Failure): void {
    // The operator's own policy is no failure of storage, and whoever watches for those must not be woken by it.
    const { byReserve = false } = failure
    count(this.counters, byReserve ? REFUSED_BY_RESERVE_AT : errorAt(failure.command, failure.errno))
    this.#witness.requestFailed(this.name, failure)
    this.#ledger?.note(
      failure.client,
      commandName(failure.command),
      byReserve ? 'reserve' : errnoName(failure.errno),
      failure.offset,
      failure.length,
    )
  }

  /** The final sync failed: what may be lost by it goes to the ledger; of a detached image, all. */
  notSynced(errno: number): void {
    const { state, suspect } = this.durability
    const lost = state === 'detached' ? [{ start: 0, end: this.size }] : suspect
    for (const { start, end } of lost) this.#ledger?.note('candor', 'final_sync', errnoName(errno), start, end - start)
  }

  /** The latest failures in the ledger, oldest first; none where none is kept. */
  get failures(): Iterable<LedgerEntry> {
    return this.#ledger?.recent() ?? []
  }

  /** Lines of the ledger that could not be written. */
  ledgerLost(entries: number): void {
    count(this.counters, LEDGER_LOST_AT, entries)
    this.#witness.ledgerFailed(this.name, entries)
  }

  /** Notes a request that was dropped with its connection. */
  dropped(failure: Failure): void {
    count(this.counters, DROPPED_AT)
    this.#witness.requestsDropped(this.name, failure)
    this.#ledger?.note(failure.client, commandName(failure.command), 'dropped', failure.offset, failure.length)
  }
}
