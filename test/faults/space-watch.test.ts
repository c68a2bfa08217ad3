// The watch on real file systems: what is held goes on as soon as there is space, and the numbers are those of df and stat.
import assert from 'node:assert/strict'
import { statfsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { NBD_CMD_FLAG_NO_HOLE } from 'nbd-protocol'
import { type RunningCandor, temporaryFolder } from '../support/candor.js'
import { assertHolds, attach, command, lastFirst, logged, MIB, serve, stamped } from '../support/faults.js'
import { allocatedBytes, mountLoopDisk, run, sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'
import { untilMetrics } from '../support/tls-server.js'

const WRITE_PAUSE_MS = 20
const WATCHDOG_MS = 60_000
const HELD = 'candor_requests_held{export="disk"}'
const SINCE = 'candor_requests_held_since{export="disk"}'

test('what the reserve holds succeeds when the file system grows, and another export notices nothing', {
  skip: needsRoot('mkfs.xfs', 'mkfs.ext4', 'xfs_growfs', 'losetup', 'setpriv'),
  timeout: WATCHDOG_MS,
}, async (t) => {
  const scope = lastFirst(t)
  const disk = mountLoopDisk(scope, { type: 'xfs', sizeMiB: 320 })
  const roomy = mountLoopDisk(scope, { type: 'ext4', sizeMiB: 64 })
  const state = temporaryFolder()
  scope.after(state.remove)
  const images = [
    `disk=${sparseFile(join(disk.folder, 'disk.img'), 512 * MIB)}`,
    `other=${sparseFile(join(roomy.folder, 'other.img'), 16 * MIB)}`,
  ]
  const reserve = disk.freeBytes() - 8 * MIB
  const policy = ['--reserve', `disk=${reserve}`, '--on-enospc', 'hold=5m', '--state-dir', state.path]
  const candor = await serve(scope, [...images, ...policy])
  const [client, other] = await Promise.all(candor.uris.map((uri) => attach(uri)))
  assert.ok(client && other)
  const began = Date.now()
  const writes = Array.from({ length: 16 }, (_, index) => client.write(index * MIB, stamped(index * MIB, MIB)))
  const zeroes = client.writeZeroes(64 * MIB, 64 * MIB, NBD_CMD_FLAG_NO_HOLE)
  await untilMetrics(candor, (metrics) => (metrics.get(HELD) ?? 0) >= 8, 'the writes are held')

  await other.write(0, stamped(0, 8 * MIB))
  const taken = 'candor_export_allocated_bytes{export="other"}'
  await untilMetrics(candor, (metrics) => (metrics.get(taken) ?? 0) >= 8 * MIB, 'the watch has seen what was written')
  await client.write(0, stamped(0, MIB, 1))
  const metrics = await candor.metrics()
  const since = (metrics.get(SINCE) ?? 0) * 1000
  assert.ok(since >= began && since <= Date.now(), `held since ${since}`)
  assert.deepEqual(
    [metrics.get('candor_requests_held{export="other"}'), metrics.get(SINCE.replace('disk', 'other'))],
    [0, undefined],
  )
  const { stdout } = await command(['ctl', 'exports', '--state-dir', state.path])
  assert.match(stdout, /^disk +ok +512 MiB +writable +[\d.]+ \w+ +[\d.]+ MiB +\d+ writes held .* since 2/m)
  assert.match(stdout, /^other +ok +16 MiB +writable +8(\.\d+)? MiB +0 bytes$/m)

  disk.grow(960)
  await Promise.all([...writes, zeroes])
  await client.flush()
  await assertHolds(client, 0, MIB, 1)
  await assertHolds(client, MIB, 15 * MIB)
  const after = await candor.metrics()
  assert.deepEqual([after.get(HELD), after.get(SINCE)], [0, undefined])
  assert.equal(after.get('candor_writes_refused_by_reserve_total{export="disk"}'), 0)
  assert.equal((await candor.stop()).code, 0)
})

/** What the metrics say of a mounted file system. */
function backing(metrics: ReadonlyMap<string, number>, what: string, folder: string): number | undefined {
  const [name] = [...metrics.keys()].filter(
    (key) => key.startsWith(`candor_backing_${what}{`) && key.includes(`mount="${folder}"`),
  )
  return name === undefined ? undefined : metrics.get(name)
}

/** Waits until the metrics are what df and stat say; fails with the difference when they never are. */
async function untilAgreed(candor: RunningCandor, folder: string, images: readonly string[]): Promise<void> {
  const agree = (metrics: ReadonlyMap<string, number>) => {
    const { bavail, blocks, bsize } = statfsSync(folder)
    const allocated = images.map((name) => metrics.get(`candor_export_allocated_bytes{export="${name}"}`) ?? 0)
    const stat = images.map((name) => allocatedBytes(join(folder, name)))
    const mayTake = images.reduce((sum, name, index) => sum + statSync(join(folder, name)).size - (stat[index] ?? 0), 0)
    return (
      backing(metrics, 'free_bytes', folder) === bavail * bsize &&
      backing(metrics, 'size_bytes', folder) === blocks * bsize &&
      backing(metrics, 'overcommit_bytes', folder) === mayTake - bavail * bsize &&
      JSON.stringify(allocated) === JSON.stringify(stat)
    )
  }
  await untilMetrics(candor, agree, 'the metrics are what df and stat say')
}

for (const type of ['ext4', 'xfs', 'btrfs'] as const) {
  test(`on ${type} the metrics are what df and stat say, and images that could outgrow the disk are told of once`, {
    skip: needsRoot(`mkfs.${type}`, 'losetup', 'setpriv'),
    timeout: WATCHDOG_MS,
  }, async (t) => {
    const scope = lastFirst(t)
    const disk = mountLoopDisk(scope, { type, sizeMiB: 320 })
    for (const name of ['a', 'b']) sparseFile(join(disk.folder, name), 256 * MIB)
    const small = mountLoopDisk(scope, { type: 'ext4', sizeMiB: 64 })
    const state = temporaryFolder()
    scope.after(state.remove)
    const images = [join(disk.folder, 'a'), join(disk.folder, 'b'), sparseFile(join(small.folder, 'c'), 8 * MIB)]
    const candor = await serve(scope, [...images, '--state-dir', state.path])
    await untilAgreed(candor, disk.folder, ['a', 'b'])
    await untilAgreed(candor, small.folder, ['c'])
    const client = await attach(candor)
    await client.write(0, stamped(0, 31 * MIB))
    await client.write(100 * MIB, stamped(0, 4096))
    await client.flush()
    disk.settle()
    await untilAgreed(candor, disk.folder, ['a', 'b'])
    const until = await candor.metrics().then((metrics) => backing(metrics, 'seconds_until_full', disk.folder))
    // The test's reader knows no +Inf, which is what stands there while nothing falls.
    assert.ok(until !== undefined && (Number.isNaN(until) || until > 0))
    await client.trim(0, 256 * MIB)
    await client.flush()
    disk.settle()
    await untilAgreed(candor, disk.folder, ['a', 'b'])
    const { stdout } = await command(['ctl', 'exports', '--json', '--state-dir', state.path])
    const [first] = JSON.parse(stdout) as { name: string; allocated: number; reserve: number; held: number }[]
    assert.deepEqual(first && [first.name, first.allocated, first.reserve, first.held], [
      'a',
      allocatedBytes(images[0] ?? ''),
      0,
      0,
    ])
    assert.deepEqual(logged(candor, /could outgrow/), [`the images on ${disk.folder} could outgrow it`])
    const { stdout: banner } = await candor.stop()
    const notes = banner.split('\n').filter((line) => line.startsWith('note: '))
    assert.equal(notes.length, 1)
    assert.match(notes[0] ?? '', new RegExp(`^note: ${disk.folder} has [\\d.]+ MiB free; a, b may still take 512 MiB$`))
  })
}

test('a file system that fills tells when it will be full, and one file system under two mounts is one', {
  skip: needsRoot('mkfs.ext4', 'losetup', 'setpriv'),
  timeout: WATCHDOG_MS,
}, async (t) => {
  const scope = lastFirst(t)
  const disk = mountLoopDisk(scope, { type: 'ext4', sizeMiB: 128 })
  const again = temporaryFolder()
  scope.after(again.remove)
  run('mount', '--bind', disk.folder, again.path)
  scope.after(() => run('umount', again.path))
  const images = [sparseFile(join(disk.folder, 'a'), 64 * MIB), `b=${sparseFile(join(again.path, 'b'), 64 * MIB)}`]
  const candor = await serve(scope, images)
  const client = await attach(candor)
  let at = 0
  const fills = async (metrics: ReadonlyMap<string, number>) => {
    await client.write(at, stamped(at, 64 * 1024))
    at += 64 * 1024
    // A guest that writes at leisure: of the first ten seconds nothing is concluded.
    await pause(WRITE_PAUSE_MS)
    return (backing(metrics, 'seconds_until_full', disk.folder) ?? Number.NaN) < 24 * 3600
  }
  while (!(await fills(await candor.metrics()))) assert.ok(at < 60 * MIB, 'free space falls, and nobody says so')
  const metrics = await candor.metrics()
  assert.equal([...metrics.keys()].filter((name) => name.startsWith('candor_backing_free_bytes')).length, 1)
})
