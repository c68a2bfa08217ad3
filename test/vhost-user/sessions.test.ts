// What a guest finds again after its server stopped or was killed, who may be attached, and how a session is ended.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  VIRTIO_BLK_S_IOERR as IOERR,
  VIRTIO_BLK_S_OK as OK,
  VHOST_USER_RESET_DEVICE,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
} from 'vhost-user-protocol'
import { command, lastFirst, MIB } from '../support/faults.js'
import { needsRoot } from '../support/requirements.js'
import { cacheOf, setCache } from '../support/vhost-user-cache.js'
import { attachGuest, CACHED, FrontEnd } from '../support/vhost-user-guest.js'
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

const skip = needsRoot('losetup', 'mkfs.xfs', 'fallocate')

for (const packed of [false, true]) {
  test(`a write that a killed server had not answered is done by the next one, ${packed ? 'packed' : 'split'}`, async (t) => {
    const scope = lastFirst(t)
    const { candor, socket, again } = await serveGuests(scope, '--inject', 'write:@1M-2M,delay=30s')
    const machine = new GuestMachine(packed)
    scope.after(() => machine.close())
    const before = await attachGuest(socket, machine, CACHED)
    const first = patternOf(4096, 1)
    assert.equal((await before.do(VIRTIO_BLK_T_OUT, 0, first, 0)).status, OK)
    const late = patternOf(64 << 10, 2)
    const id = before.submit(VIRTIO_BLK_T_OUT, 2048, late, 0, { pieces: 4 })
    await until(async () => (await inFlightOf(candor)) === 1)
    const base = packed ? 0x8000_8000 : 0
    candor.kill('SIGKILL')
    await candor.ended
    await again()
    const after = await attachGuest(socket, machine, CACHED, { base })
    scope.after(() => after.close())
    after.inherit(before)
    assert.equal((await after.answer(id)).status, OK)
    assert.ok((await readBack(after, 0, 4096)).equals(first))
    assert.ok((await readBack(after, 2048, late.length)).equals(late))
  })
}

test('a write cache that was turned off stays off over a restart of the server', async (t) => {
  const scope = lastFirst(t)
  const { candor, socket, again } = await serveGuests(scope)
  const machine = new GuestMachine()
  scope.after(() => machine.close())
  const before = await attachGuest(socket, machine, CACHED)
  await setCache(before, false)
  const base = await before.stopRing()
  await candor.stop()
  await again()
  const after = await attachGuest(socket, machine, CACHED, { base })
  scope.after(() => after.close())
  assert.equal(await cacheOf(after), 0)
  await setCache(after, true)
  assert.equal(await cacheOf(after), 1)
})

test('what is held when a ring stops, or the server does, is left to the in-flight log and done by the next server', {
  skip,
}, async (t) => {
  const scope = lastFirst(t)
  const { enlarge, candor, socket, again } = await serveOnFullHost(scope, 'hold=5m')
  const machine = new GuestMachine()
  scope.after(() => machine.close())
  const before = await attachGuest(socket, machine, CACHED)
  const data = patternOf(8 * MIB, 6)
  const id = before.submit(VIRTIO_BLK_T_OUT, 0, data, 0, { pieces: 64, indirect: true })
  await until(async () => (await heldBy(candor)) === 1)
  const base = await before.stopRing()
  assert.equal(await heldBy(candor), 0)
  await before.startRing(base)
  await until(async () => (await heldBy(candor)) === 1)
  const stopped = await candor.stop()
  assert.equal(stopped.code, 0, stopped.stderr)
  await before.untilEnded()
  assert.ok(!before.isAnswered(id), 'a stopping server told the guest of an error')
  enlarge()
  await again()
  const after = await attachGuest(socket, machine, CACHED, { base })
  scope.after(() => after.close())
  after.inherit(before)
  assert.equal((await after.answer(id)).status, OK)
  assert.ok((await readBack(after, 0, data.length)).equals(data))
})

test('a reset of the device leaves nothing in the in-flight log', async (t) => {
  const scope = lastFirst(t)
  const { candor, socket, stateDirectory } = await serveGuests(scope)
  const told = (word: string) => command(['ctl', word, 'disk', '--state-dir', stateDirectory])
  const front = await newGuest(scope, socket)
  assert.equal((await told('release')).code, 0)
  front.submit(VIRTIO_BLK_T_OUT, 0, patternOf(4096, 1), 0)
  await until(async () => (await inFlightOf(candor)) === 1)
  await front.tell(VHOST_USER_RESET_DEVICE)
  assert.equal((await told('resume')).code, 0)
  front.machine.beginAnew()
  await front.startRing(0)
  const data = patternOf(512, 2)
  assert.equal((await front.do(VIRTIO_BLK_T_OUT, 8, data, 0)).status, OK)
  assert.ok((await readBack(front, 8, 512)).equals(data))
  assert.ok((await readBack(front, 0, 512)).equals(Buffer.alloc(512)), 'what the reset dropped was done')
})

test('without an in-flight log a stop answers what is held with IOERR', { skip }, async (t) => {
  const scope = lastFirst(t)
  const { candor, socket } = await serveOnFullHost(scope, 'hold=5m')
  const front = await newGuest(scope, socket, { log: false })
  const id = front.submit(VIRTIO_BLK_T_OUT, 0, patternOf(8 * MIB, 6), 0, { pieces: 64, indirect: true })
  await until(async () => (await heldBy(candor)) === 1)
  await front.stopRing()
  assert.equal((await front.answer(id)).status, IOERR)
})

test('one guest at a time may write an export; it may leave and another come; others may read one', async (t) => {
  const scope = lastFirst(t)
  const { candor, socket } = await serveGuests(scope)
  const first = await newGuest(scope, socket)
  const machine = new GuestMachine()
  scope.after(() => machine.close())
  const second = await FrontEnd.connect(socket, machine)
  await second.untilEnded()
  const refused = 'candor_handshake_failures_total{reason="export-refused"}'
  await until(async () => (await candor.metrics()).get(refused) === 1)
  assert.equal((await first.do(VIRTIO_BLK_T_OUT, 0, patternOf(512, 1), 0)).status, OK)
  first.close()
  await newGuest(scope, socket)
  const readers = await serveGuests(scope, '--read-only')
  for (const _ of [1, 2]) {
    const reader = await newGuest(scope, readers.socket)
    assert.equal((await reader.do(VIRTIO_BLK_T_IN, 0, NOTHING, 512)).status, OK)
  }
})

test('the operator sees the guest among the sessions, and ends its session by its number', async (t) => {
  const scope = lastFirst(t)
  const { candor, socket, stateDirectory } = await serveGuests(scope)
  const front = await newGuest(scope, socket)
  const answer = (await (await fetch(`${candor.httpUrl}/api/sessions`)).json()) as {
    sessions: { id: number; peer: string; export: string }[]
  }
  const [session, ...others] = answer.sessions
  assert.deepEqual([session?.peer, session?.export, others.length], ['vhost-user', 'disk', 0])
  const ended = await command(['ctl', 'disconnect', String(session?.id), '--state-dir', stateDirectory])
  assert.equal(ended.code, 0, ended.stderr)
  await front.untilEnded()
})
