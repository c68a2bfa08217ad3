// A server that is replaced in the middle of a WRITE that goes to storage as it comes. Law: what has landed is not written
// again, the rest lands in the new process, and the client hears of it once.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { NBD_CMD_FLAG_FUA, NBD_EIO } from 'nbd-protocol'
import { imageAt, until } from '../support/controlled.js'
import { attach, KIB, lastFirst, MIB, type Scope } from '../support/faults.js'
import { noReadData, pattern } from '../support/large-writes.js'
import { type Lineage, startLineage } from '../support/lineage.js'
import { type Style, writeRequest } from '../support/raw-bytes.js'
import { RawClient } from '../support/raw-client.js'

const SIZE = 32 * MIB
const [EIO, EINVAL, ENOSPC] = [5, 22, 28]
const WRITES = /^candor_requests_total.*write"/
const LENGTH = 6 * MIB
const OFFSET = MIB + 512

async function serverOf(scope: Scope): Promise<Lineage> {
  return startLineage(scope, (folder) => [
    `disk=${imageAt(join(folder, 'disk'), SIZE)}`,
    ...['--listen', `unix:${join(folder, 'other')}`],
  ])
}

/** A client that has sent so much of a large WRITE, when another one, `good`, has seen what can have landed of it. */
async function sendPart(scope: Scope, server: Lineage, sentBytes: number, flags = 0) {
  const client = await RawClient.enter(join(server.folder, 'other'), 'simple')
  scope.after(() => client.vanish())
  const good = await attach(server.candor.uris[0] ?? '')
  const payload = pattern(LENGTH, 7)
  const frame = writeRequest('simple', 5n, OFFSET, payload, flags)
  await client.send(frame.subarray(0, sentBytes))
  const last = Math.floor((sentBytes - 28) / (256 * KIB)) * 256 * KIB - 1
  if (last > 0) while ((await good.read(OFFSET + last, 1))[0] !== payload[last]);
  return { client, good, payload, rest: frame.subarray(sentBytes) }
}

for (const [what, sentBytes] of [
  ['its header and some bytes', 100 * KIB],
  ['most of it', 5 * MIB + 100],
  ['all but its last byte', LENGTH + 27],
] as const) {
  test(`${what} of a large WRITE came to the old process: it lands whole, and is answered once`, async (t) => {
    const scope = lastFirst(t)
    const server = await serverOf(scope)
    const { client, good, payload, rest } = await sendPart(scope, server, sentBytes)
    const before = client.received
    await server.upgrade()
    await client.send(rest)
    const reply = await client.reply(noReadData)
    assert.deepEqual([reply?.cookie, reply?.error], [5n, 0])
    assert.ok(Buffer.from(await good.read(OFFSET, LENGTH)).equals(payload))
    await client.send(writeRequest('simple', 6n, 0, payload.subarray(0, KIB)))
    assert.equal((await client.reply(noReadData))?.cookie, 6n)
    assert.equal(client.received - before, 32, 'something was answered twice')
    const samples = await server.candor.metrics()
    const writes = [...samples].find(([name]) => WRITES.test(name))
    assert.equal(writes?.[1], 2)
    await good.disconnect()
    assert.equal((await server.stop()).code, 0)
  })
}

/** Two WRITEs, of which the new process is given more than it reads at once; both land, and are answered once. */
async function landBoth(
  scope: Scope,
  server: Lineage,
  style: Style,
  length: number,
  sentBytes: number,
  resume: boolean,
) {
  const client = await RawClient.enter(join(server.folder, 'other'), style)
  scope.after(() => client.vanish())
  const good = await attach(server.candor.uris[0] ?? '')
  const payload = pattern(length, 7)
  const frames = Buffer.concat([
    writeRequest(style, 5n, OFFSET, payload),
    writeRequest(style, 6n, 0, payload.subarray(0, KIB)),
  ])
  await client.send(frames.subarray(0, sentBytes))
  await server.upgrade()
  await client.send(frames.subarray(sentBytes))
  if (resume) assert.equal((await server.ctl('resume', 'disk')).code, 0)
  const cookies = []
  for (let index = 0; index < 2; index++) {
    const reply = await client.reply(noReadData)
    assert.equal(reply?.error, 0)
    cookies.push(reply?.cookie)
  }
  assert.deepEqual(cookies.sort(), [5n, 6n])
  assert.ok(Buffer.from(await good.read(OFFSET, length)).equals(payload), 'it landed as other bytes')
  await good.disconnect()
  assert.equal((await server.stop()).code, 0)
}

test('a WRITE that is kept whole and of which 10 MiB came to the old process lands as it was sent', async (t) => {
  const scope = lastFirst(t)
  await landBoth(scope, await serverOf(scope), 'extended', 16 * MIB, 10 * MIB, false)
})

for (const [what, sentBytes] of [
  ['8 MiB', 8 * MIB],
  ['all', 12 * MIB + 28],
] as const) {
  test(`a WRITE of which ${what} waited for an image that was let go of lands as it was sent`, async (t) => {
    const scope = lastFirst(t)
    const server = await serverOf(scope)
    assert.equal((await server.ctl('release', 'disk')).code, 0)
    await landBoth(scope, server, 'simple', 12 * MIB, sentBytes, true)
  })
}

for (const [when, sentBytes, failsBefore] of [
  ['before', 3 * MIB, true],
  ['behind', 3 * MIB, false],
  ['behind', LENGTH - 100 * KIB, false],
] as const) {
  test(`a sync that failed ${when} the upgrade fails a FUA WRITE of which ${sentBytes} bytes had come, though an operator has resumed`, async (t) => {
    const scope = lastFirst(t)
    const server = await serverOf(scope)
    const { client, good, payload, rest } = await sendPart(scope, server, sentBytes, NBD_CMD_FLAG_FUA)
    const fail = async () => {
      assert.ok((await server.ask({ command: 'inject', name: 'disk', words: ['flush:EIO,count=1'] })).ok)
      await assert.rejects(good.flush())
      assert.equal((await server.ctl('resume', 'disk')).code, 0)
    }
    if (failsBefore) await fail()
    await server.upgrade()
    if (!failsBefore) await fail()
    await client.send(rest)
    const reply = await client.reply(noReadData)
    assert.deepEqual([reply?.cookie, reply?.error], [5n, NBD_EIO], 'what landed first may be lost')
    await client.send(writeRequest('simple', 6n, OFFSET, payload.subarray(0, KIB), NBD_CMD_FLAG_FUA))
    assert.equal((await client.reply(noReadData))?.error, 0, 'what began since is not its affair')
    await good.disconnect()
    assert.equal((await server.stop()).code, 0)
  })
}

test('the rest of a FUA WRITE is no success before what had landed in the old process is synced, though it is small', async (t) => {
  const scope = lastFirst(t)
  const server = await serverOf(scope)
  const { client, good, rest } = await sendPart(scope, server, LENGTH - 100 * KIB, NBD_CMD_FLAG_FUA)
  await server.upgrade()
  assert.ok((await server.ask({ command: 'inject', name: 'disk', words: ['flush:EIO,count=1'] })).ok)
  await client.send(rest)
  const reply = await client.reply(noReadData)
  assert.deepEqual([reply?.cookie, reply?.error], [5n, NBD_EIO], 'nothing has been synced')
  await good.disconnect()
  assert.ok((await server.stop()).code !== null)
})

/** Sends a part of a WRITE whose end is known, and the rest to the next process; returns the answer's error. */
async function refusedAcross(scope: Scope, server: Lineage, frame: Uint8Array, sentBytes: number) {
  const client = await RawClient.enter(join(server.folder, 'other'), 'simple')
  scope.after(() => client.vanish())
  await client.send(frame.subarray(0, sentBytes))
  const came = async () => [...(await server.candor.metrics())].find(([name]) => WRITES.test(name))?.[1]
  await until('the WRITE', came, (writes) => writes === 1)
  for (let times = 0; times < 2; times++) await server.upgrade()
  await client.send(frame.subarray(sentBytes))
  await client.send(writeRequest('simple', 6n, 0, pattern(KIB, 3)))
  const refused = await client.reply(noReadData)
  assert.equal(refused?.cookie, 5n)
  const next = await client.reply(noReadData)
  assert.deepEqual([next?.cookie, next?.error], [6n, 0])
  assert.equal(await came(), 2)
  return refused.error
}

for (const sentBytes of [29, MIB, 2 * MIB + 27]) {
  test(`a WRITE past the end of which ${sentBytes} bytes came keeps no upgrade from being, and is refused when all has come`, async (t) => {
    const scope = lastFirst(t)
    const server = await serverOf(scope)
    const frame = writeRequest('simple', 5n, SIZE - MIB, pattern(2 * MIB, 7))
    assert.equal(await refusedAcross(scope, server, frame, sentBytes), ENOSPC)
    assert.equal((await server.stop()).code, 0)
  })
}

test('a WRITE that has failed in its middle keeps no upgrade from being, and its error is told when all has come', async (t) => {
  const scope = lastFirst(t)
  const server = await serverOf(scope)
  assert.equal((await server.ctl('inject', 'disk', 'write:EIO@2M-3M')).code, 0)
  const frame = writeRequest('simple', 5n, MIB, pattern(4 * MIB, 7))
  assert.equal(await refusedAcross(scope, server, frame, 3 * MIB), EIO)
  const written = [...(await server.candor.metrics())].find(([name]) => /^candor_written_bytes_total/.test(name))?.[1]
  assert.equal(written, KIB)
  assert.equal((await server.stop()).code, 0)
})

test('a frame that is too large, behind a WRITE that waits, is thrown away behind it by the next process too', async (t) => {
  const scope = lastFirst(t)
  const server = await serverOf(scope)
  assert.equal((await server.ctl('release', 'disk')).code, 0)
  const client = await RawClient.enter(join(server.folder, 'other'), 'simple')
  scope.after(() => client.vanish())
  const payload = pattern(2 * MIB, 7)
  const large = writeRequest('simple', 5n, OFFSET, payload)
  const tooLarge = writeRequest('simple', 6n, 0, Buffer.alloc(33 * MIB))
  await client.send(Buffer.concat([large, tooLarge.subarray(0, 8 * MIB)]))
  await server.upgrade()
  await client.send(tooLarge.subarray(8 * MIB))
  const refused = await client.reply(noReadData)
  assert.deepEqual([refused?.cookie, refused?.error], [6n, EINVAL])
  assert.equal((await server.ctl('resume', 'disk')).code, 0)
  const reply = await client.reply(noReadData)
  assert.deepEqual([reply?.cookie, reply?.error], [5n, 0])
  const good = await attach(server.candor.uris[0] ?? '')
  assert.ok(Buffer.from(await good.read(OFFSET, payload.length)).equals(payload))
  await good.disconnect()
  assert.equal((await server.stop()).code, 0)
})
