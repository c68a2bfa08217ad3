// One export: a backend under a name, with what all its connections share. Law: its state only ever gets worse by
// itself; what makes it better is an operator's word.

import {
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_SEND_CACHE,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
} from 'nbd-protocol'
import {
  type Backend,
  DETACHED,
  DONE,
  EIO,
  errnoOf,
  isSyncFailure,
  type Outcome,
  SYNC_FAILED,
} from '../../backends/index.js'
import {
  type Counters,
  count,
  DROPPED_AT,
  EXPORT_STATES,
  type ExportState,
  errorAt,
  exportCounters,
  STATE_AT,
  SUSPECT_BYTES_AT,
} from '../observe/counters.js'
import { Access } from './access.js'
import { RangeSet } from './range-set.js'
import { WriteOrder } from './write-order.js'

/** Told of everything that went wrong on an export; never blocks. */
export interface ExportWitness {
  /** A request failed. `errno` is the host's, or the spec's value where candor itself refused. */
  requestFailed(name: string, command: number, errno: number, offset: number, length: number): void
  /** The export's state changed for the worse; `reason` is a sentence. */
  stateChanged(name: string, state: ExportState, reason: string): void
  /** Requests that a lost connection left behind were dropped before the kernel had them. */
  requestsDropped(name: string, command: number, offset: number, length: number): void
}

export interface ExportOptions {
  readonly name: string
  /** For people; every client that may see the export reads it. */
  readonly description?: string
  readonly backend: Backend
  /** Default: everybody. */
  readonly access?: Access
  readonly witness: ExportWitness
}

export class Export {
  readonly name: string
  readonly description: string
  readonly backend: Backend
  readonly size: number
  readonly readOnly: boolean
  readonly access: Access
  readonly counters: Counters = exportCounters()
  readonly order = new WriteOrder()
  /** Bytes that may be lost: they read as EIO until they are written again. */
  readonly suspect = new RangeSet()
  readonly #witness: ExportWitness
  #state: ExportState = 'ok'
  /** What FLUSH and FUA answer while the state is not ok. */
  #failure: Outcome = DONE
  /** Bytes of the image that were there at the last look. */
  #present: number
  /** Grows whenever bytes become suspect: a write that saw another epoch at its start says nothing about them. */
  epoch = 0

  constructor({ name, description = '', backend, witness, access = new Access() }: ExportOptions) {
    this.name = name
    this.description = description
    this.access = access
    this.backend = backend
    this.size = backend.size
    this.readOnly = !backend.can.write
    this.#witness = witness
    this.#present = backend.size
  }

  get state(): ExportState {
    return this.#state
  }

  /** DONE while syncs can be believed; else the outcome that FLUSH and FUA have to tell. */
  get syncFailure(): Outcome {
    return this.#failure
  }

  /** Transmission flags ("Transmission flags") of every connection to this export. */
  get transmissionFlags(): number {
    const always = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_CAN_MULTI_CONN
    if (this.readOnly) return always | NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_CACHE
    const zeroes = NBD_FLAG_SEND_WRITE_ZEROES | (this.backend.can.fastZero ? NBD_FLAG_SEND_FAST_ZERO : 0)
    return always | NBD_FLAG_SEND_CACHE | NBD_FLAG_SEND_TRIM | zeroes
  }

  /**
   * A look at the image under our feet, before each batch that writes and before each FLUSH. A file that became
   * shorter lost durable data: without this the next write past its end would bring it back with zeroes.
   */
  inspect(): void {
    const { present, unlinked } = this.backend.look()
    if (present < this.#present) this.#shrunk(present)
    this.#present = present
    if (unlinked) this.detach('the image was removed: its last link is gone')
  }

  #shrunk(present: number): void {
    this.epoch += 1
    this.suspect.add(present, this.#present)
    this.#suspectChanged()
    const lost = this.#present - present
    this.degrade(EIO | SYNC_FAILED, `the image was truncated to ${present} bytes under our feet: ${lost} are missing`)
  }

  /** A write ended at `end`, and may have made a truncated file longer: what is cut off from here on is lost anew. */
  reached(end: number): void {
    if (end > this.#present) this.#present = end
  }

  /** A range was rewritten whole, by a write that began after the failure was known. */
  rewritten(offset: number, length: number): void {
    this.suspect.remove(offset, offset + length)
    this.#suspectChanged()
  }

  #suspectChanged(): void {
    this.counters[SUSPECT_BYTES_AT] = this.suspect.bytes
  }

  /** After a failed sync: no FLUSH and no FUA is believed any more. */
  degrade(failure: Outcome, reason: string): void {
    if (this.#failure === DONE) this.#failure = failure
    this.#worsen('degraded', reason)
  }

  /** The image cannot be found under its name any more, so nothing that is written lasts. */
  detach(reason: string): void {
    if (this.#failure === DONE) this.#failure = EIO | DETACHED
    this.#worsen('detached', reason)
  }

  #worsen(state: ExportState, reason: string): void {
    if (EXPORT_STATES.indexOf(state) <= EXPORT_STATES.indexOf(this.#state)) return
    this.#state = state
    this.counters[STATE_AT] = EXPORT_STATES.indexOf(state)
    this.#witness.stateChanged(this.name, state, reason)
  }

  /** Everything that completed before the call is durable when the outcome is DONE. */
  async flush(): Promise<Outcome> {
    this.inspect()
    if (this.#failure !== DONE) return this.#failure
    return this.judgeSync(await this.backend.flush())
  }

  /** Draws the consequences of an outcome that a sync had part in, and returns what the client is to hear. */
  judgeSync(outcome: Outcome): Outcome {
    if (outcome === DETACHED) this.detach('the path of the image leads to another file, or to none')
    else if (isSyncFailure(outcome)) this.degrade(outcome, 'a sync failed: writes since the last good one may be lost')
    return outcome === DETACHED ? this.#failure : outcome
  }

  /** Counts a failed request and tells the witness. */
  failed(command: number, outcome: Outcome, offset: number, length: number): void {
    const errno = errnoOf(outcome)
    count(this.counters, errorAt(command, errno))
    this.#witness.requestFailed(this.name, command, errno, offset, length)
  }

  /** Notes a request that was dropped with its connection. */
  dropped(command: number, offset: number, length: number): void {
    count(this.counters, DROPPED_AT)
    this.#witness.requestsDropped(this.name, command, offset, length)
  }
}
