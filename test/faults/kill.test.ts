// A server that is killed. Law: what it leaves unsynced is in its shadow, and the next one finds out before the first
// client comes whether the kernel has kept it.
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { type RunningCandor, temporaryFolder } from '../support/candor.js'
import { attach, exportState, KIB, lastFirst, logged, MIB, type Scope, serve, stamped } from '../support/faults.js'
import { run } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'
import {
  errorOf,
  evictFile,
  mountThinStack,
  readBack,
  suspectBytes,
  THIN_STACK_NEEDS,
  type ThinStack,
  writeStamped,
} from '../support/thin-stack.js'
import { hurryWriteBack } from '../support/write-back-pace.js'

const skip = needsRoot('fincore', ...THIN_STACK_NEEDS)
const NAME = 'disk.img'
const SIZE = 64 * MIB
const SAFE = 16 * MIB
const LOST = 32 * MIB
const WRITE_BACK_TIMEOUT_MS = 40_000

interface Scene {
  readonly scope: Scope
  readonly stack: ThinStack
  readonly image: string
  start(): Promise<RunningCandor>
}

function setScene(t: TestContext): Scene {
  const scope = lastFirst(t)
  const stack = mountThinStack(scope)
  const image = stack.provision(NAME, SIZE)
  const state = temporaryFolder()
  scope.after(() => state.remove())
  return { scope, stack, image, start: () => serve(scope, [image, '--state-dir', state.path]) }
}

async function kill(candor: RunningCandor): Promise<void> {
  candor.kill('SIGKILL')
  assert.equal((await candor.ended).signal, 'SIGKILL')
}

/** Only clean pages leave the cache, so that when all have left it the kernel has done with them, for good or ill. */
async function untilWrittenBack(image: string): Promise<void> {
  const deadline = performance.now() + WRITE_BACK_TIMEOUT_MS
  for (;;) {
    evictFile(image)
    if (Number(run('fincore', '--bytes', '--noheadings', '--output', 'RES', image)) === 0) return
    assert.ok(performance.now() < deadline, 'there was no write-back')
    await pause(50)
  }
}

/** Whoever syncs the file is told of its failed write-back, and then the kernel tells no one who opens it later. */
function assertSyncFails(image: string): void {
  assert.throws(() => run('sync', image), /error syncing/)
}

async function assertUnclean(candor: RunningCandor): Promise<void> {
  assert.equal(logged(candor, /^unclean end of export disk\.img: its last server was killed/).length, 1)
  assert.equal((await candor.metrics()).get(`candor_export_unclean_end{export="${NAME}"}`), 1)
}

async function assertNothingSuspect(candor: RunningCandor): Promise<void> {
  assert.equal(await suspectBytes(candor, NAME), 0)
  assert.equal(await exportState(candor, NAME), 'ok')
}

test('what a killed server had not synced, and write-back then lost, is suspect for the next one, MiB by MiB', {
  skip,
}, async (t) => {
  const { stack, image, start } = setScene(t)
  const first = await start()
  const client = await attach(first)
  await writeStamped(client, 0, SAFE)
  await client.flush()
  stack.exhaust()
  await writeStamped(client, SAFE, SAFE + LOST - MIB)
  await client.write(SAFE + LOST - MIB / 2, stamped(SAFE + LOST - MIB / 2, 4 * KIB))
  await kill(first)
  hurryWriteBack()
  await untilWrittenBack(image)
  assertSyncFails(image)

  const candor = await start()
  await assertUnclean(candor)
  assert.equal(await suspectBytes(candor, NAME), LOST)
  assert.equal(await exportState(candor, NAME), 'degraded')
  const next = await attach(candor)
  const { right, refused, wrong } = await readBack(next, 0, SAFE + LOST)
  assert.deepEqual([right.length * MIB, refused.length * MIB, wrong], [SAFE, LOST, []])
  await errorOf(next.flush())
  await kill(candor)
  const last = await start()
  assert.equal(await suspectBytes(last, NAME), LOST)
  await errorOf((await attach(last)).flush())
})

test('what a killed server had not synced, and the kernel has kept, is read by the next one, and nothing is suspect', {
  skip,
}, async (t) => {
  const { image, start } = setScene(t)
  const first = await start()
  const client = await attach(first)
  await writeStamped(client, 0, SAFE)
  await kill(first)
  const candor = await start()
  await assertUnclean(candor)
  await assertNothingSuspect(candor)
  evictFile(image)
  const next = await attach(candor)
  assert.equal((await readBack(next, 0, SAFE)).right.length, SAFE / MIB)
  await next.flush()
})

test('after a server that was killed with everything synced nothing is suspect, though storage fails by then', {
  skip,
}, async (t) => {
  const { stack, start } = setScene(t)
  const first = await start()
  const client = await attach(first)
  await writeStamped(client, 0, SAFE)
  await client.flush()
  await kill(first)
  stack.exhaust()
  const candor = await start()
  await assertUnclean(candor)
  await assertNothingSuspect(candor)
  const next = await attach(candor)
  assert.equal((await readBack(next, 0, SAFE)).right.length, SAFE / MIB)
  await next.flush()
  assert.equal((await candor.stop()).code, 0)
  const last = await start()
  assert.deepEqual(logged(last, /unclean/), [])
  assert.equal((await last.metrics()).get(`candor_export_unclean_end{export="${NAME}"}`) ?? 0, 0)
})
