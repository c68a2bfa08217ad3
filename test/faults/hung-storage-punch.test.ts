// A punch over very many extents, which the kernel needs seconds for, and holds the inode's lock all the while. Law: it
// is nobody else's trouble, neither another export's nor that of the writes beside it.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { attach, lastFirst, MIB, serve, stamped } from '../support/faults.js'
import { allocatedBytes, manyExtents, mountLoopDisk, sparseFile } from '../support/loop-disk.js'
import { raw, request, writeRequest } from '../support/raw-bytes.js'
import { RawClient } from '../support/raw-client.js'
import { needsRoot } from '../support/requirements.js'

const EXTENTS = 200_000
const EXTENT_BYTES = 4096

test('a punch over 200,000 extents keeps waiting neither another export nor the writes of its own', {
  skip: needsRoot('mkfs.ext4', 'losetup', 'setpriv', '/usr/bin/python3'),
}, async (t) => {
  const scope = lastFirst(t)
  const [disk, otherDisk] = [
    mountLoopDisk(scope, { type: 'ext4', sizeMiB: 2048 }),
    mountLoopDisk(scope, { type: 'ext4', sizeMiB: 64 }),
  ]
  const span = 2 * EXTENTS * EXTENT_BYTES
  const image = sparseFile(join(disk.folder, 'disk.img'), span + 16 * MIB)
  manyExtents(image, EXTENTS, EXTENT_BYTES)
  const other = sparseFile(join(otherDisk.folder, 'disk.img'), 32 * MIB)
  const socket = join(otherDisk.folder, 'nbd')
  const listen = ['--listen', 'tcp:127.0.0.1:0', '--listen', `unix:${socket}`]
  const candor = await serve(scope, [`disk=${image}`, `other=${other}`, ...listen])
  const puncher = await attach(candor)
  const neighbour = await attach(candor.uris.find((uri) => uri.includes('/other')) ?? '')
  await puncher.write(span, stamped(span, 16 * MIB))
  const allocated = allocatedBytes(image)
  assert.ok(allocated >= EXTENTS * EXTENT_BYTES)

  let pending = true
  const punch = puncher.trim(0, span).finally(() => {
    pending = false
  })
  for (let index = 0; index < 200; index++) {
    await neighbour.write(index * 4096, stamped(index * 4096, 4096))
    await neighbour.read(index * 4096, 4096)
  }
  assert.ok(pending, 'the other export had all its answers while the punch was under way')
  // What is tried inline is answered in the order in which it came; what the inode's lock may hold, is not.
  const writer = await RawClient.enter(socket, 'simple')
  for (let round = 0; round < 10; round++) {
    const write = writeRequest('simple', 1n, span + round * 4096, stamped(span + round * 4096, 4096, 1))
    await writer.send(raw(write, request('simple', { type: 0, cookie: 2n, offset: span + 8 * MIB, length: 4096 })))
    const reply = () => writer.reply((cookie) => (cookie === 2n ? 4096 : 0))
    const replies = [await reply(), await reply()]
    assert.deepEqual(
      replies.map((reply) => [reply?.cookie, reply?.error]),
      [
        [2n, 0],
        [1n, 0],
      ],
      'the write went to the pool',
    )
  }
  assert.ok(pending, 'writes of the same export were answered while the punch was under way')
  await punch
  writer.vanish()
  assert.ok(allocatedBytes(image) <= allocated - EXTENTS * EXTENT_BYTES)
  assert.equal((await candor.stop()).code, 0)
})
