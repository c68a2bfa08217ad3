// A process that may open no more files turns clients away, and goes on: with those it has, its metrics, and its stop.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import type { Socket } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import { connectionsWithin } from '../../server/descriptor-room.js'
import { WATCHDOG_MS } from '../support/conformance-server.js'
import { until } from '../support/controlled.js'
import { assertHolds, attach, lastFirst, logged, serve, stamped } from '../support/faults.js'
import { scratchFolder } from '../support/guest-images.js'
import { ATTACH, ATTACHED_BYTES, allGone, mute } from '../support/hostile.js'
import { openFiles } from '../support/open-files.js'
import { request } from '../support/raw-bytes.js'
import { needs } from '../support/requirements.js'
import { credentials, TlsSession } from '../support/tls-client.js'
import { makeTlsMaterial, TLS_PROGRAMS } from '../support/tls-material.js'
import { serveTls, untilConnections } from '../support/tls-server.js'

const CLIENTS = 24
const skip = needs('prlimit', ...TLS_PROGRAMS)

/** Lets a process open so many more files than it has now. The limit is one of numbers, and those in use have gaps. */
function allowMore(pid: number, more: number): void {
  const used = new Set(readdirSync(`/proc/${pid}/fd`).map(Number))
  let limit = 0
  for (let free = 0; free < more || used.has(limit); limit++) if (!used.has(limit)) free++
  execFileSync('prlimit', ['--pid', String(pid), `--nofile=${limit}:`])
}

const socketsOf = (pid: number) => openFiles(pid).filter((file) => file.startsWith('socket:')).length

/** Whether a client is served: it is turned away as soon as it comes, or when it has said what it wants. */
async function gotIn(comes: Promise<TlsSession>): Promise<boolean> {
  try {
    const session = await comes
    session.send(request('simple', { type: 0, cookie: 7n, offset: 0, length: 512 }))
    assert.equal((await session.simpleReply()).error, 0)
    session.plain.destroy()
    return true
  } catch {
    return false
  }
}

/** Whether a client that has said what it wants is let in, or its connection closed. */
function isLetIn(socket: Socket): Promise<boolean> {
  let seen = 0
  if (socket.closed) return Promise.resolve(false)
  return new Promise((resolve) => {
    socket.on('data', (bytes: Buffer) => {
      seen += bytes.length
      if (seen >= ATTACHED_BYTES) resolve(true)
    })
    socket.on('close', () => resolve(false)).resume()
  })
}

describe('without descriptors to spare', { timeout: WATCHDOG_MS, skip }, () => {
  // Each number stops another step for want of one: accepting, the second descriptor, the change of threads.
  for (const more of [0, 1, 2, 3, 5, 8]) {
    test(`for more than ${more}, clients are turned away and nobody else notices`, async (t: TestContext) => {
      const scope = lastFirst(t)
      const { candor, unix } = await serveTls(scope, '16M')
      const good = await attach(candor)
      await good.write(0, stamped(0, 64 << 10))
      assert.equal((await candor.metrics()).get('candor_connections'), 1)
      allowMore(candor.pid, more)
      const crowd: Socket[] = []
      for (let index = 0; index < CLIENTS; index++) crowd.push(await mute(unix, ATTACH))
      await assertHolds(good, 0, 64 << 10)
      await good.write(1 << 20, stamped(1 << 20, 64 << 10))
      await good.flush()
      assert.ok((await Promise.all(crowd.map(isLetIn))).includes(false), 'not all have found room')
      allGone(crowd)
      allowMore(candor.pid, 1000)
      await untilConnections(candor, 1)
      assert.ok(await gotIn(TlsSession.enter(unix)))
      await good.disconnect()
      assert.equal((await candor.stop()).code, 0)
    })
  }

  test('a TLS client whose pair of sockets cannot be made is turned away', async (t) => {
    const scope = lastFirst(t)
    const material = makeTlsMaterial(scope)
    const { candor, unix } = await serveTls(scope, '1M', '--tls-dir', material.server, '--tls', 'require')
    const tls = credentials(material.client, false)
    const sockets = socketsOf(candor.pid)
    // The thread that ciphers starts with the first client, and keeps what it has opened.
    assert.ok(await gotIn(TlsSession.enter(unix, tls)))
    // The tunnel of one that has gone may outlast its connection: what it still has would be counted as room for the next.
    const untilAlone = () =>
      until(
        'sockets',
        async () => socketsOf(candor.pid),
        (open) => open === sockets,
      )
    await untilAlone()
    const came: boolean[] = []
    for (const more of [5, 4, 3, 2, 1]) {
      allowMore(candor.pid, more)
      came.push(await gotIn(TlsSession.enter(unix, tls)))
      await untilAlone()
    }
    assert.deepEqual([came.at(0), came.at(-1)], [true, false], `let in with 5 to 1 descriptors: ${came}`)
    allowMore(candor.pid, 1000)
    assert.ok(await gotIn(TlsSession.enter(unix, tls)))
    assert.equal((await candor.stop()).code, 0)
  })
})

describe('the limit of open files', () => {
  test('has room for the connections beside all else, three descriptors each with TLS', () => {
    const needs = { exports: 2, httpConnectionsMax: 100, tls: false }
    assert.equal(connectionsWithin(1024, 40, needs), 1024 - 40 - 64 - 4 - 100)
    assert.equal(connectionsWithin(1024, 40, { ...needs, tls: true }), Math.floor((1024 - 208) / 3))
    assert.equal(connectionsWithin(100, 40, needs), 1)
    assert.equal(connectionsWithin(Number.POSITIVE_INFINITY, 40, needs), Number.POSITIVE_INFINITY)
  })

  test('lowers --connections-max at the start, and says so', { skip, timeout: WATCHDOG_MS }, async (t) => {
    const scope = lastFirst(t)
    const image = `${scratchFolder(scope)}/disk.img`
    const wrapper = ['prlimit', '--nofile=400:400']
    const candor = await serve(scope, [`disk=${image}`, '--create', '1M', '--listen', 'tcp:127.0.0.1:0'], { wrapper })
    const [told = ''] = logged(candor, /limit of 400 open files/)
    const [, room] = /has room for (\d+) connections, not for 1024: raise the limit/.exec(told) ?? []
    assert.ok(Number(room) > 10 && Number(room) < 80, told)
  })
})
