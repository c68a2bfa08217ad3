// A WRITE of more than 1 MiB that does not go through at once: its client leaves or stops, there is no space, the server
// leaves, or others stand before it.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { NBD_ESHUTDOWN } from 'nbd-protocol'
import { DONE, EIO, ENOSPC, SYNC_FAILED, WOULD_BLOCK } from '../../backends/index.js'
import { DROPPED_AT, IN_FLIGHT_AT, WRITTEN_BYTES_AT } from '../../server/observe/counters.js'
import {
  begun,
  contents,
  disk,
  gate,
  KIB,
  MIB,
  noReadData,
  pattern,
  rawClient,
  trickle,
  until,
} from '../support/large-writes.js'
import { writeRequest } from '../support/raw-bytes.js'

const LENGTH = 6 * MIB

describe('a large WRITE', { timeout: 60_000 }, () => {
  test('that its client leaves in the middle of is noted, stays unflushed, and lets others through', async () => {
    const served = await disk()
    const { client } = await begun(served, pattern(LENGTH, 7), 0, 100)
    await until(() => served.writes.length >= 20)
    const other = await served.server.client()
    const fresh = other.write(0, pattern(KIB, 9))
    client.vanish()
    await fresh
    const { counters, order, durability } = served.server.served
    assert.deepEqual([counters[DROPPED_AT], counters[WRITTEN_BYTES_AT], order.pending], [1, KIB, 0])
    assert.equal(counters[IN_FLIGHT_AT], 0)
    durability.judge(EIO | SYNC_FAILED)
    assert.equal(durability.suspect.bytes, LENGTH, 'what landed of it may be lost')
    await other.disconnect()
  })

  test('that its client stops sending ends its connection at --payload-timeout, and lets others through', async () => {
    const served = await disk({ payloadTimeoutMs: 100 })
    const { client } = await begun(served, pattern(LENGTH, 7), 0, 100)
    await until(() => served.writes.length > 0)
    const other = await served.server.client()
    await other.write(0, pattern(KIB, 9))
    await client.closed
    assert.equal(served.server.served.counters[DROPPED_AT], 1)
    await other.disconnect()
  })

  test('that changes hands in the middle counts each of its bytes as written once', async () => {
    const served = await disk()
    const { client, rest } = await begun(served, pattern(LENGTH, 7), 0, MIB)
    await until(() => served.writes.length >= 16)
    const { counters } = served.server.served
    assert.equal(counters[WRITTEN_BYTES_AT], 0)
    const frozen = await served.server.host.freeze(1000)
    assert.ok(frozen.kind === 'frozen')
    assert.ok((counters[WRITTEN_BYTES_AT] ?? 0) >= 4 * MIB, 'what has landed is counted when the counters are taken')
    await served.server.host.goOn()
    await client.send(rest)
    assert.equal((await client.reply(noReadData))?.error, 0)
    assert.equal(counters[WRITTEN_BYTES_AT], LENGTH)
  })

  test('of which a byte comes now and then is ended as if none came, when others wait for it', async () => {
    const payloadTimeoutMs = 100
    const served = await disk({ payloadTimeoutMs })
    const { client, rest } = await begun(served, pattern(LENGTH, 7), 0, MIB)
    await until(() => served.writes.length > 0)
    const other = await served.server.client()
    const late = other.write(0, pattern(KIB, 9))
    await trickle(client, rest, payloadTimeoutMs / 20)
    await late
    await other.disconnect()
  })

  test('that comes slowly, but a piece in each --payload-timeout, is not ended, whoever waits for it', async () => {
    const payloadTimeoutMs = 500
    const served = await disk({ payloadTimeoutMs })
    const payload = pattern(LENGTH, 7)
    const { client, rest } = await begun(served, payload, 0, 2 * MIB)
    await until(() => served.writes.length > 0)
    const other = await served.server.client()
    const late = other.write(0, pattern(KIB, 9))
    for (let sent = 0; sent < rest.length; sent += 256 * KIB) {
      await Promise.race([client.send(rest.subarray(sent, sent + 256 * KIB)), client.closed])
      await pause(payloadTimeoutMs / 3)
    }
    assert.equal((await client.reply(noReadData))?.error, 0)
    await late
    assert.ok((await contents(served, KIB, LENGTH - KIB)).equals(payload.subarray(KIB)))
    await other.disconnect()
  })

  test('of which less than a piece has come makes nobody wait, and its end is not noted', async () => {
    const served = await disk()
    const { client } = await begun(served, pattern(LENGTH, 7), 0, LENGTH - 1000)
    const other = await served.server.client()
    await other.write(0, pattern(KIB, 9))
    client.vanish()
    await until(() => served.server.server.connections === 1)
    assert.equal(served.server.served.counters[DROPPED_AT], 0)
    await other.disconnect()
  })

  test('for which there is no space is held whole, and lands whole when there is some', async () => {
    const served = await disk({}, { onSpace: { kind: 'hold', timeoutMs: 60_000 } })
    served.plan = ({ command, offset, length }) =>
      command === 'write' && offset + length > MIB ? { outcome: ENOSPC } : undefined
    const payload = pattern(LENGTH, 7)
    const client = await rawClient(served)
    const sent = client.send(writeRequest('simple', 5n, 0, payload))
    await until(() => served.server.served.space.held === 1)
    served.plan = () => undefined
    served.server.served.space.release()
    await sent
    assert.equal((await client.reply(noReadData))?.error, 0)
    assert.ok((await contents(served, 0, LENGTH)).equals(payload))
  })

  test('that is held when its client goes is dropped and noted', async () => {
    const served = await disk({}, { onSpace: { kind: 'hold', timeoutMs: 60_000 } })
    served.plan = ({ command, offset, length }) =>
      command === 'write' && offset + length > MIB ? { outcome: ENOSPC } : undefined
    const client = await rawClient(served)
    void client.send(writeRequest('simple', 5n, 0, pattern(LENGTH, 7)))
    const { space, counters, order } = served.server.served
    await until(() => space.held === 1)
    client.vanish()
    await until(() => order.pending === 0)
    assert.deepEqual([counters[DROPPED_AT], counters[WRITTEN_BYTES_AT], space.held], [1, 0, 0])
  })

  test('in the middle of which the server leaves is refused, and nothing more of it is written', async () => {
    const served = await disk()
    const { client, rest } = await begun(served, pattern(LENGTH, 7), 0, 100)
    await until(() => served.writes.length >= 20)
    const before = served.writes.length
    served.server.host.drain()
    await client.send(rest)
    assert.equal((await client.reply(noReadData))?.error, NBD_ESHUTDOWN)
    assert.ok(served.writes.length - before <= 4)
  })

  for (const begunBytes of [100, 200_000, 700_000]) {
    test(`that begins behind requests which had to wait lands whole (${begunBytes} bytes of it came with them)`, async () => {
      const served = await disk({ slowRequestsMax: 1 })
      const storage = gate()
      served.plan = ({ command, offset, now }) => {
        if (command !== 'write' || offset < 8 * MIB) return undefined
        return now ? { outcome: WOULD_BLOCK } : { outcome: DONE, after: storage.opened }
      }
      const payload = pattern(LENGTH, 7)
      const frame = writeRequest('simple', 5n, 0, payload)
      const client = await rawClient(served)
      const slowOnes = [1, 2].map((index) =>
        writeRequest('simple', BigInt(index), (8 + index) * MIB, pattern(KIB, index)),
      )
      const sent = [client.send(Buffer.concat([...slowOnes, frame.subarray(0, begunBytes)]))]
      await until(() => served.writes.length === 1)
      sent.push(client.send(frame.subarray(begunBytes)))
      storage.open()
      await Promise.all(sent)
      const answers: (bigint | undefined)[] = []
      for (let index = 0; index < 3; index++) {
        const reply = await client.reply(noReadData)
        assert.equal(reply?.error, 0)
        answers.push(reply?.cookie)
      }
      assert.deepEqual(answers, [1n, 2n, 5n])
      assert.ok((await contents(served, 0, LENGTH)).equals(payload))
    })
  }
})
