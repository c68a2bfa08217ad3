// An image that is let go of and taken up again. Law: nothing is done to it meanwhile, whoever waits is answered after it,
// and no other image ever takes its place.
import assert from 'node:assert/strict'
import { copyFileSync, renameSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { type Client, NBD_CMD_FLAG_FUA, NBD_EIO, NBD_ESHUTDOWN } from 'nbd-protocol'
import { type RunningCandor, temporaryFolder } from '../support/candor.js'
import {
  assertHolds,
  attach,
  type CommandEnd,
  command,
  exportState,
  lastFirst,
  logged,
  MIB,
  refused,
  type Scope,
  serve,
  stamped,
} from '../support/faults.js'
import { freeze } from '../support/hostile-freeze.js'
import { type LoopDisk, mountLoopDisk, run, sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'
import { errorOf, suspectBytes } from '../support/thin-stack.js'

const skip = needsRoot('fsfreeze', 'mkfs.ext4', 'setpriv')
const NAME = 'disk.img'
const SIZE = 16 * MIB

interface Scene {
  readonly scope: Scope
  readonly disk: LoopDisk
  readonly image: string
  readonly candor: RunningCandor
  readonly client: Client
  ctl(...words: readonly string[]): Promise<CommandEnd>
}

/** Serves an image on a disk of its own; the first MiB is written, and no more than that. */
async function setScene(t: TestContext): Promise<Scene> {
  const scope = lastFirst(t)
  const disk = mountLoopDisk(scope, { type: 'ext4', sizeMiB: 64 })
  const image = sparseFile(join(disk.folder, NAME), SIZE)
  const { path: state, remove } = temporaryFolder()
  scope.after(remove)
  const candor = await serve(scope, [image, '--state-dir', state])
  const client = await attach(candor)
  await client.write(0, stamped(0, MIB))
  return { scope, disk, image, candor, client, ctl: (...words) => command(['ctl', ...words, '--state-dir', state]) }
}

async function done(command: Promise<CommandEnd>): Promise<string> {
  const { code, stdout, stderr } = await command
  assert.equal(code, 0, stderr)
  return stdout
}

async function metric(candor: RunningCandor, name: string): Promise<number | undefined> {
  return (await candor.metrics()).get(`${name}{export="${NAME}"}`)
}

/** Requests are on their way for an unknown time; what they cause is waited for. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 20_000
  while (!(await condition())) {
    assert.ok(performance.now() < deadline, String(condition))
    await pause(20)
  }
}

test('a sound image is let go of, its file system unmounted and mounted, and taken up again with nothing lost', {
  skip,
}, async (t) => {
  const { disk, candor, client, ctl } = await setScene(t)
  assert.throws(() => run('umount', disk.folder), /busy/)
  await done(ctl('release', NAME))
  assert.match(await done(ctl('release', NAME)), /released since/, 'once more is no mistake')
  assert.equal(await metric(candor, 'candor_export_released'), 1)
  const waiting = [
    client.write(MIB, stamped(MIB, MIB)),
    client.write(MIB, stamped(MIB, MIB, 1)),
    client.write(2 * MIB, stamped(2 * MIB, MIB), NBD_CMD_FLAG_FUA),
    client.writeZeroes(3 * MIB, MIB),
    client.trim(4 * MIB, MIB),
    client.cache(0, MIB),
  ]
  const reads = [client.read(0, MIB), client.read(MIB, MIB)]
  await until(async () => (await metric(candor, 'candor_requests_in_flight')) === waiting.length + reads.length)
  await client.flush()
  run('umount', disk.folder)
  run('mount', '-o', 'loop', join(disk.folder, '..', 'disk'), disk.folder)
  await done(ctl('resume', NAME))
  await Promise.all(waiting)
  assert.equal(stamped(0, MIB).compare((await reads[0]) ?? new Uint8Array(0)), 0)
  await assertHolds(client, MIB, MIB, 1)
  await client.flush()
  assert.deepEqual(
    [await exportState(candor, NAME), await suspectBytes(candor, NAME), await metric(candor, 'candor_export_released')],
    ['ok', 0, 0],
  )
  assert.equal(logged(candor, /^export disk\.img is released/).length, 2)
  assert.equal(logged(candor, /^export disk\.img is held again/).length, 1)
  assert.equal((await candor.stop()).code, 0)
})

test('while it is let go of another may have the image; resume takes the lock again, or says who has it', {
  skip,
}, async (t) => {
  const { scope, image, client, ctl } = await setScene(t)
  await done(ctl('release', NAME))
  const other = await serve(scope, [image])
  const inUse = await ctl('resume', NAME)
  assert.equal(inUse.code, 1)
  assert.match(inUse.stderr, /^candor: export disk\.img is still released: \S+ is in use by another program [^\n]+\n$/)
  await other.stop()
  await done(ctl('resume', NAME))
  await assertHolds(client, 0, MIB)
  const late = await command(['serve', image, '--state-dir', 'none', '--http', 'off', '--listen', 'tcp:127.0.0.1:0'])
  assert.match(late.stderr, /in use/)
})

test('another file in the place of the image is refused, and so is a read-only file system; the image itself is taken up', {
  skip,
}, async (t) => {
  const { disk, image, client, ctl } = await setScene(t)
  await done(ctl('release', NAME))
  renameSync(image, `${image}.away`)
  copyFileSync(`${image}.away`, image)
  const refusal = await ctl('resume', NAME)
  assert.equal(refusal.code, 1)
  assert.match(refusal.stderr, /^candor: [^\n]*still released: \S+ leads to another image than the one that is served/)
  renameSync(`${image}.away`, image)
  run('mount', '-o', 'remount,ro', disk.folder)
  assert.match((await ctl('resume', NAME)).stderr, /still released: [^\n]* read-only: mount it writable first\n$/)
  run('mount', '-o', 'remount,rw', disk.folder)
  await done(ctl('resume', NAME))
  await assertHolds(client, 0, MIB)
})

test('an image that came back shorter has lost what is missing, and says so', { skip }, async (t) => {
  const { image, candor, client, ctl } = await setScene(t)
  await client.write(0, stamped(0, SIZE))
  await done(ctl('release', NAME))
  truncateSync(image, SIZE - 2 * MIB)
  const told = await ctl('resume', NAME)
  assert.equal(told.code, 1)
  assert.match(told.stderr, /^candor: export disk\.img is degraded: its image is not whole; see the log\n$/)
  await refused(client.read(SIZE - MIB, MIB), NBD_EIO)
  await refused(client.flush(), NBD_EIO)
  assert.equal(await exportState(candor, NAME), 'degraded')
  assert.equal(await suspectBytes(candor, NAME), 2 * MIB)
  await assertHolds(client, 0, SIZE - 2 * MIB)
})

test('an image that another file replaced stays detached, whatever the operator says, until it is back', {
  skip,
}, async (t) => {
  const { image, candor, client, ctl } = await setScene(t)
  renameSync(image, `${image}.away`)
  copyFileSync(`${image}.away`, image)
  await refused(client.flush(), NBD_EIO)
  assert.equal(await exportState(candor, NAME), 'detached')
  const refusal = await ctl('resume', NAME)
  assert.match(refusal.stderr, /^candor: export disk\.img is still detached: \S+ leads to another image [^\n]+\n$/)
  renameSync(`${image}.away`, image)
  await done(ctl('resume', NAME))
  assert.equal(await exportState(candor, NAME), 'ok')
  await client.flush()
})

test('a request that the kernel keeps is waited for in vain, so the image is not let go of; later it can be', {
  skip,
}, async (t) => {
  const { scope, disk, candor, client, ctl } = await setScene(t)
  await client.flush()
  const thaw = await freeze(scope, disk.folder)
  const kept = client.write(MIB, stamped(MIB, MIB), NBD_CMD_FLAG_FUA)
  await until(async () => (await metric(candor, 'candor_requests_in_flight')) === 1)
  const refusal = await ctl('release', NAME)
  assert.equal(refusal.code, 1)
  assert.match(refusal.stderr, /^candor: export disk\.img was not released: the kernel does not give [^\n]+\n$/)
  await assertHolds(client, 0, MIB)
  await thaw()
  await kept
  await done(ctl('release', NAME))
  await done(ctl('resume', NAME))
  await assertHolds(client, MIB, MIB)
})

test('what waits is answered with ESHUTDOWN when the server ends, and dropped when its client goes', {
  skip,
}, async (t) => {
  const { candor, client, ctl } = await setScene(t)
  const gone = await attach(candor)
  await done(ctl('release', NAME))
  const forgotten = errorOf(gone.write(5 * MIB, stamped(5 * MIB, MIB))).catch(() => undefined)
  await until(async () => (await metric(candor, 'candor_requests_in_flight')) === 1)
  await gone.abandon()
  await forgotten
  await until(async () => (await metric(candor, 'candor_requests_dropped_total')) === 1)
  const [write, read] = [client.write(MIB, stamped(MIB, MIB)), client.read(0, MIB)]
  await until(async () => (await metric(candor, 'candor_requests_in_flight')) === 2)
  const ended = candor.stop()
  await Promise.all([refused(write, NBD_ESHUTDOWN), refused(read, NBD_ESHUTDOWN)])
  assert.equal((await ended).code, 0, 'it was synced when it was let go of')
})
