// The limits of connections and handshakes as flags of a real server, each at its edge and one past it.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { MIB, OPT, PAYLOAD_MAX, REP } from '../support/conformance-numbers.js'
import { WATCHDOG_MS } from '../support/conformance-server.js'
import { type Mistake, serving, testMistakes } from '../support/faults-mistakes.js'
import { FLAGS, infoData, option, raw, request, text, writeRequest, zeroes } from '../support/raw-bytes.js'
import { TlsSession } from '../support/tls-client.js'
import { serveTls, untilConnections, untilFailed, untilMetrics } from '../support/tls-server.js'

/** Asserts that a READ is answered. */
async function isServed(session: TlsSession): Promise<void> {
  session.send(request('simple', { type: 0, cookie: 77n, offset: 0, length: 512 }))
  assert.deepEqual(await session.simpleReply(), { error: 0, cookie: 77n })
  await session.take(512)
}

/** Asserts that the server closes a new connection without a greeting. */
const turnedAway = (place: Parameters<typeof TlsSession.open>[0]): Promise<void> =>
  assert.rejects(TlsSession.open(place), /closed before 18 bytes|ECONNRESET/)

describe('one past the edge of', { timeout: WATCHDOG_MS, concurrency: 2 }, () => {
  test('--connections-max, a connection is closed and counted, and comes in when another has left', async (scope) => {
    const { candor, unix, port } = await serveTls(scope, '1M', '--connections-max', '3')
    const first = await TlsSession.enter(unix)
    const others = [await TlsSession.enter(unix), await TlsSession.enter(port)]
    await turnedAway(unix)
    await turnedAway(port)
    assert.equal((await candor.metrics()).get('candor_connections_refused_total'), 2)
    for (const session of [first, ...others]) await isServed(session)
    first.leave()
    await untilConnections(candor, 2)
    await isServed(await TlsSession.enter(port))
  })

  test('--connections-per-address-max, an address is turned away, and others are not', async (scope) => {
    const { candor, unix, port } = await serveTls(scope, '1M', '--connections-per-address-max', '2')
    const same = [await TlsSession.enter(port), await TlsSession.enter(port)]
    await turnedAway(port)
    await isServed(await TlsSession.enter({ host: '127.0.0.1', port, localAddress: '127.0.0.2' }))
    for (let count = 0; count < 4; count++) await isServed(await TlsSession.enter(unix))
    same[0]?.leave()
    await untilConnections(candor, 6)
    await isServed(await TlsSession.enter(port))
    await turnedAway(port)
  })

  test('--handshake-timeout, a client that has not attached is closed and counted; one that has, stays', async (scope) => {
    const { candor, unix } = await serveTls(scope, '1M', '--handshake-timeout', '500ms')
    const attached = await TlsSession.enter(unix)
    const busy = await TlsSession.open(unix)
    const halves = ['', '00', raw(FLAGS, option(OPT.GO, infoData('disk')).subarray(0, 20))]
    const silent = await Promise.all(halves.map((first) => TlsSession.open(unix, first)))
    assert.equal(await busy.final(OPT.INFO, infoData('disk')), REP.ACK)
    for (const session of [...silent, busy]) await session.closes()
    await untilFailed(candor, { 'time-out': halves.length + 1 })
    await isServed(attached)
  })

  test('--options-max, an option ends the handshake', async (scope) => {
    const { candor, unix } = await serveTls(scope, '1M', '--options-max', '4')
    const within = await TlsSession.open(unix)
    for (let count = 0; count < 3; count++) assert.equal(await within.final(OPT.LIST), REP.ACK)
    assert.equal(await within.final(OPT.GO, infoData('disk')), REP.ACK)
    await isServed(within)
    const beyond = await TlsSession.open(unix)
    for (let count = 0; count < 4; count++) assert.equal(await beyond.final(99), REP.ERR_UNSUP)
    beyond.send(option(OPT.LIST))
    await beyond.closes()
    await untilFailed(candor, { 'too-many-options': 1 })
  })

  test("--option-length-max, an option's data is skipped and refused as TOO_BIG; an export name ends the handshake", async (scope) => {
    const { candor, unix } = await serveTls(scope, '1M', '--option-length-max', '1K')
    const session = await TlsSession.open(unix)
    const named = (bytes: number) => infoData('x'.repeat(bytes - 6))
    assert.equal(await session.final(OPT.INFO, named(1024)), REP.ERR_UNKNOWN)
    assert.equal(await session.final(OPT.INFO, named(1025)), REP.ERR_TOO_BIG)
    assert.equal(await session.final(OPT.INFO, zeroes(MIB)), REP.ERR_TOO_BIG)
    assert.equal(await session.final(OPT.GO, infoData('disk')), REP.ACK)
    await isServed(session)
    for (const bytes of [1024, 1025]) {
      const naming = await TlsSession.open(unix)
      naming.send(option(OPT.EXPORT_NAME, text('x'.repeat(bytes))))
      await naming.closes()
    }
    await untilFailed(candor, { 'export-refused': 1, 'option-too-long': 1 })
  })

  test('--oversize-max, a WRITE ends the connection; up to it, it is refused and the stream stays in step', async (scope) => {
    const { candor, unix } = await serveTls(scope, '64M', '--oversize-max', '40M')
    const session = await TlsSession.enter(unix)
    const other = await TlsSession.enter(unix)
    for (const length of [PAYLOAD_MAX, PAYLOAD_MAX + 1, 40 * MIB]) {
      session.send(writeRequest('simple', BigInt(length), 0, zeroes(length)))
      assert.deepEqual(await session.simpleReply(), { error: length > PAYLOAD_MAX ? 22 : 0, cookie: BigInt(length) })
    }
    await isServed(session)
    session.send(request('simple', { type: 1, cookie: 5n, offset: 0, length: 40 * MIB + 1 }), zeroes(4096))
    await session.closes()
    const lost = 'candor_protocol_errors_total{reason="payload-too-long"}'
    await untilMetrics(candor, (metrics) => metrics.get(lost) === 1, lost)
    await isServed(other)
  })
})

const FLAGS_WITH_LIMITS: Readonly<Record<string, readonly string[]>> = {
  'connections-max': ['0', '-1', '1.5', 'many', ''],
  'connections-per-address-max': ['0', 'many'],
  'handshake-timeout': ['soon', '-1s', '1h', ''],
  'options-max': ['0', 'many'],
  'option-length-max': ['64X', '-1'],
  'in-flight-max': ['0', '1e3'],
  'in-flight-bytes-max': ['64MB', '-1'],
  'reply-backlog-max': ['much', '-1'],
  'payload-bytes-max': ['64 M', '-1'],
  'payload-timeout': ['soon', '-1s'],
  'look-ahead-max': ['far', '-1'],
  'oversize-max': ['128 M', '-1'],
  'shutdown-timeout': ['never', '-1'],
}

testMistakes(
  'limits',
  Object.entries(FLAGS_WITH_LIMITS).flatMap(([flag, words]) =>
    words.map(
      (word): Mistake => ({
        title: `--${flag}=${word}`,
        words: (scene) => [...serving(scene, scene.image), `--${flag}=${word}`],
        says: [`--${flag} is '${word}'`, 'write'],
      }),
    ),
  ),
)
