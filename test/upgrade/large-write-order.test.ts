// A server that is replaced while a large WRITE waits, and others behind it. Law: what came whole keeps its place in the order of
// arrival, in this process and the next; nothing that waits keeps an upgrade from being.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { imageAt, until } from '../support/controlled.js'
import { attach, KIB, lastFirst, MIB, type Scope } from '../support/faults.js'
import { noReadData, pattern } from '../support/large-writes.js'
import { type Lineage, startLineage } from '../support/lineage.js'
import { writeRequest } from '../support/raw-bytes.js'
import { RawClient } from '../support/raw-client.js'

const OFFSET = MIB + 512
const IN_FLIGHT = /^candor_requests_in_flight.*disk/
const WRITES = /^candor_requests_total.*disk.*write"/

async function serverOf(scope: Scope, ...words: readonly string[]): Promise<Lineage> {
  return startLineage(scope, (folder) => [
    `disk=${imageAt(join(folder, 'disk'), 32 * MIB)}`,
    ...['--listen', `unix:${join(folder, 'other')}`],
    ...words,
  ])
}

/** Everything comes to rest but another export, so that all goes on here. */
async function refusedBySlowStorage(server: Lineage): Promise<void> {
  await server.told('add', `slow=${imageAt(join(server.folder, 'slow'), MIB)}`)
  assert.equal((await server.ctl('inject', 'slow', 'read:delay=5s')).code, 0)
  const client = await attach(`nbd+unix:///slow?socket=${join(server.folder, 'other')}`)
  const read = client.read(0, 512)
  assert.match(await server.refused(), /the storage of slow kept requests/)
  await read
  await client.disconnect()
}

for (const [what, sentBytes, refused] of [
  ['whole', 2 * MIB + 28, false],
  ['whole', 2 * MIB + 28, true],
  ['in part', MIB, false],
] as const) {
  const end = refused ? 'an upgrade that comes to nothing' : 'an upgrade'
  test(`a WRITE behind a large one that came ${what} and waits for an operator lands in order behind ${end}`, async (t) => {
    const scope = lastFirst(t)
    const server = await serverOf(scope, ...(refused ? ['--upgrade-pause', '1s'] : []))
    const [large, small] = await Promise.all([1, 2].map(() => RawClient.enter(join(server.folder, 'other'), 'simple')))
    assert.ok(large !== undefined && small !== undefined)
    scope.after(() => [large, small].map((client) => client.vanish()))
    assert.equal((await server.ctl('release', 'disk')).code, 0)
    const inFlight = async () => [...(await server.candor.metrics())].find(([name]) => IN_FLIGHT.test(name))?.[1]
    const [first, second] = [pattern(2 * MIB, 7), pattern(4 * KIB, 9)]
    const frame = writeRequest('simple', 5n, OFFSET, first)
    await large.send(frame.subarray(0, sentBytes))
    await until('the large WRITE', inFlight, (count) => count === 1)
    await small.send(writeRequest('simple', 6n, OFFSET + 512 * KIB, second))
    await until('the other WRITE', inFlight, (count) => count === 2)
    if (refused) await refusedBySlowStorage(server)
    else await server.upgrade()
    await large.send(frame.subarray(sentBytes))
    assert.equal((await server.ctl('resume', 'disk')).code, 0)
    for (const [client, cookie] of [[large, 5n] as const, [small, 6n] as const]) {
      const reply = await client.reply(noReadData)
      assert.deepEqual([reply?.cookie, reply?.error], [cookie, 0])
    }
    const good = await attach(server.candor.uris[0] ?? '')
    const landed = Buffer.from(await good.read(OFFSET, first.length))
    // One of which a part has not come is begun when it has: behind those that are whole.
    if (what === 'whole') second.copy(first, 512 * KIB)
    assert.ok(landed.equals(first))
    await good.disconnect()
    const writes = [...(await server.candor.metrics())].find(([name]) => WRITES.test(name))?.[1]
    assert.equal(writes, 2)
    assert.equal((await server.stop()).code, 0)
  })
}

/** A large WRITE of which a part has landed, and a small one that waits for it. */
async function heldUp(scope: Scope, ...words: readonly string[]) {
  const server = await serverOf(scope, ...words)
  const [large, small] = await Promise.all([1, 2].map(() => RawClient.enter(join(server.folder, 'other'), 'simple')))
  assert.ok(large !== undefined && small !== undefined)
  scope.after(() => [large, small].map((client) => client.vanish()))
  const inFlight = async () => [...(await server.candor.metrics())].find(([name]) => IN_FLIGHT.test(name))?.[1]
  const frame = writeRequest('simple', 5n, OFFSET, pattern(4 * MIB, 7))
  await large.send(frame.subarray(0, 2 * MIB))
  await until('the large WRITE', inFlight, (count) => count === 1)
  await small.send(writeRequest('simple', 6n, OFFSET, pattern(4 * KIB, 9)))
  await until('the other WRITE', inFlight, (count) => count === 2)
  const ended = async () => {
    for (const [client, cookie] of [[large, 5n] as const, [small, 6n] as const]) {
      const reply = await client.reply(noReadData)
      assert.deepEqual([reply?.cookie, reply?.error], [cookie, 0])
    }
  }
  return { server, large, rest: frame.subarray(2 * MIB), ended }
}

test('an upgrade waits for a large WRITE that holds another up, and nobody waits for the upgrade', async (t) => {
  const { server, large, rest, ended } = await heldUp(lastFirst(t), '--upgrade-pause', '20s')
  const bystander = await attach(server.candor.uris[0] ?? '')
  const upgraded = server.upgrade()
  await until(
    'the new process',
    async () => server.candor.stderr(),
    (log) => log.includes('the new process is prepared'),
  )
  for (let index = 0; index < 20; index++) await bystander.read(20 * MIB, 512)
  assert.doesNotMatch(server.candor.stderr(), /everything is at rest/)
  await large.send(rest)
  await ended()
  await upgraded
  await bystander.disconnect()
  assert.equal((await server.stop()).code, 0)
})

test('and comes to nothing when the rest of it does not come', async (t) => {
  const { server, large, rest, ended } = await heldUp(lastFirst(t), '--upgrade-pause', '300ms')
  assert.match(await server.refused(), /a WRITE above 1M to disk has landed in part, .* try again/)
  await large.send(rest)
  await ended()
  await server.upgrade()
  assert.equal((await server.stop()).code, 0)
})
