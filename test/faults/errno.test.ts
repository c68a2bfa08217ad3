// Which error goes out for which of the host's errnos, each made by the kernel itself.
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import { NBD_CMD_FLAG_FUA, NBD_EIO, NBD_ENOSPC } from 'nbd-protocol'
import { ledgerPath, readLedger } from '../../server/state/ledger.js'
import { temporaryFolder } from '../support/candor.js'
import {
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
import { readTrace, straceInto } from '../support/faults-strace.js'
import { scratchFolder } from '../support/guest-images.js'
import { kernelKnows, mountLoopDisk, run, sparseFile } from '../support/loop-disk.js'
import { needs, needsRoot } from '../support/requirements.js'

const NAME = 'disk.img'
const counted = (command: string, errno: string) => ({ export: NAME, command, errno })

test('a write past the limit on file sizes is ENOSPC to the client and EFBIG in the metrics, also when a part landed', {
  skip: needs('prlimit', 'strace', 'setpriv'),
}, async (t) => {
  const scope = lastFirst(t)
  const folder = temporaryFolder()
  scope.after(() => folder.remove())
  const image = sparseFile(join(folder.path, NAME), 8 * MIB)
  const limit = 4 * MIB + 10 * KIB
  const trace = join(folder.path, 'trace')
  const candor = await serve(scope, [image], { wrapper: [...straceInto(trace), 'prlimit', `--fsize=${limit}`] })
  const client = await attach(candor)

  await client.write(3 * MIB, stamped(3 * MIB, MIB))
  await refused(client.write(4 * MIB, stamped(4 * MIB, 64 * KIB)), NBD_ENOSPC)
  await refused(client.write(6 * MIB, stamped(6 * MIB, 64 * KIB)), NBD_ENOSPC)
  await refused(client.write(6 * MIB, stamped(6 * MIB, 64 * KIB), NBD_CMD_FLAG_FUA), NBD_ENOSPC)
  assert.equal(await errorsCounted(candor, counted('write', 'EFBIG')), 3)
  assert.deepEqual(Buffer.from(await client.read(3 * MIB, MIB)), stamped(3 * MIB, MIB))
  await client.flush()
  assert.equal(await exportState(candor, NAME), 'ok')
  assert.equal((await candor.stop()).code, 0)

  const torn = readTrace(trace, image).filter(({ offset }) => offset >= 4 * MIB && offset < 6 * MIB)
  assert.deepEqual(
    torn.map(({ offset, landed, errno }) => [offset, landed, errno]),
    [
      [4 * MIB, 10 * KIB, undefined],
      [limit, 0, 'EFBIG'],
    ],
  )
})

test('a write past the quota is ENOSPC to the client and EDQUOT in the metrics', {
  skip: needsRoot('mkfs.btrfs', 'btrfs') || (!kernelKnows('btrfs') && 'this kernel has no btrfs'),
}, async (t) => {
  const scope = lastFirst(t)
  const { folder } = mountLoopDisk(scope, { type: 'btrfs', sizeMiB: 128 })
  const home = join(folder, 'home')
  run('btrfs', 'quota', 'enable', folder)
  run('btrfs', 'subvolume', 'create', home)
  run('btrfs', 'qgroup', 'limit', '8M', home)
  const candor = await serve(scope, [sparseFile(join(home, NAME), 32 * MIB)])
  const client = await attach(candor)

  const offsets = Array.from({ length: 32 }, (_, index) => index * MIB)
  const results = await Promise.allSettled(offsets.map((offset) => client.write(offset, stamped(offset, MIB))))
  const written = offsets.filter((_, index) => results[index]?.status === 'fulfilled')
  assert.ok(written.length >= 4 && written.length <= 8, `${written.length} MiB of a quota of 8 were written`)
  const unwritten = offsets.find((offset) => !written.includes(offset)) ?? 0
  await refused(client.write(unwritten, stamped(unwritten, MIB)), NBD_ENOSPC)
  assert.equal(await errorsCounted(candor, counted('write', 'EDQUOT')), 32 - written.length + 1)
  for (const offset of written) assert.deepEqual(Buffer.from(await client.read(offset, MIB)), stamped(offset, MIB))
  await client.flush()

  run('btrfs', 'qgroup', 'limit', 'none', home)
  await client.write(unwritten, stamped(unwritten, MIB))
  await client.flush()
  assert.equal(await exportState(candor, NAME), 'ok')
  assert.equal((await candor.stop()).code, 0)
})

test('a file system that became read-only is EIO to the client and EROFS in the metrics, and what can be read is read', {
  skip: needsRoot('mkfs.ext4'),
}, async (t) => {
  const scope = lastFirst(t)
  const disk = mountLoopDisk(scope, { type: 'ext4', sizeMiB: 64, mountOptions: 'errors=remount-ro' })
  const state = scratchFolder(scope)
  const candor = await serve(scope, [sparseFile(join(disk.folder, NAME), 32 * MIB), '--state-dir', state])
  const client = await attach(candor)
  await client.write(0, stamped(0, MIB))
  await client.flush()
  await client.write(2 * MIB, stamped(2 * MIB, MIB))

  writeFileSync(`/sys/fs/ext4/${basename(disk.device)}/trigger_fs_error`, 'a test')
  await refused(client.write(0, stamped(0, MIB, 1)), NBD_EIO)
  await refused(client.write(MIB, stamped(MIB, MIB)), NBD_EIO)
  await refused(client.trim(0, MIB), NBD_EIO)
  await refused(client.writeZeroes(0, MIB), NBD_EIO)
  assert.equal(await errorsCounted(candor, counted('write', 'EROFS')), 2)
  assert.equal(await errorsCounted(candor, counted('trim', 'EROFS')), 1)
  assert.equal(await errorsCounted(candor, counted('write_zeroes', 'EROFS')), 1)
  assert.deepEqual(Buffer.from(await client.read(0, MIB)), stamped(0, MIB))

  // Nothing was lost by refused writes alone; it is the sync that ends the trust.
  assert.equal(await exportState(candor, NAME), 'ok')
  await refused(client.flush(), NBD_EIO)
  await refused(client.flush(), NBD_EIO)
  assert.equal(await exportState(candor, NAME), 'degraded')
  const { code, stderr } = await candor.stop()
  assert.equal(code, 2, 'a final sync that fails is told by the exit code')
  assert.match(stderr, /the final sync of export disk\.img failed: EROFS/)
  const { entries } = readLedger(ledgerPath(state, NAME))
  const unsynced = entries.filter(({ command }) => command === 'final_sync')
  const told = unsynced.map(({ client, offset, length, errno }) => ({ client, offset, length, errno }))
  // Refused writes count as well: what they left of themselves is nobody's knowledge.
  assert.deepEqual(told, [{ client: 'candor', offset: 0, length: 3 * MIB, errno: 'EROFS' }], 'what may be lost')
})

test('a file system that shut itself down is EIO for everything, and each command says so once in the log', {
  skip: needsRoot('mkfs.xfs', 'xfs_io'),
}, async (t) => {
  const scope = lastFirst(t)
  const disk = mountLoopDisk(scope, { type: 'xfs', sizeMiB: 300 })
  const candor = await serve(scope, [sparseFile(join(disk.folder, NAME), 32 * MIB)])
  const client = await attach(candor)
  await client.write(0, stamped(0, MIB))
  await client.flush()

  run('xfs_io', '-x', '-c', 'shutdown', disk.folder)
  for (let count = 0; count < 3; count++) {
    await refused(client.write(0, stamped(0, MIB, 1)), NBD_EIO)
    await refused(client.read(0, MIB), NBD_EIO)
    await refused(client.trim(0, MIB), NBD_EIO)
    await refused(client.flush(), NBD_EIO)
    await refused(client.write(0, stamped(0, MIB, 1), NBD_CMD_FLAG_FUA), NBD_EIO)
  }
  assert.equal(await errorsCounted(candor, counted('write', 'EIO')), 6)
  for (const command of ['read', 'trim', 'flush']) {
    assert.equal(await errorsCounted(candor, counted(command, 'EIO')), 3)
    assert.equal(logged(candor, new RegExp(`^${command} failed on export disk.img: EIO$`)).length, 1)
  }
  assert.equal(await exportState(candor, NAME), 'degraded')
  assert.equal(logged(candor, /is degraded/).length, 1)
  assert.equal((await candor.stop()).code, 2)
})
