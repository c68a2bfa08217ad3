// Large frames that are put together whole: what they hold counts in the budget for payload from their header to their end.
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_READ } from 'nbd-protocol'
import { REQUESTS_AT } from '../../server/observe/counters.js'
import {
  begun,
  contents,
  type Disk,
  disk,
  KIB,
  MIB,
  noReadData,
  pattern,
  rawClient,
  trickle,
  until,
} from '../support/large-writes.js'
import { request, writeRequest } from '../support/raw-bytes.js'
import { RawClient } from '../support/raw-client.js'

const BUDGET = 8 * MIB
const LENGTH = 6 * MIB

/** A disk whose WRITEs are kept whole. */
function keeping(payloadTimeoutMs = 60_000): Promise<Disk> {
  return disk({ payloadBytesMax: BUDGET, payloadTimeoutMs }, { onSpace: { kind: 'hold', timeoutMs: 60_000 } })
}

/** A READ that has no room; it is the only one that was not counted when this returns. */
async function waitingRead(served: Disk): Promise<{ readonly data: Promise<Uint8Array> }> {
  const client = await served.server.client()
  const small = await served.server.client()
  after(() => Promise.all([client.disconnect(), small.disconnect()]))
  const { counters } = served.server.served
  const before = counters[REQUESTS_AT + NBD_CMD_READ] ?? 0
  const data = client.read(0, 3 * MIB)
  await small.read(0, 4 * KIB)
  assert.equal(counters[REQUESTS_AT + NBD_CMD_READ], before + 1, 'it passed, though there was no room')
  return { data }
}

describe('a frame above 1 MiB that is put together', { timeout: 60_000 }, () => {
  test('holds its bytes until it is served', async () => {
    const served = await keeping()
    const payload = pattern(LENGTH, 7)
    const { client, rest } = await begun(served, payload, 0, 100)
    const { data } = await waitingRead(served)
    await client.send(rest)
    assert.equal((await client.reply(noReadData))?.error, 0)
    assert.equal((await data).length, 3 * MIB)
    assert.ok((await contents(served, 0, LENGTH)).equals(payload))
    // All of it was given back: what takes the whole budget passes.
    const other = await served.server.client()
    assert.equal((await other.read(0, BUDGET)).length, BUDGET)
    await other.disconnect()
  })

  test('holds its bytes until its client goes', async () => {
    const served = await keeping()
    const { client } = await begun(served, pattern(LENGTH, 7), 0, 100)
    const { data } = await waitingRead(served)
    client.vanish()
    assert.equal((await data).length, 3 * MIB)
  })

  test('waits for room with its header alone, and lands whole when there is some', async () => {
    const served = await keeping()
    const first = await begun(served, pattern(LENGTH, 7), 0, 100)
    const payload = pattern(LENGTH, 9)
    const second = await rawClient(served)
    const sent = second.send(writeRequest('simple', 6n, 8 * MIB, payload))
    const small = await served.server.client()
    await small.read(0, 4 * KIB)
    await small.disconnect()
    first.client.vanish()
    await sent
    assert.equal((await second.reply(noReadData))?.error, 0)
    assert.ok((await contents(served, 8 * MIB, LENGTH)).equals(payload))
  })

  test('loses its connection at --payload-timeout when its client stops and others wait for room', async () => {
    const served = await keeping(100)
    const { client } = await begun(served, pattern(LENGTH, 7), 0, 100)
    const { data } = await waitingRead(served)
    await client.closed
    assert.equal((await data).length, 3 * MIB)
  })

  test('loses it as well when a byte comes now and then', async () => {
    const payloadTimeoutMs = 100
    const served = await keeping(payloadTimeoutMs)
    const { client, rest } = await begun(served, pattern(LENGTH, 7), 0, 2 * MIB)
    const { data } = await waitingRead(served)
    await trickle(client, rest, payloadTimeoutMs / 20)
    assert.equal((await data).length, 3 * MIB)
  })

  test('holds its bytes whatever its command', async () => {
    const served = await disk({ payloadBytesMax: BUDGET })
    const client = await RawClient.enter(served.server.path, 'extended')
    after(() => client.vanish())
    const [flags, payload] = [NBD_CMD_FLAG_PAYLOAD_LEN, new Uint8Array(LENGTH)]
    const filter = request('extended', { type: NBD_CMD_BLOCK_STATUS, flags, cookie: 1n, length: LENGTH, payload })
    await client.send(filter.subarray(0, -100))
    const { data } = await waitingRead(served)
    await client.send(filter.subarray(-100))
    assert.notEqual((await client.reply(noReadData))?.error, 0)
    assert.equal((await data).length, 3 * MIB)
  })

  test('gives its bytes back when its connection changes processes, and takes them again where it goes on', async () => {
    const served = await keeping()
    const payload = pattern(LENGTH, 7)
    const { client, rest } = await begun(served, payload, 0, 100)
    const { data } = await waitingRead(served)
    const frozen = await served.server.host.freeze(1000)
    assert.ok(frozen.kind === 'frozen')
    await served.server.host.goOn()
    await client.send(rest)
    assert.equal((await client.reply(noReadData))?.error, 0)
    assert.equal((await data).length, 3 * MIB)
    await until(() => served.server.served.order.pending === 0)
    const other = await served.server.client()
    assert.equal((await other.read(0, BUDGET)).length, BUDGET)
    await other.disconnect()
  })
})
