// A server that is replaced in the middle of a WRITE that goes to storage as it comes. Law: what has landed is not written
// again, the rest lands in the new process, and the client hears of it once.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { imageAt } from '../support/controlled.js'
import { attach, KIB, lastFirst, MIB } from '../support/faults.js'
import { noReadData, pattern } from '../support/large-writes.js'
import { startLineage } from '../support/lineage.js'
import { writeRequest } from '../support/raw-bytes.js'
import { RawClient } from '../support/raw-client.js'

const SIZE = 32 * MIB
const LENGTH = 6 * MIB
const OFFSET = MIB + 512

for (const [what, sentBytes] of [
  ['its header and some bytes', 100 * KIB],
  ['most of it', 5 * MIB + 100],
  ['all but its last byte', LENGTH + 27],
] as const) {
  test(`${what} of a large WRITE came to the old process: it lands whole, and is answered once`, async (t) => {
    const scope = lastFirst(t)
    const server = await startLineage(scope, (folder) => [
      `disk=${imageAt(join(folder, 'disk'), SIZE)}`,
      ...['--listen', `unix:${join(folder, 'other')}`],
    ])
    const client = await RawClient.enter(join(server.folder, 'other'), 'simple')
    scope.after(() => client.vanish())
    const good = await attach(server.candor.uris[0] ?? '')
    const payload = pattern(LENGTH, 7)
    const frame = writeRequest('simple', 5n, OFFSET, payload)
    await client.send(frame.subarray(0, sentBytes))
    const last = Math.floor((sentBytes - 28) / (256 * KIB)) * 256 * KIB - 1
    if (last > 0) while ((await good.read(OFFSET + last, 1))[0] !== payload[last]);
    const before = client.received
    await server.upgrade()
    await client.send(frame.subarray(sentBytes))
    const reply = await client.reply(noReadData)
    assert.deepEqual([reply?.cookie, reply?.error], [5n, 0])
    assert.ok(Buffer.from(await good.read(OFFSET, LENGTH)).equals(payload))
    await client.send(writeRequest('simple', 6n, 0, payload.subarray(0, KIB)))
    assert.equal((await client.reply(noReadData))?.cookie, 6n)
    assert.equal(client.received - before, 32, 'something was answered twice')
    const samples = await server.candor.metrics()
    const writes = [...samples].find(([name]) => /^candor_requests_total.*write"/.test(name))
    assert.equal(writes?.[1], 2)
    await good.disconnect()
    assert.equal((await server.stop()).code, 0)
  })
}
