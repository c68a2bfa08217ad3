// A server that is killed again and again under load. Law: the next one starts, and what was acknowledged reads back:
// the page cache outlives the process.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { type Client, RequestError } from 'nbd-protocol'
import { type RunningCandor, temporaryFolder } from '../support/candor.js'
import { attach, exportState, KIB, lastFirst, logged, type Scope, serve, stamped } from '../support/faults.js'
import { mountLoopDisk, sparseFile } from '../support/loop-disk.js'
import { seededRandom } from '../support/random.js'
import { needsRoot } from '../support/requirements.js'
import { suspectBytes } from '../support/thin-stack.js'

const NAME = 'disk.img'
const KILLS = 20
const LOAD_MS_MAX = 120
const PAGE = 4 * KIB
const SLOT = 64 * KIB
const SLOTS = 48
const WRITES_PER_FLUSH = 8

/** A part of the disk that one client writes to, and what may stand there. */
class Region {
  readonly #start: number
  readonly #below: (limit: number) => number
  /** By slot: the rounds of which each page may hold one. After an acknowledgement that is one round. */
  readonly #rounds: (readonly number[])[] = Array.from({ length: SLOTS }, () => [0])
  #round = 0
  writes = 0
  flushes = 0

  constructor(start: number, below: (limit: number) => number) {
    this.#start = start
    this.#below = below
  }

  /** Writes until the connection is lost. */
  async load(client: Client): Promise<void> {
    try {
      for (;;) {
        await Promise.all(this.#someSlots().map((slot) => this.#write(client, slot)))
        await client.flush()
        this.flushes += 1
      }
    } catch (error) {
      // A request that is answered with an error is one too many; a connection that is lost is what we came for.
      if (error instanceof RequestError) throw error
    }
  }

  #someSlots(): number[] {
    return [...new Set(Array.from({ length: WRITES_PER_FLUSH }, () => this.#below(SLOTS)))]
  }

  async #write(client: Client, slot: number): Promise<void> {
    this.#round += 1
    const round = this.#round
    const offset = this.#start + slot * SLOT
    this.#rounds[slot] = [...(this.#rounds[slot] ?? []), round]
    await client.write(offset, stamped(offset, SLOT, round))
    this.#rounds[slot] = [round]
    this.writes += 1
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

/** Round 0 was never written. */
function content(offset: number, round: number): Buffer {
  return round === 0 ? Buffer.alloc(PAGE) : stamped(offset, PAGE, round)
}

async function assertSound(candor: RunningCandor, killedBefore: boolean): Promise<void> {
  assert.equal(logged(candor, /unclean end/).length, killedBefore ? 1 : 0)
  assert.deepEqual(logged(candor, /damaged|suspect/), [])
  assert.equal((await candor.metrics()).get(`candor_export_unclean_end{export="${NAME}"}`), killedBefore ? 1 : 0)
  assert.equal(await suspectBytes(candor, NAME), 0)
  assert.equal(await exportState(candor, NAME), 'ok')
}

test(`killed ${KILLS} times under load from two clients, the server starts each time, and what was acknowledged reads back`, {
  skip: needsRoot('mkfs.ext4', 'losetup', 'setpriv'),
}, async (t) => {
  const scope = lastFirst(t)
  const { below } = seededRandom(t)
  const start = starter(scope)
  const regions = [new Region(0, below), new Region(SLOTS * SLOT, below)]
  for (let kills = 0; kills < KILLS; kills++) {
    const candor = await start()
    await assertSound(candor, kills > 0)
    const clients = await Promise.all(regions.map(() => attach(candor)))
    for (const [index, client] of clients.entries()) await regions[index]?.check(client)
    const loads = Promise.all(clients.map((client, index) => regions[index]?.load(client)))
    await pause(below(LOAD_MS_MAX)).then(() => candor.kill('SIGKILL'))
    await Promise.all([loads, candor.ended])
  }
  const last = await start()
  for (const region of regions) await region.check(await attach(last))
  assert.equal((await last.stop()).code, 0)
  tell(t, regions)
})

function starter(scope: Scope): () => Promise<RunningCandor> {
  const { folder } = mountLoopDisk(scope, { type: 'ext4', sizeMiB: 64 })
  const image = sparseFile(join(folder, NAME), 2 * SLOTS * SLOT)
  const state = temporaryFolder()
  scope.after(() => state.remove())
  return () => serve(scope, [image, '--state-dir', state.path])
}

function tell(t: TestContext, regions: readonly Region[]): void {
  const sum = (of: (region: Region) => number) => regions.reduce((total, region) => total + of(region), 0)
  const writes = sum((region) => region.writes)
  assert.ok(writes > KILLS, `only ${writes} writes were acknowledged`)
  t.diagnostic(`${writes} writes of ${SLOT / KIB} KiB and ${sum(({ flushes }) => flushes)} FLUSHes were acknowledged`)
}
