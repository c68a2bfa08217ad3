// How a secured connection ends that the server has ended. Law: a client that is silent then, or takes nothing, keeps nothing
// of the server; one that takes its last replies gets all of them.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { connect } from 'node:net'
import { after, describe, test } from 'node:test'
import { askServer } from '../../server/cli/ask-server.js'
import type { Session } from '../../server/nbd/guest.js'
import { MIB } from '../support/conformance-numbers.js'
import { WATCHDOG_MS } from '../support/conformance-server.js'
import { folderOf, until } from '../support/controlled.js'
import type { Scope } from '../support/faults.js'
import { type Raw, request, zeroes } from '../support/raw-bytes.js'
import { needs } from '../support/requirements.js'
import { credentials, TlsSession } from '../support/tls-client.js'
import { makeTlsMaterial, TLS_PROGRAMS } from '../support/tls-material.js'
import { serveTls, untilMetrics } from '../support/tls-server.js'

const READ = 0
const ESHUTDOWN = 108
const DISC = 2
const CLIENTS = 3
/** Of a secured client: its own, and the pair that leads to the export's thread. */
const DESCRIPTORS = 3
const READ_BYTES = 'candor_read_bytes_total{export="disk"}'
const skip = needs(...TLS_PROGRAMS)

interface Ending {
  readonly said: readonly Raw[]
  readonly end?: () => Promise<void>
}

const reads = (count: number) =>
  Array.from({ length: count }, (_, index) =>
    request('simple', { type: READ, cookie: BigInt(index), offset: index * MIB, length: MIB }),
  )

/** Waits until nobody is let in any more. */
async function untilRefused(port: number): Promise<void> {
  for (;;) {
    const socket = connect(port, '127.0.0.1')
    const isRefused = await once(socket, 'connect').then(
      () => false,
      () => true,
    )
    socket.destroy()
    if (isRefused) return
  }
}

if (skip === false) {
  const material = makeTlsMaterial({ after })
  const trusting = credentials(material.trusting, false)

  describe('a secured connection that the server has ended', { timeout: WATCHDOG_MS }, async () => {
    const state = folderOf({ after })
    const { candor, port } = await serveTls({ after }, '64M', '--tls-dir', material.server, '--state-dir', state)
    const enterSilently = async (scope: Scope) => {
      const session = await TlsSession.enter(port, trusting)
      scope.after(() => session.leave())
      session.stopReading()
      if (session.secure !== undefined) session.secure.allowHalfOpen = true
      return session
    }
    const descriptors = () => readdirSync(`/proc/${candor.pid}/fd`).length
    const sessions = async () => {
      const reply = await askServer(state, { command: 'sessions' })
      return reply?.ok === true ? (reply.result as Session[]) : []
    }
    const nobodyThere = () => until('sessions', sessions, ({ length }) => length === 0)
    const disconnectAll = async () => {
      const enough = CLIENTS * 4 * MIB
      await untilMetrics(candor, (metrics) => (metrics.get(READ_BYTES) ?? 0) >= enough, 'replies on their way')
      for (const { id } of await sessions()) await askServer(state, { command: 'disconnect', name: String(id) })
    }
    const endings = {
      'behind its farewell': { said: [request('simple', { type: DISC, cookie: 1n })] },
      'for what it said': { said: [zeroes(28)] },
      'with replies that are not taken': { said: reads(32), end: disconnectAll },
    }
    for (const [ending, { said, end }] of Object.entries<Ending>(endings)) {
      test(`${ending} leaves nothing behind, though its client neither reads nor closes`, async (scope) => {
        await nobodyThere()
        // What is opened for the first clients stays open: each thread that ciphers has its own.
        const first = await Promise.all(Array.from({ length: CLIENTS }, () => TlsSession.enter(port, trusting)))
        for (const session of first) {
          session.send(...reads(1))
          await session.take(16 + MIB)
        }
        await candor.metrics()
        const before = descriptors() - CLIENTS * DESCRIPTORS
        for (const session of first) session.leave()
        for (let index = 0; index < CLIENTS; index++) {
          const session = await enterSilently(scope)
          session.send(...said)
        }
        await end?.()
        await nobodyThere()
        await until(
          'descriptors',
          async () => descriptors(),
          (count) => count <= before,
        )
      })
    }

    test('gets the replies that were on their way, also when its client goes on asking', async (scope) => {
      const session = await enterSilently(scope)
      session.send(...reads(3), request('simple', { type: DISC, cookie: 99n }))
      await nobodyThere()
      session.send(...reads(2))
      session.readOn()
      for (let index = 0; index < 3; index++) {
        assert.equal((await session.simpleReply()).error, 0)
        await session.take(MIB)
      }
    })
  })

  test('at a stop a secured client that takes its replies slowly gets all of them, each whole', {
    timeout: WATCHDOG_MS,
  }, async (scope) => {
    const { candor, port } = await serveTls(scope, '64M', '--tls-dir', material.server)
    const session = await TlsSession.enter(port, trusting)
    scope.after(() => session.leave())
    session.stopReading()
    session.send(...reads(8))
    await untilMetrics(candor, (metrics) => (metrics.get(READ_BYTES) ?? 0) >= 2 * MIB, 'replies on their way')
    candor.kill('SIGTERM')
    await untilRefused(port)
    session.readSlowly()
    const answered = new Set<bigint>()
    for (let index = 0; index < 8; index++) {
      const { error, cookie } = await session.simpleReply()
      assert.ok(error === 0 || error === ESHUTDOWN, `reply ${cookie}: error ${error}`)
      if (error === 0) await session.take(MIB)
      answered.add(cookie)
    }
    assert.equal(answered.size, 8)
    await session.closes()
    assert.equal((await candor.ended).code, 0)
  })
} else test('the end of secured connections', { skip })
