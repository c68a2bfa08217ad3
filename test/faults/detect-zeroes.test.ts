// Zeroes on a host that is really full: they need no space, and give some back.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { NBD_CMD_FLAG_FUA, NBD_ENOSPC } from 'nbd-protocol'
import { assertHolds, assertZero, attach, lastFirst, MIB, refused, serve, stamped } from '../support/faults.js'
import { allocatedBytes, mountLoopDisk } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'

test('on a full disk written zeroes are taken, make room, and all else is as it was', {
  skip: needsRoot('mkfs.ext4', 'losetup'),
}, async (t) => {
  const scope = lastFirst(t)
  const { folder } = mountLoopDisk(scope, { type: 'ext4', sizeMiB: 32 })
  const image = join(folder, 'disk.img')
  const candor = await serve(scope, [image, '--create', '64M', '--detect-zeroes', 'on'])
  const client = await attach(candor)
  let end = 0
  const full = async () => {
    for (; ; end += MIB) await client.write(end, stamped(end, MIB))
  }
  await refused(full(), NBD_ENOSPC)
  const before = allocatedBytes(image)
  await client.write(4 * MIB, new Uint8Array(4 * MIB))
  await client.write(50 * MIB, new Uint8Array(4 * MIB), NBD_CMD_FLAG_FUA)
  assert.ok(before - allocatedBytes(image) >= 4 * MIB)
  await client.write(end, stamped(end, MIB))
  await client.flush()
  await assertZero(client, 4 * MIB, 4 * MIB)
  await assertHolds(client, 0, 4 * MIB)
  await assertHolds(client, 8 * MIB, end - 7 * MIB)
})
