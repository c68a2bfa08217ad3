// Room for what an export writes: whether it may take space of its file system, or would reach into the reserve. Law:
// what takes no space is never refused, and while there is plenty nobody looks.
import { type BackingSpace, type Outcome, RESERVED } from '../../backends/index.js'
import { ALLOCATED_AT, type Counters, RESERVE_AT } from '../observe/counters.js'
import type { Backing, Tenant } from './backing.js'
import { UNKNOWN_BACKING } from './backings.js'
import type { SpaceHold } from './space-hold.js'

/** Looks before a refusal. The first may have been under way already when the request came; the second was not. */
const LOOKS_MAX = 2

export interface RoomOptions {
  readonly name: string
  readonly size: number
  readonly readOnly: boolean
  readonly space: BackingSpace | undefined
  /** Bytes that are to stay free; 0 for none. */
  readonly reserve: number
  readonly counters: Counters
  readonly hold: SpaceHold
}

export class Room implements Tenant {
  readonly name: string
  /** Bytes of the export. */
  size: number
  readonly #options: RoomOptions
  #reserve: number
  /** What has to be left after a write. */
  #floor = Number.NEGATIVE_INFINITY
  #backing: Backing = UNKNOWN_BACKING

  constructor(options: RoomOptions) {
    this.#options = options
    this.name = options.name
    this.size = options.size
    this.#reserve = 0
    this.reserve = options.reserve
  }

  get reserve(): number {
    return this.#reserve
  }

  set reserve(bytes: number) {
    this.#reserve = bytes
    this.#floor = bytes > 0 ? bytes : Number.NEGATIVE_INFINITY
    this.#options.counters[RESERVE_AT] = bytes
  }

  /** Takes its place among those who share the file system; resolves when the host was asked. */
  async enter(backing: Backing | undefined): Promise<void> {
    if (backing === undefined || this.#options.space === undefined) return
    this.#backing = backing
    await backing.join(this)
  }

  leave(): void {
    this.#backing.leave(this)
  }

  /** Whether a reserve can be kept: the file system is known, and knows what it has. */
  get canReserve(): boolean {
    return Number.isFinite(this.#backing.free)
  }

  /** True while so many bytes may be taken without a look; for the hot path. */
  has(bytes: number): boolean {
    return this.#backing.left - bytes >= this.#floor + this.#backing.margin
  }

  /** Bytes were written in this turn. */
  took(bytes: number): void {
    this.#backing.took(bytes)
  }

  /** Makes a change that may take space, or answers RESERVED without having made it. */
  async within(offset: number, length: number, change: () => Promise<Outcome>): Promise<Outcome> {
    const backing = this.#backing
    const plenty = this.has(length) && backing.begin(length, this.#floor)
    const bytes = plenty ? length : await this.#begun(offset, length)
    if (bytes === undefined) return RESERVED
    try {
      return await change()
    } finally {
      backing.end(bytes)
    }
  }

  /** Bytes that the change takes, which are begun; undefined when they would have to come from the reserve. */
  async #begun(offset: number, length: number): Promise<number | undefined> {
    const bytes = (await this.#options.space?.allocates(offset, length)) ?? 0
    for (let looks = 0; bytes > 0 && !this.#backing.begin(bytes, this.#floor); looks++) {
      if (looks === LOOKS_MAX) return undefined
      await this.#backing.look()
    }
    return bytes
  }

  heldChanged(): void {
    this.#backing.heldChanged()
  }

  // Tenant

  get space(): BackingSpace {
    if (this.#options.space === undefined) throw new TypeError(`export ${this.name} takes space of no file system`)
    return this.#options.space
  }

  get mayTake(): number {
    const { readOnly, counters } = this.#options
    return readOnly ? 0 : Math.max(0, this.size - (counters[ALLOCATED_AT] ?? 0))
  }

  get held(): number {
    return this.#options.hold.held
  }

  readonly allocated = (bytes: number): void => {
    this.#options.counters[ALLOCATED_AT] = bytes
  }

  release(): void {
    this.#options.hold.release()
  }
}
