// A WRITE of more than 1 MiB goes to storage as it comes: answered once, in its turn, with all the rules of a small one,
// also when it fails, is held, or never ends.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { NBD_CMD_FLAG_FUA, NBD_EIO, NBD_ENOSPC } from 'nbd-protocol'
import { DONE, EIO, ENOSPC, SYNC_FAILED, WOULD_BLOCK } from '../../backends/index.js'
import { errorAt, IN_FLIGHT_AT, WRITTEN_BYTES_AT } from '../../server/observe/counters.js'
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
  slow,
  until,
} from '../support/large-writes.js'
import { writeRequest } from '../support/raw-bytes.js'

const LENGTH = 6 * MIB

describe('a large WRITE', { timeout: 60_000 }, () => {
  for (const [what, plan, flags] of [
    ['at once', () => undefined, 0],
    ['by waiting for storage', slow, 0],
    ['durably', () => undefined, NBD_CMD_FLAG_FUA],
  ] as const) {
    test(`lands whole in pieces, ${what}, and is answered once`, async () => {
      const served = await disk()
      served.plan = plan
      const payload = pattern(LENGTH, 7)
      const { client, rest } = await begun(served, payload, 1000, 100, flags)
      await until(() => served.writes.length > 0)
      // What follows in the same segment is served as well.
      await client.send(Buffer.concat([rest, writeRequest('simple', 6n, 0, pattern(KIB, 1))]))
      const cookies = new Set<bigint>()
      for (let index = 0; index < 2; index++) {
        const reply = await client.reply(noReadData)
        assert.equal(reply?.error, 0)
        cookies.add(reply?.cookie ?? 0n)
      }
      assert.deepEqual(cookies, new Set([5n, 6n]))
      const large = served.writes.filter(({ offset }) => offset >= 1000)
      assert.ok(large.length > 6 && large.every(({ length }) => length <= 256 * KIB))
      assert.ok((await contents(served, 1000 + KIB, LENGTH - KIB)).equals(payload.subarray(KIB)))
      const { counters, order, durability } = served.server.served
      assert.deepEqual([counters[WRITTEN_BYTES_AT], counters[IN_FLIGHT_AT], order.pending], [LENGTH + KIB, 0, 0])
      assert.equal(durability.failure, DONE)
    })
  }

  test('that is durable is synced when all of it is written, and fails with the sync', async () => {
    const served = await disk()
    const steps: string[] = []
    served.plan = ({ command, now }) => {
      if (command === 'write' || command === 'flush') steps.push(now || command === 'flush' ? command : 'later')
      return command === 'flush' ? { outcome: EIO | SYNC_FAILED } : undefined
    }
    const { client, rest } = await begun(served, pattern(LENGTH, 7), 0, 100, NBD_CMD_FLAG_FUA)
    await client.send(rest)
    assert.equal((await client.reply(noReadData))?.error, NBD_EIO)
    assert.deepEqual([steps.indexOf('flush'), steps.lastIndexOf('flush')], [steps.length - 1, steps.length - 1])
    const { durability } = served.server.served
    assert.equal(durability.state, 'degraded')
    assert.equal(durability.suspect.bytes, LENGTH, 'all of it may be lost')
    const again = await begun(served, pattern(LENGTH, 7), 8 * MIB, 0, NBD_CMD_FLAG_FUA)
    assert.equal((await again.client.reply(noReadData))?.error, NBD_EIO)
    assert.equal(served.writes.filter(({ offset }) => offset >= 8 * MIB).length, 0, 'no promise, no write')
  })

  test('that a sync fails beside clears nothing of what is suspect, though all its pieces succeed', async () => {
    const served = await disk()
    const { client, rest } = await begun(served, pattern(LENGTH, 7), 0, 100)
    await until(() => served.writes.length >= 20)
    const { durability } = served.server.served
    durability.judge(EIO | SYNC_FAILED)
    await client.send(rest)
    assert.equal((await client.reply(noReadData))?.error, 0)
    assert.equal(durability.suspect.bytes, LENGTH)
    const whole = await begun(served, pattern(LENGTH, 7), 0, 0)
    assert.equal((await whole.client.reply(noReadData))?.error, 0)
    assert.equal(durability.suspect.bytes, 0, 'a write that began later and succeeded whole does')
  })

  test('that fails in one piece is an error for the whole, given when all of it has come; the rest is not written', async () => {
    const served = await disk()
    const failsAt = 3 * MIB
    served.plan = ({ command, offset, length }) =>
      command === 'write' && offset <= failsAt && failsAt < offset + length ? { outcome: ENOSPC } : undefined
    const { client, rest } = await begun(served, pattern(LENGTH, 7), 0, 100)
    const { order, counters } = served.server.served
    await until(() => order.pending === 0 && served.writes.length > 0)
    const early = client.received
    await client.send(rest)
    const reply = await client.reply(noReadData)
    assert.deepEqual([reply?.cookie, reply?.error], [5n, NBD_ENOSPC])
    assert.equal(client.received - early, 16, 'nothing was said before its end')
    const failed = served.writes.at(-1)
    assert.ok(failed !== undefined && failed.offset <= failsAt && failsAt < failed.offset + failed.length)
    assert.deepEqual([counters[errorAt(1, ENOSPC)], counters[WRITTEN_BYTES_AT]], [1, 0])
    await client.send(writeRequest('simple', 6n, 0, pattern(KIB, 1)))
    assert.equal((await client.reply(noReadData))?.error, 0, 'the connection lives')
  })

  test('past the end of the export is refused when it has come, and nothing of it is written', async () => {
    const served = await disk()
    const { client, rest } = await begun(served, pattern(LENGTH, 7), 28 * MIB, 100)
    await client.send(rest)
    assert.equal((await client.reply(noReadData))?.error, NBD_ENOSPC)
    assert.deepEqual(served.writes, [])
  })

  test('that is under way is waited for by a later one that overlaps, on another connection, which wins', async () => {
    const served = await disk()
    const { client, rest } = await begun(served, pattern(LENGTH, 7), 0, 100)
    await until(() => served.writes.length > 0)
    const other = await served.server.client()
    let answered = false
    const fresh = other.write(LENGTH - KIB, pattern(KIB, 9)).then(() => {
      answered = true
    })
    await other.write(LENGTH + KIB, pattern(KIB, 3))
    assert.equal(answered, false, 'it overtook')
    await client.send(rest)
    assert.equal((await client.reply(noReadData))?.error, 0)
    await fresh
    assert.ok((await contents(served, LENGTH - KIB, KIB)).equals(pattern(KIB, 9)))
    await other.disconnect()
  })

  test('waits itself for an earlier change that it overlaps', async () => {
    const served = await disk()
    const storage = gate()
    served.plan = ({ command, offset, now }) => {
      if (command !== 'write' || offset !== MIB + KIB) return undefined
      return now ? { outcome: WOULD_BLOCK } : { outcome: DONE, after: storage.opened }
    }
    const other = await served.server.client()
    const stale = other.write(MIB + KIB, pattern(KIB, 9))
    await until(() => served.writes.length === 1)
    const client = await rawClient(served)
    // The server reads no more of it than some pieces, so the kernel does not have all of it until later.
    const sent = client.send(writeRequest('simple', 5n, 0, pattern(LENGTH, 7)))
    await until(() => served.server.served.order.pending === 2)
    await other.write(LENGTH + KIB, pattern(KIB, 3))
    assert.equal(served.writes.filter(({ offset }) => offset < LENGTH).length, 1, 'no piece of it overtook')
    storage.open()
    await Promise.all([stale, sent])
    assert.equal((await client.reply(noReadData))?.error, 0)
    assert.ok((await contents(served, 0, LENGTH)).equals(pattern(LENGTH, 7)))
    await other.disconnect()
  })
})
