// A part of the disk under load from one client, whose server may be killed at any moment, and what may stand there then.
// Law: what was acknowledged is known page by page; what was on its way may have landed, page by page.
import assert from 'node:assert/strict'
import { type Client, NBD_CMD_FLAG_FUA, RequestError } from 'nbd-protocol'
import { KIB, stamped } from './faults.js'
import type { Random } from './random.js'

const PAGE = 4 * KIB
const SLOT = 64 * KIB
const CHANGES_PER_FLUSH = 8
/** What a never-written, zeroed or trimmed page holds, as a round. */
const ZEROES = 0

/** What a client may be waiting for when its server is killed. */
export type Waiting = 'write' | 'fua' | 'zero' | 'trim' | 'flush'

/** Of eight changes, on the average, how many are which. */
const CHANGES: readonly Exclude<Waiting, 'flush'>[] = ['write', 'write', 'write', 'write', 'fua', 'fua', 'zero', 'trim']

export class Region {
  readonly #start: number
  readonly #slots: number
  readonly #random: Random
  /** By slot: the rounds of which each page may hold one. After an acknowledgement that is one round. */
  readonly #rounds: (readonly number[])[]
  readonly #outstanding = new Map<Waiting, number>()
  readonly #watchers = new Set<{ readonly what: Waiting; readonly tell: () => void }>()
  #round = 0
  readonly acknowledged = new Map<Waiting, number>()

  constructor(start: number, slots: number, random: Random) {
    this.#start = start
    this.#slots = slots
    this.#random = random
    this.#rounds = Array.from({ length: slots }, () => [ZEROES])
  }

  /** Bytes of the disk that end this region. */
  get end(): number {
    return this.#start + this.#slots * SLOT
  }

  /** Whether an answer to one of these is due. */
  awaits(what: Waiting): boolean {
    return (this.#outstanding.get(what) ?? 0) > 0
  }

  /** Resolves when the next request of this kind has been sent. */
  sent(what: Waiting): Promise<void> {
    return new Promise((resolve) => this.#watchers.add({ what, tell: resolve }))
  }

  /** Changes slot after slot, and syncs now and then, until the connection is lost. */
  async load(connect: () => Promise<Client>): Promise<void> {
    await untilLost(async () => {
      const client = await connect()
      for (;;) {
        await Promise.all(this.#someSlots().map((slot) => this.#change(client, slot)))
        await this.#send('flush', () => client.flush())
      }
    })
  }

  /** Trims every slot. */
  async empty(client: Client): Promise<void> {
    for (let slot = 0; slot < this.#slots; slot++) await this.#trim(client, slot)
  }

  /** Writes every slot once, all at the same time, and is done when each was answered or the connection is lost. */
  async fill(client: Client): Promise<void> {
    const slots = Array.from({ length: this.#slots }, (_, slot) => slot)
    await untilLost(() => Promise.all(slots.map((slot) => this.#write(client, slot, 'write'))))
  }

  #someSlots(): number[] {
    return [...new Set(Array.from({ length: CHANGES_PER_FLUSH }, () => this.#random.below(this.#slots)))]
  }

  #change(client: Client, slot: number): Promise<void> {
    const offset = this.#start + slot * SLOT
    const what = CHANGES[this.#random.below(CHANGES.length)] ?? 'write'
    if (what === 'zero') return this.#settle(what, slot, ZEROES, () => client.writeZeroes(offset, SLOT))
    if (what === 'trim') return this.#trim(client, slot)
    return this.#write(client, slot, what)
  }

  #trim(client: Client, slot: number): Promise<void> {
    return this.#settle('trim', slot, ZEROES, () => client.trim(this.#start + slot * SLOT, SLOT))
  }

  #write(client: Client, slot: number, what: 'write' | 'fua'): Promise<void> {
    this.#round += 1
    const offset = this.#start + slot * SLOT
    const bytes = stamped(offset, SLOT, this.#round)
    return this.#settle(what, slot, this.#round, () =>
      client.write(offset, bytes, what === 'fua' ? NBD_CMD_FLAG_FUA : 0),
    )
  }

  async #settle(what: Waiting, slot: number, round: number, request: () => Promise<void>): Promise<void> {
    this.#rounds[slot] = [...(this.#rounds[slot] ?? []), round]
    await this.#send(what, request)
    this.#rounds[slot] = [round]
  }

  async #send(what: Waiting, request: () => Promise<void>): Promise<void> {
    this.#outstanding.set(what, (this.#outstanding.get(what) ?? 0) + 1)
    try {
      const answer = request()
      this.#tellWatchers(what)
      await answer
      this.acknowledged.set(what, (this.acknowledged.get(what) ?? 0) + 1)
    } finally {
      this.#outstanding.set(what, (this.#outstanding.get(what) ?? 0) - 1)
    }
  }

  #tellWatchers(what: Waiting): void {
    for (const watcher of this.#watchers) {
      if (watcher.what !== what) continue
      this.#watchers.delete(watcher)
      watcher.tell()
    }
  }

  async check(client: Client): Promise<void> {
    for (const [slot, rounds] of this.#rounds.entries()) {
      const offset = this.#start + slot * SLOT
      const bytes = await client.read(offset, SLOT)
      for (let at = 0; at < SLOT; at += PAGE) {
        const page = bytes.subarray(at, at + PAGE)
        const known = rounds.some((round) => content(offset + at, round).compare(page) === 0)
        assert.ok(known, `the page at ${offset + at} holds none of the rounds ${rounds}`)
      }
    }
  }
}

/** A request that is answered with an error is one too many; a connection that is lost is what we came for. */
async function untilLost(work: () => Promise<unknown>): Promise<void> {
  try {
    await work()
  } catch (error) {
    if (error instanceof RequestError) throw error
  }
}

function content(offset: number, round: number): Buffer {
  return round === ZEROES ? Buffer.alloc(PAGE) : stamped(offset, PAGE, round)
}
