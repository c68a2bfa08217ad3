// Large WRITEs and an upgrade that came to nothing: what had failed meanwhile holds nobody up, and what waits keeps its order.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { NBD_ENOSPC } from 'nbd-protocol'
import { imageAt, until } from '../support/controlled.js'
import { attach, KIB, lastFirst, MIB, type Scope } from '../support/faults.js'
import { noReadData, pattern } from '../support/large-writes.js'
import { type Lineage, startLineage } from '../support/lineage.js'
import { writeRequest } from '../support/raw-bytes.js'
import { RawClient } from '../support/raw-client.js'

const IN_FLIGHT = /^candor_requests_in_flight\{.*disk/

/** Two exports on one thread, and two clients of the first. */
async function scene(scope: Scope, ...words: readonly string[]) {
  const server = await startLineage(scope, (folder) => [
    `disk=${imageAt(join(folder, 'disk'), 32 * MIB)}`,
    `slow=${imageAt(join(folder, 'slow'), MIB)}`,
    ...['--listen', `unix:${join(folder, 'other')}`, '--upgrade-pause', '1s', '--workers', '1'],
    ...words,
  ])
  const path = join(server.folder, 'other')
  const [one, other] = [await RawClient.enter(path, 'simple'), await RawClient.enter(path, 'simple')]
  scope.after(() => {
    one.vanish()
    other.vanish()
  })
  const inFlight = async () => [...(await server.candor.metrics())].find(([name]) => IN_FLIGHT.test(name))?.[1]
  return { server, path, one, other, inFlight }
}

/** An upgrade that is refused, since a READ of the other export takes too long. */
async function refusedOnce(server: Lineage, path: string) {
  assert.equal((await server.ctl('inject', 'slow', 'read:delay=4s,count=1')).code, 0)
  const client = await attach(`nbd+unix:///slow?socket=${path}`)
  const read = client.read(0, 512)
  await server.refused()
  await read
  await client.disconnect()
}

test('a large WRITE of which a piece failed while all was frozen lets others go on', async (t) => {
  const { server, path, one, other, inFlight } = await scene(lastFirst(t))
  assert.equal((await server.ctl('inject', 'disk', 'write:ENOSPC@1M-2M,delay=1500ms,count=1')).code, 0)
  const frame = writeRequest('simple', 5n, MIB, pattern(4 * MIB, 7))
  await one.send(frame.subarray(0, 600 * KIB))
  await until('the WRITE', inFlight, (requests) => requests === 1)
  await refusedOnce(server, path)
  await one.send(frame.subarray(600 * KIB))
  assert.equal((await one.reply(noReadData))?.error, NBD_ENOSPC)
  await other.send(writeRequest('simple', 6n, MIB + 512 * KIB, pattern(4 * KIB, 9)))
  assert.equal((await other.reply(noReadData))?.cookie, 6n)
  await until('the end of both', inFlight, (requests) => requests === 0)
  await server.upgrade()
  assert.equal((await server.stop()).code, 0)
})

test('two large WRITEs that wait come to lie in their order over an upgrade that came to nothing, and one that did not', async (t) => {
  const { server, path, one, other, inFlight } = await scene(lastFirst(t))
  assert.equal((await server.ctl('release', 'disk')).code, 0)
  const [first, second] = [pattern(2 * MIB, 7), pattern(2 * MIB, 99)]
  await one.send(writeRequest('simple', 5n, MIB, first))
  await until('the first', inFlight, (requests) => requests === 1)
  const frame = writeRequest('simple', 6n, MIB, second)
  await other.send(frame.subarray(0, MIB))
  await until('the second', inFlight, (requests) => requests === 2)
  await refusedOnce(server, path)
  await other.send(frame.subarray(MIB))
  await until('both', inFlight, (requests) => requests === 2)
  await server.upgrade()
  assert.equal((await server.ctl('resume', 'disk')).code, 0)
  for (const client of [one, other]) assert.equal((await client.reply(noReadData))?.error, 0)
  const good = await attach(server.candor.uris[0] ?? '')
  assert.ok(Buffer.from(await good.read(MIB, 2 * MIB)).equals(second), 'what came first lies over what came last')
  await good.disconnect()
  assert.equal((await server.stop()).code, 0)
})

test('changes behind one that storage has come to lie in their order over an upgrade that came to nothing', async (t) => {
  const { server, path, one, other, inFlight } = await scene(lastFirst(t))
  assert.equal((await server.ctl('inject', 'disk', 'write:delay=6s,count=1')).code, 0)
  const [first, second] = [pattern(64 * KIB, 7), pattern(4 * KIB, 99)]
  const hung = await attach(server.candor.uris[0] ?? '')
  const held = hung.write(MIB, pattern(4 * KIB, 1))
  await until('the one that storage has', inFlight, (requests) => requests === 1)
  await one.send(writeRequest('simple', 5n, MIB, first))
  await until('the first', inFlight, (requests) => requests === 2)
  await other.send(writeRequest('simple', 6n, MIB, second))
  await until('the second', inFlight, (requests) => requests === 3)
  await refusedOnce(server, path)
  await held
  for (const client of [one, other]) assert.equal((await client.reply(noReadData))?.error, 0)
  second.copy(first)
  assert.ok(Buffer.from(await hung.read(MIB, 64 * KIB)).equals(first), 'what came first lies over what came last')
  await hung.disconnect()
  assert.equal((await server.stop()).code, 0)
})
