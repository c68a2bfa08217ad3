// A wrapper that makes any backend fail on command: errors, delays, transfers that stop half-way, operations that
// decline to finish now. Law: what it does not touch reaches the inner backend unchanged.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Backend, Condition, Extent, SparseRead, TakeBuffer } from './backend.js'
import type { IoData } from './native/io-vector.js'
import { DONE, type Outcome } from './outcome.js'

export type FaultableCommand = 'read' | 'write' | 'zero' | 'trim' | 'flush' | 'cache' | 'extents' | 'probe'

/** What is about to happen. */
export interface Operation {
  readonly command: FaultableCommand
  readonly offset: number
  readonly length: number
  readonly durable: boolean
  /** True for the twin that must finish in this turn. */
  readonly now: boolean
}

/** What happens instead. */
export interface Fault {
  /** The outcome to tell; DONE lets the operation through (after the delay). */
  readonly outcome: Outcome
  /** Bytes of a read or write that are really transferred before it fails. Default 0. */
  readonly transferred?: number
  /** Wait this long first; only the waiting twins can. */
  readonly delayMs?: number
  /** Wait for this promise first; only the waiting twins can. */
  readonly after?: Promise<unknown>
}

/** Asked before every operation; undefined lets it through. */
export type FaultPlan = (operation: Operation) => Fault | undefined

/** `inner`, failing where the plan says so. */
export function withFaults(inner: Backend, plan: FaultPlan): Backend {
  return new FaultyBackend(inner, plan)
}

class FaultyBackend implements Backend {
  readonly can: Backend['can']
  readonly identity: string | undefined
  readonly warnings: readonly string[]
  readonly space: Backend['space']
  readonly #inner: Backend
  readonly #plan: FaultPlan

  constructor(inner: Backend, plan: FaultPlan) {
    this.#inner = inner
    this.#plan = plan
    this.can = inner.can
    this.identity = inner.identity
    this.warnings = inner.warnings
    this.space = inner.space
  }

  get size(): number {
    return this.#inner.size
  }

  readNow(target: IoData, start: number, length: number, offset: number): Outcome {
    const fault = this.#plan({ command: 'read', offset, length, durable: false, now: true })
    if (fault === undefined || fault.outcome === DONE) return this.#inner.readNow(target, start, length, offset)
    if (fault.transferred !== undefined) this.#inner.readNow(target, start, fault.transferred, offset)
    return fault.outcome
  }

  writeNow(source: IoData, start: number, length: number, offset: number): Outcome {
    const fault = this.#plan({ command: 'write', offset, length, durable: false, now: true })
    if (fault === undefined || fault.outcome === DONE) return this.#inner.writeNow(source, start, length, offset)
    if (fault.transferred !== undefined) this.#inner.writeNow(source, start, fault.transferred, offset)
    return fault.outcome
  }

  async #later(
    command: FaultableCommand,
    offset: number,
    length: number,
    durable: boolean,
    run: (length: number) => Promise<Outcome>,
  ): Promise<Outcome> {
    const fault = this.#plan({ command, offset, length, durable, now: false })
    if (fault?.delayMs !== undefined) await sleep(fault.delayMs)
    if (fault?.after !== undefined) await fault.after
    if (fault === undefined || fault.outcome === DONE) return run(length)
    if (fault.transferred !== undefined && fault.transferred > 0) await run(fault.transferred)
    return fault.outcome
  }

  read(target: Uint8Array, start: number, length: number, offset: number): Promise<Outcome> {
    return this.#later('read', offset, length, false, (bytes) => this.#inner.read(target, start, bytes, offset))
  }

  async readSparse(headroom: number, length: number, offset: number, take?: TakeBuffer): Promise<SparseRead | Outcome> {
    let read: SparseRead | Outcome = DONE
    const outcome = await this.#later('read', offset, length, false, async () => {
      read = await this.#inner.readSparse(headroom, length, offset, take)
      return typeof read === 'number' ? read : DONE
    })
    return outcome === DONE ? read : outcome
  }

  write(source: Uint8Array, start: number, length: number, offset: number, durable: boolean): Promise<Outcome> {
    const run = (bytes: number) => this.#inner.write(source, start, bytes, offset, durable)
    return this.#later('write', offset, length, durable, run)
  }

  zero(offset: number, length: number, mode: number, durable: boolean): Promise<Outcome> {
    return this.#later('zero', offset, length, durable, (bytes) => this.#inner.zero(offset, bytes, mode, durable))
  }

  trim(offset: number, length: number, durable: boolean): Promise<Outcome> {
    return this.#later('trim', offset, length, durable, (bytes) => this.#inner.trim(offset, bytes, durable))
  }

  flush(): Promise<Outcome> {
    return this.#later('flush', 0, 0, true, () => this.#inner.flush())
  }

  settle(): Promise<Outcome> {
    return this.#later('flush', 0, 0, true, () => this.#inner.settle())
  }

  probe(quick?: boolean): Outcome {
    const fault = this.#plan({ command: 'probe', offset: 0, length: 0, durable: false, now: true })
    return fault?.outcome ?? this.#inner.probe(quick)
  }

  cache(offset: number, length: number): Promise<Outcome> {
    return this.#later('cache', offset, length, false, (bytes) => this.#inner.cache(offset, bytes))
  }

  async extents(offset: number, length: number, limit: number): Promise<readonly Extent[] | Outcome> {
    const fault = this.#plan({ command: 'extents', offset, length, durable: false, now: false })
    return fault === undefined || fault.outcome === DONE ? this.#inner.extents(offset, length, limit) : fault.outcome
  }

  look(): Condition {
    return this.#inner.look()
  }

  measure(): number {
    return this.#inner.measure()
  }

  resize(size: number): Promise<Outcome> {
    return this.#inner.resize(size)
  }

  get released(): boolean {
    return this.#inner.released
  }

  release(): Promise<Outcome> {
    return this.#later('flush', 0, 0, true, () => this.#inner.release())
  }

  reopen(): Promise<Outcome> {
    return this.#inner.reopen()
  }

  close(): Promise<void> {
    return this.#inner.close()
  }
}
