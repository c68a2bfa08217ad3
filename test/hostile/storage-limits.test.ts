// The limits of requests as flags of a real server, each at its edge: storage that does not answer, and clients that
// do not read.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { MIB } from '../support/conformance-numbers.js'
import { WATCHDOG_MS } from '../support/conformance-server.js'
import { lastFirst, type Scope, serve } from '../support/faults.js'
import { settledBytes } from '../support/hostile.js'
import { freeze } from '../support/hostile-freeze.js'
import { mountLoopDisk, sparseFile } from '../support/loop-disk.js'
import { request, writeRequest } from '../support/raw-bytes.js'
import { needsRoot } from '../support/requirements.js'
import { TlsSession } from '../support/tls-client.js'
import { portOf, serveTls, untilLogged, untilMetrics } from '../support/tls-server.js'

const FUA = 1
const IN_FLIGHT = 'candor_requests_in_flight{export="disk"}'
const skip = needsRoot('mkfs.ext4', 'fsfreeze', 'findmnt')

interface Frozen {
  readonly scope: Scope
  readonly candor: Awaited<ReturnType<typeof serve>>
  readonly port: number
  thaw(): Promise<void>
}

/** A server whose image lies on a file system that is frozen after the start; all writes to it wait until it thaws. */
async function serveFrozen(t: TestContext, ...flags: readonly string[]): Promise<Frozen> {
  const scope = lastFirst(t)
  const { folder } = mountLoopDisk(scope, { type: 'ext4', sizeMiB: 64 })
  const image = sparseFile(join(folder, 'disk'), 32 * MIB)
  const candor = await serve(scope, [`disk=${image}`, ...flags, '--log-level', 'warn'])
  return { scope, candor, port: portOf(candor), thaw: await freeze(scope, folder) }
}

/** Sends durable writes, which always go to the kernel's slow side. */
function sendWrites(session: TlsSession, count: number, length: number): void {
  for (let index = 0; index < count; index++) {
    session.send(writeRequest('simple', BigInt(index), index * length, Buffer.alloc(length, index + 1), FUA))
  }
}

async function allAnswered(session: TlsSession, count: number): Promise<void> {
  const answered = new Set<bigint>()
  for (let index = 0; index < count; index++) {
    const { error, cookie } = await session.simpleReply()
    assert.equal(error, 0)
    answered.add(cookie)
  }
  assert.equal(answered.size, count)
}

describe('at the edge of', { timeout: WATCHDOG_MS, concurrency: 2 }, () => {
  const requests = (metrics: ReadonlyMap<string, number>) =>
    metrics.get('candor_requests_total{export="disk",frontend="nbd",command="write"}') ?? 0

  for (const [flag, word, count, length, fit] of [
    ['--in-flight-max', '4', 16, 4096, 4],
    ['--in-flight-bytes-max', '2M', 8, MIB, 2],
  ] as const) {
    test(`${flag}, a connection is not read until storage has answered; another is`, { skip }, async (t) => {
      const { scope, candor, port, thaw } = await serveFrozen(t, flag, word)
      const [session, other] = [await TlsSession.enter(port), await TlsSession.enter(port)]
      for (const { leave } of [session, other]) scope.after(leave)
      sendWrites(session, count, length)
      await untilMetrics(candor, (metrics) => metrics.get(IN_FLIGHT) === fit, `${fit} in flight`)
      // Another connection's requests are taken, so that this one's have been looked at and left alone.
      for (let index = 0; index < 50; index++) {
        other.send(request('simple', { type: 0, cookie: 1n, offset: 30 * MIB, length: 512 }))
        assert.deepEqual(await other.simpleReply(), { error: 0, cookie: 1n })
        await other.take(512)
      }
      const metrics = await candor.metrics()
      assert.deepEqual([metrics.get(IN_FLIGHT), requests(metrics)], [fit, fit])
      await thaw()
      await allAnswered(session, count)
      assert.equal(requests(await candor.metrics()), count)
    })
  }

  test('--reply-backlog-max, a client that does not read is not served, and gets everything when it reads', async (scope) => {
    const [count, length] = [400, MIB / 4]
    const { candor, unix } = await serveTls(scope, '1M', '--reply-backlog-max', '1M')
    const session = await TlsSession.enter(unix)
    session.stopReading()
    for (let cookie = 0; cookie < count; cookie++) {
      session.send(request('simple', { type: 0, cookie: BigInt(cookie), offset: 0, length }))
    }
    await settledBytes(candor.pid)
    const reads = 'candor_requests_total{export="disk",frontend="nbd",command="read"}'
    const served = (await candor.metrics()).get(reads) ?? 0
    // The backlog, one batch of replies, what the client's socket has read, and the 4 MiB that the kernel makes of our
    // wish for a send buffer of 2 MiB: four to a MiB.
    assert.ok(served > 0 && served <= 4 * 6, `${served} of ${count} were served`)
    session.readOn()
    for (let cookie = 0; cookie < count; cookie++) {
      assert.deepEqual(await session.simpleReply(), { error: 0, cookie: BigInt(cookie) })
      await session.take(length)
    }
  })

  test('--shutdown-timeout, a stop waits no longer for storage, and says what it leaves', { skip }, async (t) => {
    const { candor, port, thaw } = await serveFrozen(t, '--shutdown-timeout', '300ms')
    const session = await TlsSession.enter(port)
    sendWrites(session, 3, 4096)
    await untilMetrics(candor, (metrics) => metrics.get(IN_FLIGHT) === 3, '3 in flight')
    const ended = candor.stop()
    await session.untilClosed()
    await untilLogged(candor, /storage has not answered/)
    await thaw()
    await ended
  })

  test('--shutdown-timeout, a stop waits for replies that are taken late', async (scope) => {
    const { candor, unix } = await serveTls(scope, '32M', '--shutdown-timeout', '50s', '--reply-backlog-max', '8M')
    const session = await TlsSession.enter(unix)
    session.stopReading()
    for (const cookie of [1n, 2n]) session.send(request('simple', { type: 0, cookie, offset: 0, length: 4 * MIB }))
    const reads = 'candor_requests_total{export="disk",frontend="nbd",command="read"}'
    await untilMetrics(candor, (metrics) => metrics.get(reads) === 2, 'two reads were served')
    const ended = candor.stop()
    session.readOn()
    for (const cookie of [1n, 2n]) {
      assert.deepEqual(await session.simpleReply(), { error: 0, cookie })
      await session.take(4 * MIB)
    }
    assert.equal((await ended).code, 0)
  })
})
