// Clients that come and go while storage hangs: what they left behind goes with them, but for what the kernel has.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { NBD_CMD_READ } from 'nbd-protocol'
import { WOULD_BLOCK } from '../../backends/index.js'
import { STORAGE_DEPTH_MAX } from '../../server/exports/storage-gate.js'
import { DROPPED_AT, IN_FLIGHT_AT } from '../../server/observe/counters.js'
import { type Disk, disk, gate, KIB, noReadData, pattern, rawClient, until } from '../support/large-writes.js'
import { request, writeRequest } from '../support/raw-bytes.js'
import { RawClient } from '../support/raw-client.js'

const CLIENTS = 12
const REQUESTS = 200

/** A disk that hangs with what it is asked. */
async function hanging(limits = {}) {
  const door = gate()
  const served = await disk(limits)
  let asked = 0
  served.plan = ({ command, now }) => {
    if (command !== 'write' && command !== 'read') return undefined
    if (now) return { outcome: WOULD_BLOCK }
    asked += 1
    return { outcome: 0, after: door.opened }
  }
  return { served, door, asked: () => asked }
}

/** Enters, sends these requests, and is gone when `come` says that they have arrived. */
async function visit(served: Disk, frames: Uint8Array[], come: () => boolean): Promise<void> {
  const client = await RawClient.enter(served.server.path, 'simple')
  void client.send(Buffer.concat(frames)).catch(() => undefined)
  await until(come)
  client.vanish()
  await until(() => served.server.server.connections === 1)
}

const writes = (length: number) =>
  Array.from({ length: REQUESTS }, (_, k) => writeRequest('simple', BigInt(k), 0, pattern(length, 2)))

test('WRITEs that wait behind one that hangs', async () => {
  const { served, door, asked } = await hanging()
  const { order, counters } = served.server.served
  const head = await rawClient(served)
  await head.send(writeRequest('simple', 1n, 0, pattern(64 * KIB, 1)))
  await until(() => order.pending === 1)
  for (let client = 0; client < CLIENTS; client++) {
    await visit(served, writes(4 * KIB), () => order.pending > REQUESTS)
    await until(() => order.pending === 1)
    assert.equal(counters[DROPPED_AT], (client + 1) * REQUESTS)
    assert.equal(order.kept, 1)
  }
  assert.equal(asked(), 1, 'nothing else has reached storage')
  door.open()
  assert.equal((await head.reply(noReadData))?.error, 0)
})

test('and of one that is not read any more, since it has as much in flight as it may', async () => {
  const most = 8
  const { served, door } = await hanging({ slowRequestsMax: most })
  const { order } = served.server.served
  const head = await rawClient(served)
  await head.send(writeRequest('simple', 1n, 0, pattern(64 * KIB, 1)))
  await until(() => order.pending === 1)
  await visit(served, writes(4 * KIB), () => order.pending === 1 + most)
  assert.equal(order.pending, 1)
  door.open()
  assert.equal((await head.reply(noReadData))?.error, 0)
})

test('while one whose client is there is not read on for being looked at', async () => {
  const { served, door } = await hanging({ slowRequestsMax: 4 })
  const client = await rawClient(served)
  const sent = client.send(Buffer.concat(writes(64 * KIB)))
  await until(() => served.server.served.order.pending === 4)
  await pause(2500)
  assert.ok(client.socket.writableLength > (REQUESTS - 40) * 64 * KIB, `${client.socket.writableLength} bytes are left`)
  door.open()
  await sent
  for (let left = REQUESTS; left > 0; left--) assert.equal((await client.reply(noReadData))?.error, 0)
})

test('READs beyond what storage is given at once', async () => {
  const { served, door, asked } = await hanging()
  const { gate: places, counters } = served.server.served
  const inFlight = () => counters[IN_FLIGHT_AT] ?? 0
  const head = await rawClient(served)
  const reads = Array.from({ length: REQUESTS }, (_, k) =>
    request('simple', { type: NBD_CMD_READ, cookie: BigInt(k), offset: k * 4096, length: 4096 }),
  )
  for (let client = 0; client < CLIENTS; client++) {
    const before = inFlight()
    await visit(served, reads, () => inFlight() === before + REQUESTS)
    const left = Math.min(STORAGE_DEPTH_MAX, (client + 1) * REQUESTS)
    await until(() => inFlight() === left)
    assert.deepEqual([places.inside, asked()], [left, left])
  }
  door.open()
  await until(() => inFlight() === 0)
  assert.deepEqual([places.inside, asked()], [0, STORAGE_DEPTH_MAX])
  assert.equal(counters[DROPPED_AT], 0, 'what would have changed nothing is not missed')
  head.vanish()
})
