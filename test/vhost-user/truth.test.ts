// The rules of truth.md for a guest: what is durable, what may be lost, what waits for space, and in which order writes land.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  VIRTIO_BLK_S_IOERR as IOERR,
  VIRTIO_BLK_S_OK as OK,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
} from 'vhost-user-protocol'
import { attach, lastFirst, MIB } from '../support/faults.js'
import { needsRoot } from '../support/requirements.js'
import { cacheOf, setCache } from '../support/vhost-user-cache.js'
import {
  heldBy,
  inFlightOf,
  NOTHING,
  newGuest,
  patternOf,
  readBack,
  serveGuests,
  serveOnFullHost,
  until,
} from '../support/vhost-user-served.js'

const skip = needsRoot('losetup', 'mkfs.xfs', 'fallocate')

test('a driver that knows no FLUSH, or turned the cache off, is told of success when the write is durable', async (t) => {
  const scope = lastFirst(t)
  // The sync half of a durable write fails, a plain one knows of no sync.
  const { candor, socket } = await serveGuests(scope, '--inject', 'flush:EIO')
  const cached = await newGuest(scope, socket)
  assert.equal((await cached.do(VIRTIO_BLK_T_OUT, 0, patternOf(512, 1), 0)).status, OK)
  assert.equal(await cacheOf(cached), 1)
  await setCache(cached, false)
  assert.equal(await cacheOf(cached), 0)
  assert.equal((await cached.do(VIRTIO_BLK_T_OUT, 0, patternOf(512, 1), 0)).status, OK)
  assert.equal((await cached.do(VIRTIO_BLK_T_FLUSH, 0, NOTHING, 0)).status, IOERR)
  // The export is degraded now: nothing can be promised, and a driver that takes success for a promise gets none.
  assert.equal((await cached.do(VIRTIO_BLK_T_OUT, 0, patternOf(512, 1), 0)).status, IOERR)
  await setCache(cached, true)
  assert.equal((await cached.do(VIRTIO_BLK_T_OUT, 0, patternOf(512, 1), 0)).status, OK)
  cached.close()
  await until(async () => ((await candor.metrics()).get('candor_connections') ?? 0) === 0)
  const unaware = await newGuest(scope, socket, { features: 0n })
  assert.equal((await unaware.do(VIRTIO_BLK_T_OUT, 0, patternOf(512, 1), 0)).status, IOERR)
})

test('bytes that a failed sync may have lost are IOERR for the guest until it writes them again', async (t) => {
  const scope = lastFirst(t)
  const { candor, socket } = await serveGuests(scope, '--inject', 'flush:EIO,count=1')
  const front = await newGuest(scope, socket)
  assert.equal((await front.do(VIRTIO_BLK_T_OUT, 80, patternOf(4096, 1), 0)).status, OK)
  assert.equal((await front.do(VIRTIO_BLK_T_FLUSH, 0, NOTHING, 0)).status, IOERR)
  assert.equal((await front.do(VIRTIO_BLK_T_IN, 80, NOTHING, 512)).status, IOERR)
  assert.equal((await front.do(VIRTIO_BLK_T_IN, 160, NOTHING, 512)).status, OK)
  assert.equal((await front.do(VIRTIO_BLK_T_OUT, 80, patternOf(4096, 2), 0)).status, OK)
  assert.ok((await readBack(front, 80, 4096)).equals(patternOf(4096, 2)))
  assert.equal((await front.do(VIRTIO_BLK_T_FLUSH, 0, NOTHING, 0)).status, IOERR)
  assert.equal((await candor.metrics()).get('candor_export_state{export="disk",state="degraded"}'), 1)
})

test('overlapping writes of a guest and of an NBD client come to lie in the order in which they arrived', async (t) => {
  const scope = lastFirst(t)
  const { candor, socket } = await serveGuests(scope, '--inject', 'write:@0-1M,delay=400ms,count=1')
  const front = await newGuest(scope, socket)
  const client = await attach(candor)
  const id = front.submit(VIRTIO_BLK_T_OUT, 0, patternOf(8192, 1), 0)
  await until(async () => (await inFlightOf(candor)) === 1)
  await client.write(4096, patternOf(8192, 2))
  assert.ok(front.isAnswered(id), 'the newer write overtook the older one')
  assert.ok((await readBack(front, 8, 8192)).equals(patternOf(8192, 2)))
  assert.ok(Buffer.from(await client.read(0, 4096)).equals(patternOf(8192, 1).subarray(0, 4096)))
  await client.disconnect()
})

test('a full host is IOERR for the guest, or held until there is space, and reads go on beside it', {
  skip,
}, async (t) => {
  const scope = lastFirst(t)
  const { enlarge, candor, socket } = await serveOnFullHost(scope, 'hold=5m')
  const front = await newGuest(scope, socket)
  const data = patternOf(8 * MIB, 5)
  const id = front.submit(VIRTIO_BLK_T_OUT, 0, data, 0, { pieces: 64, indirect: true })
  await until(async () => (await heldBy(candor)) === 1)
  assert.equal((await front.do(VIRTIO_BLK_T_IN, 100_000, NOTHING, 4096)).status, OK)
  assert.ok(!front.isAnswered(id))
  enlarge()
  assert.equal((await front.answer(id)).status, OK)
  assert.ok((await readBack(front, 0, data.length)).equals(data))
})
