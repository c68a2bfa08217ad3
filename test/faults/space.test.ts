// What becomes of the host's space: TRIM gives it back, zeroing does or does not, and what each file system cannot do is
// done another way or refused.
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  BASE_ALLOCATION,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_ENOTSUP,
  NBD_STATE_HOLE,
  NBD_STATE_ZERO,
} from 'nbd-protocol'
import {
  assertHolds,
  assertZero,
  attach,
  errorsCounted,
  exportState,
  KIB,
  lastFirst,
  logged,
  MIB,
  refused,
  serve,
  stamped,
} from '../support/faults.js'
import {
  allocatedBytes,
  kernelKnows,
  mountLoopDisk,
  mountMemory,
  mountOverlay,
  sparseFile,
} from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'

const NAME = 'disk.img'
const TIB = 2 ** 40

/** Space is given back and taken in blocks, beside which a file system may keep a few for itself. */
function assertNear(actual: number, expected: number): void {
  assert.ok(Math.abs(actual - expected) <= 64 * KIB, `${actual} is not about ${expected}`)
}

for (const type of ['ext4', 'xfs', 'tmpfs'] as const) {
  test(`on ${type} TRIM and WRITE_ZEROES give space back, and NO_HOLE keeps and takes it`, {
    skip: needsRoot('mkfs.ext4', 'mkfs.xfs'),
  }, async (t) => {
    const scope = lastFirst(t)
    const disk = type === 'tmpfs' ? mountMemory(scope, type) : mountLoopDisk(scope, { type, sizeMiB: 300 })
    const image = sparseFile(join(disk.folder, NAME), 32 * MIB)
    const client = await attach(await serve(scope, [image]))
    await client.write(0, stamped(0, 16 * MIB))
    await client.flush()
    const full = disk.freeBytes()
    assertNear(allocatedBytes(image), 16 * MIB)

    await client.trim(MIB, 4 * MIB)
    await client.writeZeroes(6 * MIB, 2 * MIB)
    await client.flush()
    assertNear(allocatedBytes(image), 10 * MIB)
    disk.settle()
    assertNear(disk.freeBytes(), full + 6 * MIB)
    for (const [offset, length] of [[MIB, 4 * MIB] as const, [6 * MIB, 2 * MIB] as const]) {
      await assertZero(client, offset, length)
    }
    await assertHolds(client, 0, MIB)
    await assertHolds(client, 5 * MIB, MIB)
    await assertHolds(client, 8 * MIB, 8 * MIB)

    await client.writeZeroes(10 * MIB, 2 * MIB, NBD_CMD_FLAG_NO_HOLE)
    await client.flush()
    assertNear(allocatedBytes(image), 10 * MIB)
    await assertZero(client, 10 * MIB, 2 * MIB)
    await client.writeZeroes(20 * MIB, 4 * MIB, NBD_CMD_FLAG_NO_HOLE)
    await client.flush()
    assertNear(allocatedBytes(image), 14 * MIB)
    await assertZero(client, 16 * MIB, 16 * MIB)
    await assertHolds(client, 8 * MIB, 2 * MIB)
    await assertHolds(client, 12 * MIB, 4 * MIB)

    // What is no whole block stays allocated, and its neighbours stay what they are.
    await client.trim(12 * MIB + 100, 10_000)
    assert.equal(Buffer.compare(await client.read(12 * MIB, 100), stamped(12 * MIB, 4096).subarray(0, 100)), 0)
    await assertHolds(client, 12 * MIB + 12 * KIB, MIB)
    await client.writeZeroes(13 * MIB + 100, 10_000)
    await assertZero(client, 13 * MIB + 100, 10_000)
    assert.equal(Buffer.compare(await client.read(13 * MIB, 100), stamped(13 * MIB, 4096).subarray(0, 100)), 0)
    await assertHolds(client, 13 * MIB + 12 * KIB, MIB)
  })
}

for (const type of ['ext4', 'tmpfs'] as const) {
  test(`on ${type} zeroing with NO_HOLE takes space, so that beyond what is free it is ENOSPC; punching always succeeds`, {
    skip: needsRoot('mkfs.ext4'),
  }, async (t) => {
    const scope = lastFirst(t)
    const disk = type === 'tmpfs' ? mountMemory(scope, type, 'size=64m') : mountLoopDisk(scope, { type, sizeMiB: 64 })
    const image = sparseFile(join(disk.folder, NAME), 256 * MIB)
    const candor = await serve(scope, [image])
    const client = await attach(candor)
    await client.write(0, stamped(0, MIB))
    await refused(client.writeZeroes(MIB, 255 * MIB, NBD_CMD_FLAG_NO_HOLE), NBD_ENOSPC)
    assert.equal(await errorsCounted(candor, { export: NAME, command: 'write_zeroes', errno: 'ENOSPC' }), 1)
    await client.writeZeroes(MIB, 255 * MIB)
    await client.trim(MIB, 255 * MIB)
    await assertHolds(client, 0, MIB)
    await client.write(2 * MIB, stamped(2 * MIB, 8 * MIB))
    await client.flush()
    await assertHolds(client, 2 * MIB, 8 * MIB)
    assert.equal(await exportState(candor, NAME), 'ok')
    assert.equal((await candor.stop()).code, 0)
  })
}

// A kernel that has no vfat has ramfs, which knows no holes either.
for (const type of ['ramfs', 'vfat'].filter(kernelKnows) as ('ramfs' | 'vfat')[]) {
  test(`on ${type}, which knows no holes, TRIM does nothing, zeroes are written, and fast zeroes are refused`, {
    skip: needsRoot(...(type === 'vfat' ? ['mkfs.vfat'] : [])),
  }, async (t) => {
    const scope = lastFirst(t)
    const disk = type === 'ramfs' ? mountMemory(scope, type) : mountLoopDisk(scope, { type, sizeMiB: 64 })
    const image = join(disk.folder, NAME)
    writeFileSync(image, stamped(0, 8 * MIB))
    const candor = await serve(scope, [image])
    const client = await attach(candor)
    await client.trim(0, 4 * MIB)
    await assertHolds(client, 0, 8 * MIB)
    await refused(client.writeZeroes(0, MIB, NBD_CMD_FLAG_FAST_ZERO), NBD_ENOTSUP)
    await refused(client.writeZeroes(0, MIB, NBD_CMD_FLAG_FAST_ZERO | NBD_CMD_FLAG_NO_HOLE), NBD_ENOTSUP)
    await assertHolds(client, 0, 8 * MIB)
    await client.writeZeroes(MIB, MIB)
    await client.writeZeroes(3 * MIB + 100, 10_000, NBD_CMD_FLAG_NO_HOLE)
    await client.trim(0, MIB)
    await client.flush()
    await assertHolds(client, 0, MIB)
    await assertZero(client, MIB, MIB)
    await assertHolds(client, 2 * MIB, MIB)
    await assertZero(client, 3 * MIB + 100, 10_000)
    await assertHolds(client, 3 * MIB + 12 * KIB, MIB)
    assert.equal((await candor.stop()).code, 0)
  })
}

test('a disk that grows under the image has room again for the same connection', {
  skip: needsRoot('mkfs.xfs', 'xfs_growfs'),
}, async (t) => {
  const scope = lastFirst(t)
  const disk = mountLoopDisk(scope, { type: 'xfs', sizeMiB: 300 })
  const image = sparseFile(join(disk.folder, NAME), 512 * MIB)
  const client = await attach(await serve(scope, [image]))
  await refused(client.writeZeroes(0, 400 * MIB, NBD_CMD_FLAG_NO_HOLE), NBD_ENOSPC)
  disk.grow(600)
  await client.writeZeroes(0, 400 * MIB, NBD_CMD_FLAG_NO_HOLE)
  await client.write(400 * MIB, stamped(400 * MIB, MIB))
  await client.flush()
  await assertHolds(client, 400 * MIB, MIB)
})

test('an image on overlayfs is served, with a warning in the log', { skip: needsRoot() }, async (t) => {
  const scope = lastFirst(t)
  const image = join(mountOverlay(scope).folder, NAME)
  const candor = await serve(scope, [image, '--create', '4M'])
  const client = await attach(candor)
  await client.write(0, stamped(0, MIB))
  await client.trim(0, 64 * KIB)
  await client.flush()
  await assertHolds(client, 64 * KIB, MIB - 64 * KIB)
  assert.equal(logged(candor, /overlayfs/).length, 1)
  assert.equal((await candor.stop()).code, 0)
})

test('an image whose size is no multiple of 512 is served to its last byte, with a warning in the log', {
  skip: needsRoot(),
}, async (t) => {
  const scope = lastFirst(t)
  const size = MIB + 77
  const image = sparseFile(join(mountMemory(scope, 'tmpfs').folder, NAME), size)
  const candor = await serve(scope, [image])
  const client = await attach(candor)
  assert.equal(client.size, size)
  await client.write(MIB, stamped(MIB, 77))
  assert.equal(Buffer.compare(await client.read(MIB, 77), stamped(MIB, 77)), 0)
  await refused(client.write(MIB, stamped(MIB, 78)), NBD_ENOSPC)
  await refused(client.read(MIB, 78), NBD_EINVAL)
  assert.equal(logged(candor, /no multiple of 512/).length, 1)
})

test('an image of no bytes is served, and every request that names a byte is refused', {
  skip: needsRoot(),
}, async (t) => {
  const scope = lastFirst(t)
  const image = sparseFile(join(mountMemory(scope, 'tmpfs').folder, NAME), 0)
  const candor = await serve(scope, [image])
  const client = await attach(candor, { contexts: [BASE_ALLOCATION] })
  assert.equal(client.size, 0)
  await refused(client.read(0, 1), NBD_EINVAL)
  await refused(client.write(0, stamped(0, 512)), NBD_ENOSPC)
  await refused(client.trim(0, 512), NBD_EINVAL)
  await refused(client.writeZeroes(0, 512), NBD_EINVAL)
  await refused(client.cache(0, 512), NBD_EINVAL)
  await refused(client.blockStatus(0, 512), NBD_EINVAL)
  await client.flush()
  assert.equal((await candor.stop()).code, 0)
})

// The largest file of ext4 with blocks of 4 KiB has 16 TiB less one block.
for (const [type, size] of [
  ['xfs', 16 * TIB],
  ['ext4', 16 * TIB - 4 * KIB],
] as const) {
  test(`an image of ${size} bytes on ${type} is written and read at its far end`, {
    skip: needsRoot('mkfs.xfs', 'mkfs.ext4'),
  }, async (t) => {
    const scope = lastFirst(t)
    const disk = mountLoopDisk(scope, { type, sizeMiB: 300 })
    const image = sparseFile(join(disk.folder, NAME), size)
    const candor = await serve(scope, [image])
    const client = await attach(candor, { contexts: [BASE_ALLOCATION], replyStyle: 'extended' })
    assert.equal(client.size, size)
    const end = size - MIB
    await client.write(end, stamped(end, MIB))
    await client.write(2 ** 32 - 4096, stamped(7, 8192))
    await client.flush()
    await assertHolds(client, end, MIB)
    assert.equal(Buffer.compare(await client.read(2 ** 32 - 4096, 8192), stamped(7, 8192)), 0)
    await assertZero(client, end - MIB, MIB)
    const hole = (await client.blockStatus(2 ** 33, size - 2 ** 33)).get(BASE_ALLOCATION)
    assert.deepEqual(hole?.[0], { length: end - 2 ** 33, flags: NBD_STATE_HOLE | NBD_STATE_ZERO })
    await refused(client.write(size - 4096, stamped(0, 8192)), NBD_ENOSPC)
    await refused(client.write(size, stamped(0, 4096)), NBD_ENOSPC)
    await client.trim(end, MIB)
    await assertZero(client, end, MIB)
    assert.equal((await candor.stop()).code, 0)
  })
}
