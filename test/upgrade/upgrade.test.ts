// A server that is replaced by a new process while clients work. Law: no connection closes, nothing is lost or answered
// twice, and whoever comes later finds everything where it was.
import assert from 'node:assert/strict'
import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Client } from 'nbd-protocol'
import { runCandor } from '../support/candor.js'
import { imageAt } from '../support/controlled.js'
import { attach, KIB, lastFirst, logged, MIB } from '../support/faults.js'
import { lives, startLineage } from '../support/lineage.js'
import { UNDER_ALL } from '../support/requirements.js'
import { SteadyClient } from '../support/steady-client.js'

const SLOTS = 32
const SIZE = 16 * MIB
const UPGRADES = UNDER_ALL ? 100 : 10

/** Exports of one process, on TCP and on two Unix sockets. */
function words(names: readonly string[]) {
  return (folder: string) => [
    ...names.map((name) => `${name}=${imageAt(join(folder, name), SIZE)}`),
    ...['--listen', 'tcp:127.0.0.1:0'],
    ...['--listen', `unix:${join(folder, 'other')}`],
  ]
}

test('busy and idle connections to several exports, over TCP and Unix sockets, notice nothing of an upgrade', async (t) => {
  const scope = lastFirst(t)
  const server = await startLineage(scope, words(['a', 'b', 'c']))
  const { candor, folder } = server
  assert.equal(candor.uris.length, 9)
  const clients: Client[] = []
  for (const uri of candor.uris) clients.push(await attach(uri))
  const idle = await attach(candor.uris[0] ?? '')
  await idle.write(8 * MIB, Buffer.alloc(4 * KIB, 7))
  // The three listeners of an export are three parts of its disk.
  const working = clients.map(
    (client, index) =>
      new SteadyClient(client, {
        start: (index % 3) * SLOTS * 64 * KIB,
        slots: SLOTS,
        depth: index % 2 === 0 ? 1 : 8,
        seed: index,
      }),
  )
  await Promise.all(working.map((worker) => worker.more(20)))
  const before = await candor.metrics()
  const old = server.pid
  const { pauseMs } = await server.upgrade()
  assert.notEqual(server.pid, old)
  assert.equal(lives(old), false)
  await Promise.all(working.map((worker) => worker.more(20)))
  assert.equal((await server.sessions()).length, clients.length + 1)
  const worked = await Promise.all(working.map((worker) => worker.stop()))
  t.diagnostic(
    `clients waited ${pauseMs.toFixed(1)} ms; the slowest request took ${Math.max(...worked.map(({ worstMs }) => worstMs)).toFixed(1)} ms`,
  )
  assert.deepEqual(await idle.read(8 * MIB, 4 * KIB), new Uint8Array(Buffer.alloc(4 * KIB, 7)))

  const after = await candor.metrics()
  for (const [name, value] of before) {
    if (!/^candor_(requests|read_bytes|written_bytes|connections|protocol).*total|_(count|sum|bucket)/.test(name))
      continue
    assert.ok((after.get(name) ?? 0) >= value, `${name} went back from ${value} to ${after.get(name)}`)
  }
  assert.equal(after.get('candor_connections'), clients.length + 1)
  assert.equal(after.get('candor_connections_accepted_total'), clients.length + 1)
  for (const uri of candor.uris) await (await attach(uri)).read(0, 512)
  assert.equal(statSync(join(folder, 'nbd')).mode & 0o777, 0o600)
  assert.deepEqual(logged(candor, /unclean|suspect|lost/), [])

  const other = ['--http', 'off', '--listen', `unix:${join(folder, 'y')}`]
  const [rival, twin] = await Promise.all([
    runCandor(['serve', `x=${join(folder, 'a')}`, '--state-dir', join(folder, 'x'), ...other]),
    runCandor(['serve', `x=${imageAt(join(folder, 'x.img'), MIB)}`, '--state-dir', server.state, ...other]),
  ])
  assert.match(rival.stderr, /is in use by another program that locked it/)
  assert.match(twin.stderr, /is in use by another candor/)
  assert.equal((await server.stop()).code, 0)
  assert.ok(
    !existsSync(join(folder, 'nbd')) && !existsSync(join(folder, 'other')),
    'the sockets are removed at the end',
  )
})

test(`${UPGRADES} upgrades under load: each answer is right, and none is missing`, async (t) => {
  const scope = lastFirst(t)
  const server = await startLineage(scope, words(['a', 'b']))
  // One on each listener, at depths of 1, 3 and 5.
  const clients = await Promise.all(server.candor.uris.slice(0, 3).map((uri) => attach(uri)))
  const working = clients.map(
    (client, index) =>
      new SteadyClient(client, { start: index * SLOTS * 64 * KIB, slots: SLOTS, depth: 1 + 2 * index, seed: index }),
  )
  const pauses: number[] = []
  for (let upgrade = 0; upgrade < UPGRADES; upgrade++) {
    await Promise.all(working.map((worker) => worker.more(5)))
    pauses.push((await server.upgrade()).pauseMs)
  }
  const worked = await Promise.all(working.map((worker) => worker.stop()))
  const sorted = pauses.sort((a, b) => a - b)
  t.diagnostic(
    `pauses of ${sorted[0]?.toFixed(1)} to ${sorted.at(-1)?.toFixed(1)} ms, ${sorted[sorted.length >> 1]?.toFixed(1)} in the middle`,
  )
  const requests = worked.reduce((sum, each) => sum + each.requests, 0)
  const samples = await server.candor.metrics()
  const counted = [...samples].reduce(
    (sum, [name, value]) => (name.startsWith('candor_requests_total') ? sum + value : sum),
    0,
  )
  assert.equal(counted, requests)
  assert.equal(samples.get('candor_connections_accepted_total'), clients.length)
  assert.equal((await server.stop()).code, 0)
})
