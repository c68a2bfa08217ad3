// A client that works through whatever happens to its server, and believes nothing: what it wrote it reads back. Law: a
// connection that closes, an error, a wrong byte or a missing answer is a failure, told when the client is stopped.
import assert from 'node:assert/strict'
import type { Client } from 'nbd-protocol'
import { KIB, stamped } from './faults.js'
import { type Random, randomFrom } from './random.js'

const SLOT = 64 * KIB
const CHANGES_PER_FLUSH = 16

export interface Worked {
  readonly requests: number
  /** The longest that a request took. */
  readonly worstMs: number
}

export interface SteadyOptions {
  /** Bytes of the disk from which on it is this client's alone. */
  readonly start: number
  readonly slots: number
  /** Requests at once. */
  readonly depth: number
  readonly seed?: number
}

export class SteadyClient {
  readonly #client: Client
  readonly #options: SteadyOptions
  readonly #random: Random
  /** By slot: what was written there last. */
  readonly #rounds: number[]
  readonly #watchers = new Set<() => void>()
  readonly #lanes: Promise<unknown>
  #round = 0
  #requests = 0
  #worstMs = 0
  #stopped = false

  /** Writes, reads back and flushes until it is stopped. */
  constructor(client: Client, options: SteadyOptions) {
    this.#client = client
    this.#options = options
    this.#random = randomFrom(options.seed ?? 1)
    this.#rounds = Array(options.slots).fill(0)
    this.#lanes = Promise.all(Array.from({ length: options.depth }, (_, number) => this.#lane(number)))
    this.#lanes.catch(() => {})
  }

  /** Requests that were answered so far. */
  get requests(): number {
    return this.#requests
  }

  /** Each lane has slots of its own, so that what it reads is what it wrote last. */
  async #lane(number: number): Promise<void> {
    const { start, slots, depth } = this.#options
    for (let change = 1; !this.#stopped; change++) {
      const slot = number + depth * this.#random.below(Math.floor(slots / depth))
      const offset = start + slot * SLOT
      this.#round += 1
      const round = this.#round
      await this.#timed(this.#client.write(offset, stamped(offset, SLOT, round)))
      this.#rounds[slot] = round
      await this.#check(slot)
      if (change % CHANGES_PER_FLUSH === 0) await this.#timed(this.#client.flush())
    }
  }

  async #timed<Answer>(request: Promise<Answer>): Promise<Answer> {
    const began = performance.now()
    const answer = await request
    this.#worstMs = Math.max(this.#worstMs, performance.now() - began)
    this.#requests += 1
    for (const watcher of this.#watchers) watcher()
    return answer
  }

  async #check(slot: number): Promise<void> {
    const offset = this.#options.start + slot * SLOT
    const bytes = await this.#timed(this.#client.read(offset, SLOT))
    const round = this.#rounds[slot] ?? 0
    const expected = round === 0 ? Buffer.alloc(SLOT) : stamped(offset, SLOT, round)
    assert.ok(expected.equals(bytes), `the slot at ${offset} does not hold round ${round}`)
  }

  /** Resolves when so many more were answered. */
  more(requests: number): Promise<unknown> {
    const until = this.#requests + requests
    const enough = new Promise<void>((resolve) => {
      const watcher = () => {
        if (this.#requests < until) return
        this.#watchers.delete(watcher)
        resolve()
      }
      this.#watchers.add(watcher)
    })
    return Promise.race([enough, this.#lanes])
  }

  /** The last answers, and everything read back once more. */
  async stop(): Promise<Worked> {
    this.#stopped = true
    await this.#lanes
    for (let slot = 0; slot < this.#options.slots; slot++) await this.#check(slot)
    return { requests: this.#requests, worstMs: this.#worstMs }
  }
}
