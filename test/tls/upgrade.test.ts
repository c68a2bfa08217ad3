// The step from the clear into TLS: what may come with it, what is left behind, and how it fails. Law: a client that
// fails at it is counted once, with its reason, and nobody else notices.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { after, test } from 'node:test'
import { HAS, OPT, REP } from '../support/conformance-numbers.js'
import { WATCHDOG_MS } from '../support/conformance-server.js'
import type { Scope } from '../support/faults.js'
import { contextData, FLAGS, infoData, option, raw, request, text, zeroes } from '../support/raw-bytes.js'
import { needs } from '../support/requirements.js'
import { credentials, TlsSession } from '../support/tls-client.js'
import { makeTlsMaterial, TLS_PROGRAMS, type TlsMaterial } from '../support/tls-material.js'
import { handshakeFailures, type ServedTls, serveTls, untilConnections, untilFailed } from '../support/tls-server.js'

const skip = needs(...TLS_PROGRAMS)
const watched = { skip, timeout: WATCHDOG_MS }
const material: TlsMaterial | undefined = skip === false ? makeTlsMaterial({ after }) : undefined
const folder = material?.server ?? ''
const trusting = material === undefined ? {} : credentials(material.trusting, false)

/** A server of the test's own, and a client that is there before and must be served until the end. */
async function withWitness(
  scope: Scope,
  ...flags: readonly string[]
): Promise<{ served: ServedTls; stillServed: () => Promise<void> }> {
  const served = await serveTls(scope, '1M', '--tls-dir', folder, ...flags)
  const witness = await TlsSession.enter(served.port, trusting)
  scope.after(() => witness.leave())
  const stillServed = async () => {
    witness.send(request('simple', { type: 0, cookie: 7n, offset: 0, length: 512 }))
    assert.deepEqual(await witness.simpleReply(), { error: 0, cookie: 7n })
    await witness.take(512)
    await untilConnections(served.candor, 1)
  }
  return { served, stillServed }
}

test('STARTTLS inside TLS is INVALID, and the connection goes on', watched, async (scope) => {
  const { served } = await withWitness(scope)
  const session = await TlsSession.open(served.port)
  await session.startTls(trusting)
  for (let times = 0; times < 2; times++) assert.equal(await session.final(OPT.STARTTLS), REP.ERR_INVALID)
  assert.equal(await session.final(OPT.GO, infoData('disk')), REP.ACK)
  session.leave()
})

test('STARTTLS with data is INVALID, and may be sent again without', watched, async (scope) => {
  const { served } = await withWitness(scope)
  const session = await TlsSession.open(served.port)
  assert.equal(await session.final(OPT.STARTTLS, zeroes(3)), REP.ERR_INVALID)
  await session.startTls(trusting)
  assert.equal(await session.final(OPT.GO, infoData('disk')), REP.ACK)
  session.leave()
})

test('bytes behind STARTTLS in the same segment end the connection, are never served, and are counted', {
  skip,
}, async (scope) => {
  const { served, stillServed } = await withWitness(scope)
  const behind = [option(OPT.GO, infoData('disk')), option(OPT.STRUCTURED_REPLY), zeroes(1), text('\x16\x03\x01')]
  for (const bytes of behind) {
    const session = await TlsSession.open(served.port)
    session.send(option(OPT.STARTTLS), bytes)
    const said = await session.tryTake(21)
    assert.equal(said, undefined, 'nothing is said but the answer to STARTTLS')
    session.leave()
  }
  await untilFailed(served.candor, { 'bytes-behind-starttls': behind.length })
  await stillServed()
})

test('the client flags and STARTTLS may come in one piece', watched, async (scope) => {
  const { served } = await withWitness(scope)
  const session = await TlsSession.open(served.unix, raw(FLAGS, option(OPT.STARTTLS)))
  assert.equal((await session.take(20)).readUInt32BE(12), REP.ACK)
  await session.upgrade(trusting)
  assert.equal(await session.final(OPT.GO, infoData('disk')), REP.ACK)
  session.leave()
})

test('a reply style and contexts that were negotiated in the clear are gone inside TLS', watched, async (scope) => {
  const { served } = await withWitness(scope, '--tls', 'allow')
  for (const style of [OPT.STRUCTURED_REPLY, OPT.EXTENDED_HEADERS]) {
    const session = await TlsSession.open(served.port)
    const selection = contextData('disk', 'base:allocation')
    assert.equal(await session.final(style), REP.ACK)
    assert.equal(await session.final(OPT.SET_META_CONTEXT, selection), REP.ACK)
    await session.startTls(trusting)
    assert.equal(await session.final(OPT.SET_META_CONTEXT, selection), REP.ERR_INVALID, 'it needs a reply style again')
    const [info] = await session.option(OPT.GO, infoData('disk'))
    assert.equal((info?.data.readUInt16BE(10) ?? 0) & HAS.DF, 0, 'DF belongs to structured replies')
    session.send(request('simple', { type: 7, cookie: 1n, offset: 0, length: 512 }))
    assert.deepEqual(await session.simpleReply(), { error: 22, cookie: 1n }, 'no context is selected')
    session.send(request('simple', { type: 0, cookie: 2n, offset: 0, length: 512 }))
    assert.deepEqual(await session.simpleReply(), { error: 0, cookie: 2n })
    await session.take(512)
    session.leave()
  }
})

test('TLS 1.1 is refused; 1.2 and 1.3 are accepted', watched, async (scope) => {
  const { served, stillServed } = await withWitness(scope)
  const old = await TlsSession.open(served.port)
  const versions = { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const
  await assert.rejects(old.startTls({ ...trusting, ...versions }), /alert protocol version/)
  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    const session = await TlsSession.open(served.port)
    const secure = await session.startTls({ ...trusting, minVersion: version, maxVersion: version })
    assert.equal(secure.getProtocol(), version)
    assert.equal(await session.final(OPT.GO, infoData('disk')), REP.ACK)
    session.leave()
  }
  await untilFailed(served.candor, { 'tls-failed': 1 })
  await stillServed()
})

test('garbage where the ClientHello should be ends the connection', watched, async (scope) => {
  const { served, stillServed } = await withWitness(scope)
  const garbage = [
    zeroes(4096),
    option(OPT.GO, infoData('disk')),
    text('GET / HTTP/1.1\r\n\r\n'),
    raw('160301ffff', zeroes(70_000)),
  ]
  for (const bytes of garbage) {
    const session = await TlsSession.open(served.port)
    assert.equal(await session.final(OPT.STARTTLS), REP.ACK)
    session.send(bytes)
    await session.untilClosed()
  }
  await untilFailed(served.candor, { 'tls-failed': garbage.length })
  await stillServed()
})

test('a client that stalls in the TLS handshake runs into the time-out of the handshake', watched, async (scope) => {
  const { served, stillServed } = await withWitness(scope, '--handshake-timeout', '700ms')
  const halves = [zeroes(0), raw('160301'), raw('1603010200010001fc0303')]
  const sessions = await Promise.all(halves.map(() => TlsSession.open(served.port)))
  for (const [index, session] of sessions.entries()) {
    assert.equal(await session.final(OPT.STARTTLS), REP.ACK)
    session.send(halves[index] ?? '')
  }
  for (const session of sessions) await session.untilClosed()
  await untilFailed(served.candor, { 'time-out': halves.length })
  await stillServed()
})

test('inside TLS the time-out of the handshake goes on, and ends with GO', watched, async (scope) => {
  const { served, stillServed } = await withWitness(scope, '--handshake-timeout', '700ms')
  const idle = await TlsSession.open(served.port)
  const secure = await idle.startTls(trusting)
  await once(secure, 'close')
  await untilFailed(served.candor, { 'time-out': 1 })
  await stillServed()
})

const ROUNDS = 20

test('clients that vanish at any step of the upgrade are counted, and hurt nobody', watched, async (scope) => {
  const { served, stillServed } = await withWitness(scope)
  const steps: readonly ((session: TlsSession) => unknown)[] = [
    (session) => session.send(option(OPT.STARTTLS)),
    (session) => session.final(OPT.STARTTLS),
    async (session) => {
      await session.final(OPT.STARTTLS)
      session.send(raw('160301'))
    },
    async (session) => {
      await session.final(OPT.STARTTLS)
      session.send(zeroes(5))
    },
    (session) => session.startTls(trusting),
    (session) => session.startTls({ ...trusting, ca: [] }).catch(() => undefined),
  ]
  for (let round = 0; round < ROUNDS; round++) {
    for (const place of [served.port, served.unix]) {
      await Promise.all(
        steps.map(async (step) => {
          const session = await TlsSession.open(place)
          await step(session)
          if (place === served.port && round % 2 === 0) session.cut()
          else session.leave()
        }),
      )
    }
  }
  await stillServed()
  const reasons = await handshakeFailures(served.candor)
  const counted = Object.values(reasons).reduce((sum, count) => sum + count, 0)
  assert.equal(counted, ROUNDS * 2 * steps.length, JSON.stringify(reasons))
})
