// What a failed sync leaves behind: over a restart, until storage is good again, the operator says so, and the client
// writes again what was lost. Law: only a sync that succeeds, and covers the rewrite, makes anything well.
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { type Client, NBD_CMD_FLAG_FUA, NBD_EIO, NBD_ENOSPC } from 'nbd-protocol'
import { type RunningCandor, temporaryFolder } from '../support/candor.js'
import { attach, command, exportState, lastFirst, logged, MIB, type Scope, serve, stamped } from '../support/faults.js'
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

const skip = needsRoot(...THIN_STACK_NEEDS)
const NAME = 'disk.img'
const SIZE = 64 * MIB
const SAFE = 16 * MIB
const LITTLE = 4 * MIB
const WRITTEN = SAFE + 32 * MIB

interface Scene {
  readonly scope: Scope
  readonly stack: ThinStack
  readonly image: string
  readonly state: string
}

function setScene(t: TestContext): Scene {
  const scope = lastFirst(t)
  const folder = temporaryFolder()
  scope.after(() => folder.remove())
  const stack = mountThinStack(scope)
  return { scope, stack, image: stack.provision(NAME, SIZE), state: folder.path }
}

async function start({ scope, image, state }: Scene): Promise<{ candor: RunningCandor; client: Client }> {
  const candor = await serve(scope, [image, '--state-dir', state])
  return { candor, client: await attach(candor) }
}

function ctl({ state }: Scene, ...words: readonly string[]) {
  return command(['ctl', ...words, '--state-dir', state])
}

/** SAFE bytes are durable, and what was written after them is lost. Returns the error that FLUSH was answered with. */
async function lose({ stack }: Scene, client: Client): Promise<number> {
  await writeStamped(client, 0, SAFE)
  await client.flush()
  stack.exhaust()
  await writeStamped(client, SAFE, WRITTEN)
  const told = await errorOf(client.flush())
  assert.ok([NBD_EIO, NBD_ENOSPC].includes(told), `FLUSH was answered with ${told}`)
  return told
}

/** The suspect ranges are refused, and all the rest is right. */
async function assertSuspect({ image }: Scene, candor: RunningCandor, client: Client): Promise<void> {
  evictFile(image)
  const { right, refused, wrong } = await readBack(client, 0, WRITTEN)
  assert.deepEqual(wrong, [], 'lost bytes were read as good')
  assert.deepEqual([right.length * MIB, refused.length * MIB], [SAFE, WRITTEN - SAFE])
  assert.equal(await suspectBytes(candor, NAME), WRITTEN - SAFE)
}

test('a failed sync is remembered over a restart; resume, a rewrite and a FLUSH make all well, and that is remembered too', {
  skip,
}, async (t) => {
  const scene = setScene(t)
  const first = await start(scene)
  const told = await lose(scene, first.client)
  assert.equal((await first.candor.stop()).code, 2, 'the exit code says that a sync failed')

  const { candor, client } = await start(scene)
  assert.equal(await exportState(candor, NAME), 'degraded')
  assert.equal(await errorOf(client.flush()), told)
  assert.equal(await errorOf(client.write(0, stamped(0, MIB), NBD_CMD_FLAG_FUA)), told)
  await assertSuspect(scene, candor, client)

  scene.stack.enlarge(256)
  assert.equal(await errorOf(client.flush()), told, 'nothing but the operator ends it')
  const resumed = await ctl(scene, 'resume', NAME, '--json')
  assert.equal(resumed.code, 0, resumed.stderr)
  assert.equal(await exportState(candor, NAME), 'ok')
  await client.flush()
  await assertSuspect(scene, candor, client)

  await writeStamped(client, SAFE, WRITTEN - MIB, 1)
  await client.flush()
  assert.equal(await suspectBytes(candor, NAME), MIB)
  assert.equal((await candor.stop()).code, 0)
  await assertWell(scene)
})

/** After another restart, and from storage alone: only the last MiB was not written again. */
async function assertWell(scene: Scene): Promise<void> {
  scene.stack.remount()
  const { candor, client } = await start(scene)
  assert.equal(await exportState(candor, NAME), 'ok')
  assert.deepEqual(logged(candor, /unclean/), [])
  assert.deepEqual((await readBack(client, 0, SAFE)).right.length, SAFE / MIB)
  const rewritten = await readBack(client, SAFE, WRITTEN - MIB, 1)
  assert.deepEqual([rewritten.refused, rewritten.wrong], [[], []])
  assert.deepEqual((await readBack(client, WRITTEN - MIB, WRITTEN)).refused, [WRITTEN - MIB])
  assert.equal(await suspectBytes(candor, NAME), MIB)
  await client.flush()

  const forgotten = await ctl(scene, 'forget', NAME)
  assert.equal(forgotten.code, 0, forgotten.stderr)
  assert.equal(await suspectBytes(candor, NAME), 0)
  await client.read(WRITTEN - MIB, MIB)
  assert.equal((await candor.stop()).code, 0)
  const last = await start(scene)
  assert.equal(await suspectBytes(last.candor, NAME), 0)
}

test('resume before storage is good again fails and says so, and what was rewritten meanwhile and lost is suspect', {
  skip,
}, async (t) => {
  const scene = setScene(t)
  const { candor, client } = await start(scene)
  await lose(scene, client)
  await writeStamped(client, WRITTEN - LITTLE, WRITTEN, 1)
  const refusal = await ctl(scene, 'resume', NAME)
  assert.equal(refusal.code, 1)
  assert.match(refusal.stderr, /^candor: [^\n]*disk\.img[^\n]*(ENOSPC|EIO)[^\n]*\n$/)
  assert.equal(await exportState(candor, NAME), 'degraded')
  evictFile(scene.image)
  const { right, wrong } = await readBack(client, WRITTEN - LITTLE, WRITTEN, 1)
  assert.deepEqual([right, wrong], [[], []], 'lost bytes were read as good')
  assert.equal(await suspectBytes(candor, NAME), WRITTEN - SAFE)
})

test('resume of an export of which nobody knows yet that its sync fails degrades it, as any failed sync does', {
  skip,
}, async (t) => {
  const scene = setScene(t)
  const { candor, client } = await start(scene)
  scene.stack.exhaust()
  await writeStamped(client, 0, LITTLE)
  assert.equal((await ctl(scene, 'resume', NAME)).code, 1)
  assert.ok([NBD_EIO, NBD_ENOSPC].includes(await errorOf(client.flush())))
  assert.equal(await exportState(candor, NAME), 'degraded')
  evictFile(scene.image)
  assert.deepEqual((await readBack(client, 0, LITTLE)).wrong, [], 'lost bytes were read as good')
})

test('what was written after a failed sync, and lost after the server ended, is suspect at the next start', {
  skip,
}, async (t) => {
  const scene = setScene(t)
  const first = await start(scene)
  await lose(scene, first.client)
  await writeStamped(first.client, WRITTEN - LITTLE, WRITTEN + LITTLE, 1)
  assert.equal((await first.candor.stop()).code, 2)
  const { candor, client } = await start(scene)
  evictFile(scene.image)
  const { right, refused, wrong } = await readBack(client, SAFE, WRITTEN + LITTLE, 1)
  assert.deepEqual([right, refused.length * MIB, wrong], [[], WRITTEN + LITTLE - SAFE, []])
  assert.equal(await suspectBytes(candor, NAME), WRITTEN + LITTLE - SAFE)
})
