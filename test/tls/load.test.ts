// Much data inside TLS: the largest requests, many at once, readers that never read, and wires that are cut.
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { MIB, OPT, PAYLOAD_MAX, REP } from '../support/conformance-numbers.js'
import { WATCHDOG_MS } from '../support/conformance-server.js'
import { patternBytes } from '../support/guest-images.js'
import { residentBytes, settledBytes } from '../support/hostile.js'
import { infoData, request, writeRequest } from '../support/raw-bytes.js'
import { needs } from '../support/requirements.js'
import { credentials, TlsSession } from '../support/tls-client.js'
import { makeTlsMaterial, TLS_PROGRAMS } from '../support/tls-material.js'
import { serveTls, untilConnections } from '../support/tls-server.js'

const READ = 0
const DISC = 2
const ZEROES = 6
const skip = needs(...TLS_PROGRAMS)

if (skip === false) {
  const material = makeTlsMaterial({ after })
  const trusting = credentials(material.trusting, false)
  const tls = ['--tls-dir', material.server]
  const inFlight = 64
  const largest = patternBytes(PAYLOAD_MAX)

  describe('inside TLS', { timeout: WATCHDOG_MS }, async () => {
    const { candor, port } = await serveTls({ after }, '128M', ...tls)

    test('a WRITE and a READ of 32 MiB bring every byte; one byte more is refused, and the stream stays in step', async (scope) => {
      const session = await TlsSession.enter(port, trusting)
      scope.after(() => session.leave())
      session.send(writeRequest('simple', 1n, MIB, largest))
      assert.deepEqual(await session.simpleReply(), { error: 0, cookie: 1n })
      session.send(request('simple', { type: READ, cookie: 2n, offset: MIB, length: PAYLOAD_MAX }))
      assert.deepEqual(await session.simpleReply(), { error: 0, cookie: 2n })
      assert.ok((await session.take(PAYLOAD_MAX)).equals(largest))
      session.send(writeRequest('simple', 3n, 0, Buffer.alloc(PAYLOAD_MAX + 1)))
      assert.deepEqual(await session.simpleReply(), { error: 22, cookie: 3n })
      session.send(request('simple', { type: READ, cookie: 4n, offset: MIB, length: 4096 }))
      assert.deepEqual(await session.simpleReply(), { error: 0, cookie: 4n })
      assert.ok((await session.take(4096)).equals(largest.subarray(0, 4096)))
    })

    test('who closes its half behind its farewell gets all replies that it waits for', async () => {
      const session = await TlsSession.enter(port, trusting)
      const reads = Array.from({ length: 8 }, (_, index) =>
        request('simple', { type: READ, cookie: BigInt(index), offset: index * MIB, length: MIB }),
      )
      session.send(...reads, request('simple', { type: DISC, cookie: 99n }))
      session.secure?.end()
      for (const _ of reads) {
        assert.equal((await session.simpleReply()).error, 0)
        await session.take(MIB)
      }
      await session.closes()
      await untilConnections(candor, 0)
    })

    test('64 writes, then 64 reads, are in flight at once, and each gets its own answer', async (scope) => {
      const session = await TlsSession.enter(port, trusting)
      scope.after(() => session.leave())
      const piece = (index: number) => largest.subarray(index * 997, index * 997 + MIB)
      for (let index = 0; index < inFlight; index++) {
        session.send(writeRequest('simple', BigInt(index), index * MIB, piece(index)))
      }
      const written = new Set<bigint>()
      while (written.size < inFlight) {
        const { error, cookie } = await session.simpleReply()
        assert.equal(error, 0)
        written.add(cookie)
      }
      for (let index = 0; index < inFlight; index++) {
        session.send(request('simple', { type: READ, cookie: BigInt(index), offset: index * MIB, length: MIB }))
      }
      const read = new Set<bigint>()
      while (read.size < inFlight) {
        const { error, cookie } = await session.simpleReply()
        assert.equal(error, 0)
        assert.ok((await session.take(MIB)).equals(piece(Number(cookie))), `the data of read ${cookie}`)
        read.add(cookie)
      }
    })

    test('replies that wait for a client which stops reading are its own when it reads on, whatever others read meanwhile', async (scope) => {
      const [slow, busy] = [await TlsSession.enter(port, trusting), await TlsSession.enter(port, trusting)]
      scope.after(() => slow.leave())
      scope.after(() => busy.leave())
      slow.send(writeRequest('simple', 1n, 0, largest.subarray(0, 16 * MIB)))
      assert.deepEqual(await slow.simpleReply(), { error: 0, cookie: 1n })
      busy.send(request('simple', { type: ZEROES, cookie: 2n, offset: 32 * MIB, length: 16 * MIB }))
      assert.deepEqual(await busy.simpleReply(), { error: 0, cookie: 2n })
      slow.stopReading()
      slow.send(request('simple', { type: READ, cookie: 3n, offset: 0, length: 16 * MIB }))
      for (let round = 0n; round < 4n; round++) {
        busy.send(request('simple', { type: READ, cookie: round, offset: 32 * MIB, length: 16 * MIB }))
        assert.deepEqual(await busy.simpleReply(), { error: 0, cookie: round })
        assert.ok((await busy.take(16 * MIB)).equals(Buffer.alloc(16 * MIB)))
      }
      slow.readOn()
      assert.deepEqual(await slow.simpleReply(), { error: 0, cookie: 3n })
      assert.ok((await slow.take(16 * MIB)).equals(largest.subarray(0, 16 * MIB)))
    })

    test('connections that are cut in the middle of a request, or of a TLS record, end alone', async (scope) => {
      const witness = await TlsSession.enter(port, trusting)
      scope.after(() => witness.leave())
      for (let round = 0; round < 8; round++) {
        const cut = await TlsSession.enter(port, trusting)
        cut.send(writeRequest('simple', 1n, 100 * MIB, largest.subarray(0, 4 * MIB)).subarray(0, MIB + round))
        for (let index = 0; index < 16; index++) {
          cut.send(request('simple', { type: READ, cookie: 2n, offset: 0, length: MIB }))
        }
        // The head of a record that announces 4 KiB, of which five bytes come.
        if (round % 2 === 0) cut.plain.write(Buffer.from('17030310000102030405', 'hex'))
        if (round % 4 < 2) cut.cut()
        else cut.leave()
      }
      await untilConnections(candor, 1)
      witness.send(request('simple', { type: READ, cookie: 9n, offset: 0, length: 512 }))
      assert.deepEqual(await witness.simpleReply(), { error: 0, cookie: 9n })
      await witness.take(512)
    })
  })

  test('a client that never reads its replies costs its backlog and a batch of replies, plain and encrypted, and no more', {
    timeout: WATCHDOG_MS,
  }, async (scope) => {
    const backlog = 2 * MIB
    const { candor, port } = await serveTls(scope, '64M', ...tls, '--reply-backlog-max', String(backlog))
    const witness = await TlsSession.enter(port, trusting)
    scope.after(() => witness.leave())
    const greedy = Array.from({ length: 8 }, () => TlsSession.enter(port, trusting))
    const before = await settledBytes(candor.pid)
    for (const session of await Promise.all(greedy)) {
      scope.after(() => session.leave())
      session.stopReading()
      for (let index = 0; index < 512; index++) {
        session.send(request('simple', { type: READ, cookie: 1n, offset: 0, length: MIB }))
      }
    }
    const after = await settledBytes(candor.pid)
    witness.send(request('simple', { type: READ, cookie: 9n, offset: 0, length: 512 }))
    assert.deepEqual(await witness.simpleReply(), { error: 0, cookie: 9n })
    const each = (after - before) / greedy.length
    scope.diagnostic(`${(each / MIB).toFixed(1)} MiB for each, ${residentBytes(candor.pid) / MIB} MiB in all`)
    assert.ok(each < 4 * (backlog + MIB), `${each} bytes for each`)
  })

  test('a server with clients inside TLS stops when it is told to', { timeout: WATCHDOG_MS }, async (scope) => {
    const { candor, port } = await serveTls(scope, '1M', ...tls)
    const attached = await TlsSession.enter(port, trusting)
    const waiting = await TlsSession.open(port)
    assert.equal(await waiting.final(OPT.STARTTLS), REP.ACK)
    const negotiating = await TlsSession.open(port)
    await negotiating.startTls(trusting)
    assert.equal(await negotiating.final(OPT.INFO, infoData('disk')), REP.ACK)
    const { code } = await candor.stop()
    assert.equal(code, 0)
    for (const session of [attached, waiting, negotiating]) session.leave()
  })
} else test('load inside TLS', { skip })
