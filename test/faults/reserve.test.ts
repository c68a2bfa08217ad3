// The reserve on real file systems: what would take space from it is refused or held, what takes none goes on.
import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Client, NBD_CMD_FLAG_FUA, NBD_CMD_FLAG_NO_HOLE, NBD_ENOSPC } from 'nbd-protocol'
import { temporaryFolder } from '../support/candor.js'
import {
  assertHolds,
  attach,
  command,
  errorsCounted,
  KIB,
  lastFirst,
  logged,
  MIB,
  refused,
  type Scope,
  serve,
  stamped,
} from '../support/faults.js'
import { type DiskType, type LoopDisk, mountLoopDisk, mountMemory, run, sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'

const NEEDS = ['mkfs.ext4', 'mkfs.xfs', 'mkfs.btrfs', 'xfs_growfs', 'losetup', 'setpriv']
const SIZE_MIB: Readonly<Record<DiskType, number>> = { ext4: 128, xfs: 320, btrfs: 320, vfat: 64 }
/** What an ordinary run of writes may take besides its data, for the file system's own tables. */
const TABLES_BYTES = 4 * MIB
/** Above the reserve at the start, on every disk. */
const ABOVE_MIB = 32
const REFUSED = 'candor_writes_refused_by_reserve_total{export="disk"}'

interface Reserved {
  readonly disk: LoopDisk
  readonly image: string
  readonly reserve: number
}

/** A sparse image on a disk of its own, and a reserve that leaves it 32 MiB. */
function reserved(scope: Scope, type: DiskType): Reserved {
  const disk = mountLoopDisk(scope, { type, sizeMiB: SIZE_MIB[type] })
  const image = sparseFile(join(disk.folder, 'disk.img'), 1024 * MIB)
  disk.settle()
  return { disk, image, reserve: disk.freeBytes() - ABOVE_MIB * MIB }
}

/** Writes pieces from `start` on until one is refused; returns where that was. */
async function fill(client: Client, start: number, piece: number, flags = 0): Promise<number> {
  for (let at = start; ; at += piece) {
    const error = await client.write(at, stamped(at, piece), flags).then(
      () => undefined,
      (reason: unknown) => reason,
    )
    if (error === undefined) continue
    await refused(Promise.reject(error), NBD_ENOSPC)
    return at
  }
}

for (const type of ['ext4', 'xfs', 'btrfs'] as const) {
  test(`on ${type} new space ends at the reserve, and overwrites, TRIM and punching go on`, {
    skip: needsRoot(...NEEDS),
  }, async (t) => {
    const scope = lastFirst(t)
    const { disk, image, reserve } = reserved(scope, type)
    const state = temporaryFolder()
    scope.after(state.remove)
    const words = [`disk=${image}`, '--reserve', String(reserve), '--state-dir', state.path]
    const candor = await serve(scope, words)
    const client = await attach(candor)
    const most = await fill(client, 0, 256 * KIB)
    await client.flush()
    // Written through at once: what waits for write-back keeps space for tables that it will not need.
    const end = await fill(client, most, 4 * KIB, NBD_CMD_FLAG_FUA)
    // One byte beyond what is allocated is one block too many.
    await refused(client.write(end - 4096, stamped(end - 4096, 4097)), NBD_ENOSPC)
    await client.write(end - 4095, stamped(0, 4095))
    assert.ok(end <= ABOVE_MIB * MIB && end > ABOVE_MIB * MIB - TABLES_BYTES, `${end} bytes were admitted`)
    await client.flush()
    disk.settle()
    assert.ok(disk.freeBytes() >= reserve - TABLES_BYTES, `${reserve - disk.freeBytes()} bytes of the reserve are gone`)

    await client.write(0, stamped(0, MIB, 1))
    await client.write(MIB, stamped(MIB, MIB, 1), NBD_CMD_FLAG_FUA)
    await refused(client.write(end + MIB, stamped(0, MIB), NBD_CMD_FLAG_FUA), NBD_ENOSPC)
    await refused(client.writeZeroes(end + MIB, 512 * MIB, NBD_CMD_FLAG_NO_HOLE), NBD_ENOSPC)
    await client.writeZeroes(end + MIB, 512 * MIB)
    // All that was written once and not again: btrfs gives an extent back when nothing of it is in use.
    await client.trim(2 * MIB, ABOVE_MIB * MIB)
    await client.flush()
    disk.settle()
    await client.write(2 * MIB, stamped(2 * MIB, 4 * MIB))
    await assertHolds(client, 0, 2 * MIB, 1)
    await assertHolds(client, 2 * MIB, 4 * MIB)

    assert.equal((await candor.metrics()).get(REFUSED), 5)
    assert.equal(await errorsCounted(candor, { export: 'disk', command: 'write', errno: 'ENOSPC' }), 0)
    assert.ok(logged(candor, /^write refused on export disk: it would take space from the reserve$/).length === 1)
    assert.equal((await candor.stop()).code, 0)
    const ledger = await command(['errors', 'disk', '--json', '--state-dir', state.path])
    const entries = JSON.parse(ledger.stdout) as { errno: string; count: number }[]
    assert.deepEqual([...new Set(entries.map(({ errno }) => errno))], ['reserve'])
    assert.equal(
      entries.reduce((sum, { count }) => sum + count, 0),
      5,
    )
  })
}

for (const type of ['ext4', 'xfs', 'btrfs'] as const) {
  test(`on ${type} an image whose space was reserved by fallocate never refuses, however large the reserve`, {
    skip: needsRoot(...NEEDS, 'fallocate'),
  }, async (t) => {
    const scope = lastFirst(t)
    const disk = mountLoopDisk(scope, { type, sizeMiB: SIZE_MIB[type] })
    const image = sparseFile(join(disk.folder, 'disk.img'), 64 * MIB)
    run('fallocate', '--length', String(32 * MIB), image)
    const candor = await serve(scope, [`disk=${image}`, '--reserve', '1T'])
    const client = await attach(candor)
    await client.write(0, stamped(0, 16 * MIB))
    await client.writeZeroes(16 * MIB, 8 * MIB, NBD_CMD_FLAG_NO_HOLE)
    await client.write(24 * MIB, stamped(24 * MIB, 8 * MIB), NBD_CMD_FLAG_FUA)
    await refused(client.write(32 * MIB - 1, stamped(0, 2)), NBD_ENOSPC)
    await client.flush()
    await assertHolds(client, 0, 16 * MIB)
    await assertHolds(client, 24 * MIB, 8 * MIB)
    assert.equal((await candor.stop()).code, 0)
  })
}

for (const type of ['xfs', 'btrfs'] as const) {
  test(`on ${type} overwriting what a copy shares takes space; when the copy is gone it takes none`, {
    skip: needsRoot(...NEEDS, 'filefrag'),
    timeout: 60_000,
  }, async (t) => {
    const scope = lastFirst(t)
    const disk = mountLoopDisk(scope, { type, sizeMiB: SIZE_MIB[type] })
    const image = join(disk.folder, 'disk.img')
    writeFileSync(image, stamped(0, 16 * MIB))
    const copy = join(disk.folder, 'copy')
    run('cp', '--reflink=always', image, copy)
    disk.settle()
    const candor = await serve(scope, [`disk=${image}`, '--reserve', '1T'])
    const client = await attach(candor)
    await refused(client.write(MIB, stamped(MIB, MIB, 1)), NBD_ENOSPC)
    await refused(client.writeZeroes(MIB, MIB, NBD_CMD_FLAG_NO_HOLE), NBD_ENOSPC)
    await client.trim(8 * MIB, MIB)
    rmSync(copy)
    // XFS frees what a removed file held in its own time.
    while (run('filefrag', '-v', image).includes('shared')) disk.settle()
    await client.write(MIB, stamped(MIB, MIB, 1))
    await client.flush()
    await assertHolds(client, 0, MIB)
    await assertHolds(client, MIB, MIB, 1)
    await assertHolds(client, 2 * MIB, 6 * MIB)
    assert.equal((await candor.stop()).code, 0)
  })
}

for (const type of ['ext4', 'xfs', 'btrfs'] as const) {
  test(`on ${type} many writes in flight on two exports are not admitted on the same space`, {
    skip: needsRoot(...NEEDS),
  }, async (t) => {
    const scope = lastFirst(t)
    const { disk, image, reserve } = reserved(scope, type)
    const other = sparseFile(join(disk.folder, 'other.img'), 1024 * MIB)
    const candor = await serve(scope, [`disk=${image}`, `other=${other}`, '--reserve', String(reserve)])
    const clients = await Promise.all(candor.uris.flatMap((uri) => [attach(uri), attach(uri)]))
    const admitted = await Promise.all(
      clients.flatMap((client, number) =>
        Array.from({ length: 32 }, async (_, index) => {
          const offset = (index * clients.length + number) * MIB
          // Some wait in the pool, some are done in their turn.
          const flags = index % 2 === 0 ? NBD_CMD_FLAG_FUA : 0
          return client.write(offset, stamped(offset, MIB), flags).then(
            () => 1,
            (error) => refused(Promise.reject(error), NBD_ENOSPC).then(() => 0),
          )
        }),
      ),
    )
    const bytes = admitted.reduce((sum: number, one) => sum + one, 0) * MIB
    assert.ok(bytes <= ABOVE_MIB * MIB && bytes >= ABOVE_MIB * MIB - 2 * TABLES_BYTES, `${bytes} bytes were admitted`)
    for (const client of clients) await client.flush()
    disk.settle()
    assert.ok(disk.freeBytes() >= reserve - TABLES_BYTES, `${reserve - disk.freeBytes()} bytes of the reserve are gone`)
  })
}

test("a reserve is one export's own where it names it, and a word that is none is refused in a sentence", {
  skip: needsRoot(...NEEDS),
}, async (t) => {
  const scope = lastFirst(t)
  const disk = mountLoopDisk(scope, { type: 'ext4', sizeMiB: 64 })
  const images = ['a', 'b', 'c'].map((name) => `${name}=${sparseFile(join(disk.folder, name), 16 * MIB)}`)
  const candor = await serve(scope, [...images, '--reserve', '1T', '--reserve', 'b=0', '--reserve', 'c=1M'])
  const [a, b, c] = await Promise.all(candor.uris.map((uri) => attach(uri)))
  assert.ok(a && b && c)
  await refused(a.write(0, stamped(0, MIB)), NBD_ENOSPC)
  await b.write(0, stamped(0, MIB))
  await c.write(0, stamped(0, MIB))
  const metrics = await candor.metrics()
  const reserves = ['a', 'b', 'c'].map((name) => metrics.get(`candor_export_reserve_bytes{export="${name}"}`))
  assert.deepEqual(reserves, [2 ** 40, 0, MIB])
  for (const [word, says] of [
    ['much', "--reserve is 'much', which is no size: write a number of bytes, or 64K, 10M, 1G, 2T"],
    ['d=1G', "--reserve is 'd=1G', which names no export: write SIZE or EXPORT=SIZE"],
    ['a=lots', "--reserve is 'lots', which is no size: write a number of bytes, or 64K, 10M, 1G, 2T"],
  ] as const) {
    const end = await command(['serve', images[0] ?? '', '--reserve', word])
    assert.deepEqual([end.code, end.stderr], [1, `candor: ${says}\n`])
  }
})

test('where nobody can say what is free, a reserve has no effect, and the log says so', {
  skip: needsRoot(...NEEDS),
}, async (t) => {
  const scope = lastFirst(t)
  const image = join(mountMemory(scope, 'ramfs').folder, 'disk.img')
  const candor = await serve(scope, [`disk=${image}`, '--create', '4M', '--reserve', '1T'])
  await (await attach(candor)).write(0, stamped(0, MIB))
  assert.equal(logged(candor, /^the reserve has no effect: nobody can say what is free/).length, 1)
  assert.equal([...(await candor.metrics()).keys()].filter((name) => name.startsWith('candor_backing_')).length, 0)
})
