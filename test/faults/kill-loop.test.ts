// A server that is killed again and again: under load, in syncs and FUA writes, while writes are held, while it starts, with
// a successor at the door. Law: the next one starts, and what was acknowledged reads back: the page cache outlives it.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { unlinkSync, watch } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { type RunningCandor, temporaryFolder } from '../support/candor.js'
import { attach, exportState, lastFirst, logged, serve } from '../support/faults.js'
import { leaveFree } from '../support/guest-scenario.js'
import { Region, type Waiting } from '../support/kill-region.js'
import { type Mounted, mountLoopDisk, sparseFile } from '../support/loop-disk.js'
import { type Random, seededRandom } from '../support/random.js'
import { needsRoot, UNDER_ALL } from '../support/requirements.js'
import { suspectBytes } from '../support/thin-stack.js'

const NAME = 'disk.img'
const HELD = `candor_requests_held{export="${NAME}"}`
const KILLS = UNDER_ALL ? 100 : 20
const LOAD_MS_MAX = 120
/** A sync or a FUA write of this load takes some milliseconds. */
const SYNC_MS_MAX = 4
const LOADED_SLOTS = 48
/** More than the two loads can free by trimming. */
const SPARE_SLOTS = 2 * LOADED_SLOTS + 32
const DISK_MIB = 64
const FREE_MIB = 1

interface Bench {
  readonly random: Random
  readonly disk: Mounted
  readonly stateDirectory: string
  /** Under load from one client each. */
  readonly loaded: readonly Region[]
  /** Written only where writes are to be held. */
  readonly spare: Region
  start(wrapper?: readonly string[]): Promise<RunningCandor>
  /** How long the last start took that was not waited for by anything else. */
  startMs: number
  /** Where the kills landed: what a client waited for then. One kill may count for several. */
  readonly landed: Map<string, number>
}

/** A server under load. */
interface Victim {
  readonly bench: Bench
  readonly candor: RunningCandor
  /** Starts the server that comes after this one, before this one has ended. */
  succeed(): Promise<RunningCandor>
}

/** What is to be done when the server is gone, before the next one starts. */
type ClearUp = () => Promise<void>

/** Each resolves when the moment for the kill has come. */
const MOMENTS: Readonly<Record<string, (victim: Victim) => Promise<ClearUp | undefined>>> = {
  anywhere: ({ bench }) => pause(bench.random.below(LOAD_MS_MAX), undefined),
  'in a sync': (victim) => within(victim, 'flush'),
  'in a FUA write': (victim) => within(victim, 'fua'),
  'in a trim': (victim) => within(victim, 'trim'),
  'while writes are held': holdWrites,
  'with a successor at the door': awaitSuccessor,
}
const STARTING = 'while starting'
const ORDER = ['anywhere', 'in a sync', STARTING, ...Object.keys(MOMENTS).slice(2)]

async function within({ bench }: Victim, what: Waiting): Promise<undefined> {
  await bench.loaded[0]?.sent(what)
  await pause(bench.random.below(SYNC_MS_MAX))
}

async function holdWrites({ bench, candor }: Victim): Promise<ClearUp> {
  const { random, disk, spare } = bench
  const client = await attach(candor)
  await spare.empty(client)
  await client.flush()
  disk.settle()
  const filler = leaveFree(disk, FREE_MIB)
  const filling = spare.fill(client)
  while (((await candor.metrics()).get(HELD) ?? 0) === 0) await pause(random.below(SYNC_MS_MAX))
  await pause(random.below(LOAD_MS_MAX))
  return async () => {
    await filling
    unlinkSync(filler)
    disk.settle()
  }
}

/** It is at the door when it has opened the lock of the state directory, and has some patience there. */
async function awaitSuccessor({ bench, succeed }: Victim): Promise<undefined> {
  const lock = watch(join(bench.stateDirectory, 'lock'))
  const opened = once(lock, 'change')
  let started = false
  const ready = succeed().then(() => {
    started = true
  })
  await Promise.race([opened, ready])
  lock.close()
  await pause(bench.random.below(LOAD_MS_MAX))
  assert.equal(started, false, 'two servers are ready at once')
}

async function assertSound(candor: RunningCandor, killedBefore: boolean): Promise<void> {
  assert.equal(logged(candor, /unclean end/).length, killedBefore ? 1 : 0)
  assert.deepEqual(logged(candor, /damaged|suspect/), [])
  assert.equal((await candor.metrics()).get(`candor_export_unclean_end{export="${NAME}"}`) ?? 0, killedBefore ? 1 : 0)
  assert.equal(await suspectBytes(candor, NAME), 0)
  assert.equal(await exportState(candor, NAME), 'ok')
}

async function assertRight({ loaded, spare }: Bench, candor: RunningCandor): Promise<void> {
  const client = await attach(candor)
  for (const region of [...loaded, spare]) await region.check(client)
}

test(`killed ${KILLS} times at random moments, the server starts each time, and what was acknowledged reads back`, {
  skip: needsRoot('mkfs.ext4', 'losetup', 'setpriv', 'fallocate', 'timeout'),
}, async (t) => {
  const bench = setBench(t)
  let successor: RunningCandor | undefined
  for (let kills = 0; kills < KILLS; kills++) {
    const moment = ORDER[kills % ORDER.length] ?? ''
    successor = await (moment === STARTING ? killStarting(bench) : killLoaded(bench, { moment, kills, successor }))
  }
  const last = successor ?? (await bench.start())
  await assertRight(bench, last)
  assert.equal((await last.stop()).code, 0)
  const clean = await bench.start()
  await assertSound(clean, false)
  await assertRight(bench, clean)
  tell(t, bench)
})

function setBench(t: TestContext): Bench {
  const scope = lastFirst(t)
  const random = seededRandom(t)
  const disk = mountLoopDisk(scope, { type: 'ext4', sizeMiB: DISK_MIB })
  const first = new Region(0, LOADED_SLOTS, random)
  const second = new Region(first.end, LOADED_SLOTS, random)
  const spare = new Region(second.end, SPARE_SLOTS, random)
  const image = sparseFile(join(disk.folder, NAME), spare.end)
  const state = temporaryFolder()
  scope.after(() => state.remove())
  const words = [image, '--state-dir', state.path, '--on-enospc', 'hold=5m']
  const start = (wrapper: readonly string[] = []) => serve(scope, words, { wrapper })
  return {
    random,
    disk,
    stateDirectory: state.path,
    loaded: [first, second],
    spare,
    start,
    startMs: 0,
    landed: new Map(),
  }
}

interface Round {
  readonly moment: string
  readonly kills: number
  /** The server of this round, if one was started before its predecessor was killed. */
  readonly successor: RunningCandor | undefined
}

/** Starts a server, finds everything right, and kills it under load. Resolves with its successor if it has one already. */
async function killLoaded(bench: Bench, { moment, kills, successor }: Round): Promise<RunningCandor | undefined> {
  const before = performance.now()
  const candor = successor ?? (await bench.start())
  if (successor === undefined) bench.startMs = performance.now() - before
  await assertSound(candor, kills > 0)
  await assertRight(bench, candor)
  const loads = bench.loaded.map((region) => region.load(() => attach(candor)))
  let next: Promise<RunningCandor> | undefined
  const succeed = () => {
    next = bench.start()
    // Who awaits it in the next round is told of its failure.
    next.catch(() => undefined)
    return next
  }
  const clearUp = await MOMENTS[moment]?.({ bench, candor, succeed })
  countLanding(bench, moment)
  candor.kill('SIGKILL')
  await Promise.all([...loads, candor.ended])
  await clearUp?.()
  return next
}

/** Kills a server before it is ready, or just after. */
async function killStarting(bench: Bench): Promise<undefined> {
  const afterMs = 1 + bench.random.below(bench.startMs * 1.2)
  const started = bench.start(['timeout', '--signal=KILL', `${afterMs / 1000}`])
  const early = await started.then(
    async (candor) => {
      await candor.ended
      return false
    },
    (error: Error) => {
      // 137 is what `timeout` says of one that it killed; a refusal would be another number.
      assert.match(error.message, /^candor ended with (null|137) before it was ready/)
      return true
    },
  )
  bench.landed.set(STARTING, (bench.landed.get(STARTING) ?? 0) + (early ? 1 : 0))
}

function countLanding({ loaded, landed }: Bench, moment: string): void {
  const waitedFor = (['write', 'fua', 'zero', 'trim', 'flush'] as const).filter((what) =>
    loaded.some((region) => region.awaits(what)),
  )
  const named = moment === 'while writes are held' || moment === 'with a successor at the door' ? [moment] : []
  for (const key of [...waitedFor, ...named]) landed.set(key, (landed.get(key) ?? 0) + 1)
}

function tell(t: TestContext, { loaded, spare, landed }: Bench): void {
  const acknowledged = new Map<string, number>()
  for (const region of [...loaded, spare]) {
    for (const [what, count] of region.acknowledged) acknowledged.set(what, (acknowledged.get(what) ?? 0) + count)
  }
  const list = (counts: ReadonlyMap<string, number>) =>
    [...counts].map(([what, count]) => `${what} ${count}`).join(', ')
  t.diagnostic(`acknowledged, of 64 KiB each: ${list(acknowledged)}`)
  t.diagnostic(`of ${KILLS} kills, what was under way: ${list(landed)}`)
  for (const what of ['write', 'fua', 'zero', 'trim', 'flush']) assert.ok((acknowledged.get(what) ?? 0) > 0, what)
}
