// The rules of truth.md for a guest: what is durable, what may be lost, what waits for space, and in which order writes land.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import {
  VIRTIO_BLK_S_IOERR as IOERR,
  VIRTIO_BLK_S_OK as OK,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
} from 'vhost-user-protocol'
import { attach, command, lastFirst, MIB } from '../support/faults.js'
import { needsRoot } from '../support/requirements.js'
import { cacheOf, setCache, turnCache } from '../support/vhost-user-cache.js'
import { attachGuest, CACHED } from '../support/vhost-user-guest.js'
import { GuestMachine } from '../support/vhost-user-machine.js'
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

/** From here on these faults are met. */
const inject = (stateDirectory: string, rule: string) =>
  command(['ctl', 'inject', 'disk', rule, '--state-dir', stateDirectory])

const skip = needsRoot('losetup', 'mkfs.xfs', 'fallocate')

test('a driver that knows no FLUSH, or turned the cache off, is told of success when the write is durable', async (t) => {
  const scope = lastFirst(t)
  const { candor, socket, stateDirectory } = await serveGuests(scope)
  const cached = await newGuest(scope, socket)
  assert.equal((await cached.do(VIRTIO_BLK_T_OUT, 0, patternOf(512, 1), 0)).status, OK)
  assert.equal(await cacheOf(cached), 1)
  await setCache(cached, false)
  assert.equal(await cacheOf(cached), 0)
  assert.equal((await cached.do(VIRTIO_BLK_T_OUT, 0, patternOf(512, 1), 0)).status, OK)
  assert.equal((await inject(stateDirectory, 'flush:EIO')).code, 0)
  assert.equal((await cached.do(VIRTIO_BLK_T_FLUSH, 0, NOTHING, 0)).status, IOERR)
  // The export is degraded now: nothing can be promised, and a driver that takes success for a promise gets none.
  assert.equal((await cached.do(VIRTIO_BLK_T_OUT, 0, patternOf(512, 1), 0)).status, IOERR)
  await setCache(cached, true)
  assert.equal((await cached.do(VIRTIO_BLK_T_OUT, 0, patternOf(512, 1), 0)).status, OK)
  cached.close()
  await until(async () => ((await candor.metrics()).get('candor_connections') ?? 0) === 0)
  const unaware = await newGuest(scope, socket, { features: 0n })
  assert.equal((await unaware.do(VIRTIO_BLK_T_OUT, 0, patternOf(512, 1), 0)).status, IOERR)
  unaware.close()
  await until(async () => ((await candor.metrics()).get('candor_connections') ?? 0) === 0)
  // It may have turned the cache off before it came here, and keeps no log that would say so.
  const unknown = await newGuest(scope, socket, { log: false })
  assert.equal((await unknown.do(VIRTIO_BLK_T_OUT, 0, patternOf(512, 1), 0)).status, IOERR)
  await setCache(unknown, true)
  assert.equal((await unknown.do(VIRTIO_BLK_T_OUT, 0, patternOf(512, 1), 0)).status, OK)
})

test('a write that began before the cache was turned off, and ends after it, is durable when it is answered', {
  skip,
}, async (t) => {
  const scope = lastFirst(t)
  const { enlarge, candor, socket, stateDirectory } = await serveOnFullHost(scope, 'hold=5m')
  const front = await newGuest(scope, socket)
  const id = front.submit(VIRTIO_BLK_T_OUT, 0, patternOf(8 * MIB, 5), 0, { pieces: 64, indirect: true })
  await until(async () => (await heldBy(candor)) === 1)
  await setCache(front, false)
  assert.equal((await inject(stateDirectory, 'flush:EIO,count=1')).code, 0)
  enlarge()
  assert.equal((await front.answer(id)).status, IOERR)
})

test('a cache is not said to be off when what was written before cannot be made durable, which the log tells', async (t) => {
  const scope = lastFirst(t)
  const { candor, socket } = await serveGuests(scope, '--inject', 'flush:EIO,count=1')
  const front = await newGuest(scope, socket)
  assert.equal((await front.do(VIRTIO_BLK_T_OUT, 0, patternOf(512, 1), 0)).status, OK)
  assert.equal(await turnCache(front, false), false)
  assert.equal(await turnCache(front, false), false, 'asked again it is not said either')
  // It is off all the same, for whoever makes nothing of the answer.
  assert.equal((await front.do(VIRTIO_BLK_T_OUT, 0, patternOf(512, 1), 0)).status, IOERR)
  const { stderr } = await candor.stop()
  assert.match(stderr, /SET_CONFIG: what the write cache held cannot be made durable: EIO/)
})

test('a front-end that comes again with a guest that was reset is not taken for one that says the cache is on', async (t) => {
  const scope = lastFirst(t)
  const { candor, socket } = await serveGuests(scope, '--inject', 'flush:EIO')
  const before = await newGuest(scope, socket)
  // From here on nothing can be promised: a durable write is refused, one that is not succeeds.
  assert.equal((await before.do(VIRTIO_BLK_T_FLUSH, 0, NOTHING, 0)).status, IOERR)
  assert.equal(await turnCache(before, false), false)
  before.close()
  await until(async () => ((await candor.metrics()).get('candor_connections') ?? 0) === 0)
  // The reset freed the log, and the front-end's own copy of the configuration still says to the driver that it is off.
  const machine = new GuestMachine()
  scope.after(() => machine.close())
  const after = await attachGuest(socket, machine, CACHED, { asks: false })
  scope.after(() => after.close())
  assert.equal((await after.do(VIRTIO_BLK_T_OUT, 0, patternOf(512, 1), 0)).status, IOERR)
  assert.equal(await cacheOf(after), 0)
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

test('while an image is let go of, what a guest asks waits, and is answered when it is taken up again', async (t) => {
  const scope = lastFirst(t)
  const { candor, socket, stateDirectory } = await serveGuests(scope)
  const front = await newGuest(scope, socket)
  assert.equal((await front.do(VIRTIO_BLK_T_OUT, 0, patternOf(4096, 1), 0)).status, OK)
  const told = (word: string) => command(['ctl', word, 'disk', '--state-dir', stateDirectory])
  assert.equal((await told('release')).code, 0)
  const asked = [
    front.submit(VIRTIO_BLK_T_OUT, 8, patternOf(4096, 2), 0),
    front.submit(VIRTIO_BLK_T_IN, 0, NOTHING, 4096),
    front.submit(VIRTIO_BLK_T_FLUSH, 0, NOTHING, 0),
  ]
  await until(async () => (await inFlightOf(candor)) >= 2)
  assert.ok(!asked.slice(0, 2).some((id) => front.isAnswered(id)))
  const resumed = await told('resume')
  assert.equal(resumed.code, 0, resumed.stderr)
  for (const id of asked) assert.equal((await front.answer(id)).status, OK)
  assert.ok((await readBack(front, 0, 8192)).equals(Buffer.concat([patternOf(4096, 1), patternOf(4096, 2)])))
})

test('a write that was held for a guest who has gone is not made, and stands in the ledger', { skip }, async (t) => {
  const scope = lastFirst(t)
  const { enlarge, candor, socket, image, stateDirectory } = await serveOnFullHost(scope, 'hold=5m')
  const front = await newGuest(scope, socket)
  front.submit(VIRTIO_BLK_T_OUT, 0, patternOf(8 * MIB, 6), 0, { pieces: 64, indirect: true })
  await until(async () => (await heldBy(candor)) === 1)
  front.close()
  await until(async () => (await inFlightOf(candor)) === 0)
  enlarge()
  const { code, stderr } = await candor.stop()
  assert.equal(code, 0, stderr)
  // What an earlier attempt had space for may have landed; the rest never did.
  assert.ok(
    readFileSync(image)
      .subarray(7 * MIB, 8 * MIB)
      .every((byte) => byte === 0),
  )
  const { stdout } = await command(['errors', 'disk', '--json', '--state-dir', stateDirectory])
  const entries = JSON.parse(stdout) as { client: string; errno: string; offset: number; length: number }[]
  const dropped = entries.find(({ errno }) => errno === 'dropped')
  assert.deepEqual([dropped?.client, dropped?.offset, dropped?.length], ['vhost-user', 0, 8 * MIB])
})
