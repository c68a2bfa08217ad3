// What a new process has to know when it takes over: halves of requests and of replies, what was not synced, what failed,
// what an operator has said. Law: each is looked for with a client or a tool that would notice its loss.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { NBD_EIO } from 'nbd-protocol'
import { imageAt } from '../support/controlled.js'
import { attach, exportState, KIB, lastFirst, MIB, refused, stamped } from '../support/faults.js'
import { type Lineage, startLineage } from '../support/lineage.js'
import { request, STYLES, writeRequest } from '../support/raw-bytes.js'
import { RawClient } from '../support/raw-client.js'

const READ = 0
const DISC = 2

function diskOf(size: number, ...words: readonly string[]) {
  return (folder: string) => [`disk=${imageAt(join(folder, 'disk'), size)}`, ...words]
}

/** One successful reply without data; fails for anything else. */
async function done(client: RawClient, cookie: bigint): Promise<void> {
  const reply = await client.reply(() => 0)
  assert.deepEqual([reply?.cookie, reply?.error], [cookie, 0])
}

test('requests that are cut anywhere by upgrades are served once they are whole, whatever their style', async (t) => {
  const scope = lastFirst(t)
  const server = await startLineage(scope, diskOf(24 * MIB))
  const streams = await Promise.all(
    STYLES.map(async (style, index) => {
      const client = await RawClient.enter(join(server.folder, 'nbd'), style)
      scope.after(() => client.socket.destroy())
      const offset = index * 8 * MIB
      // With extended headers a WRITE that goes to storage as it comes is waited for: a stream that stops in it cannot move.
      const data = stamped(offset, style === 'extended' ? 512 * KIB : 2 * MIB, 5)
      const large = writeRequest(style, 1n, offset, data)
      const all = Buffer.concat([large, writeRequest(style, 2n, offset + 4 * MIB, data.subarray(0, 512))])
      // Inside of a header, inside of a payload that has a buffer of its own, and inside of a small one behind it.
      return { client, offset, data, all, cuts: [0, 11, 300 * KIB, large.length + 100, all.length] }
    }),
  )
  for (let part = 0; part < 4; part++) {
    for (const { client, all, cuts } of streams) await client.send(all.subarray(cuts[part], cuts[part + 1]))
    if (part < 3) await server.upgrade()
  }
  const reader = await attach(server.candor)
  for (const { client, offset, data } of streams) {
    await done(client, 1n)
    await done(client, 2n)
    assert.ok(data.equals(await reader.read(offset, data.length)))
    assert.ok(data.subarray(0, 512).equals(await reader.read(offset + 4 * MIB, 512)))
  }
})

test('clients that take no replies get each of them once, over two upgrades, whatever their style', async (t) => {
  const scope = lastFirst(t)
  const server = await startLineage(scope, diskOf(16 * MIB))
  const writer = await attach(server.candor)
  for (let at = 0; at < 16; at++) await writer.write(at * MIB, stamped(at * MIB, MIB))
  const waiting = await Promise.all(
    STYLES.map(async (style) => {
      const client = await RawClient.enter(join(server.folder, 'nbd'), style)
      scope.after(() => client.socket.destroy())
      client.socket.pause()
      const cookies = Array.from({ length: 16 }, (_, index) => BigInt(index))
      for (const cookie of cookies) {
        await client.send(request(style, { type: READ, cookie, offset: Number(cookie) * MIB, length: MIB }))
      }
      return { style, client, cookies }
    }),
  )
  await server.upgrade()
  for (const { client, cookies } of waiting) {
    client.socket.resume()
    for (let index = 0; index < 6; index++) await expectRead(client, cookies)
    client.socket.pause()
  }
  await server.upgrade()
  for (const { style, client, cookies } of waiting) {
    client.socket.resume()
    while (cookies.length > 0) await expectRead(client, cookies)
    await client.send(writeRequest(style, 99n, 0, stamped(0, 512)))
    await done(client, 99n)
    await client.send(request(style, { type: DISC, cookie: 100n, offset: 0, length: 0 }))
    await client.closed
  }
})

async function expectRead(client: RawClient, cookies: bigint[]): Promise<void> {
  const reply = await client.reply(() => MIB)
  assert.ok(reply !== undefined && reply.error === 0)
  const index = cookies.indexOf(reply.cookie)
  assert.notEqual(index, -1, `${reply.cookie} was answered twice, or never asked`)
  cookies.splice(index, 1)
  const at = Number(reply.cookie) * MIB
  const payload = Buffer.from(reply.payload).subarray(-MIB)
  assert.ok(stamped(at, MIB).equals(payload), `the reply ${reply.cookie} has the bytes of another place`)
}

/** The line of the kernel's list that says who took the lock of an image, and when it was not yet another's. */
function lockOf(path: string): string | undefined {
  const { ino } = statSync(path)
  return readFileSync('/proc/locks', 'utf8')
    .split('\n')
    .find((line) => line.includes('FLOCK') && line.includes(`:${ino} `))
    ?.replace(/^\d+:/, '')
}

async function ask(server: Lineage, command: string, ...words: readonly string[]): Promise<void> {
  const reply = await server.ask({ command, name: 'disk', words })
  assert.ok(reply.ok, JSON.stringify(reply))
}

test('what was written before an upgrade and not synced is suspect when the next sync fails after it', async (t) => {
  const scope = lastFirst(t)
  const server = await startLineage(scope, diskOf(16 * MIB))
  const lock = lockOf(join(server.folder, 'disk'))
  assert.notEqual(lock, undefined)
  const client = await attach(server.candor)
  await client.write(0, stamped(0, MIB))
  await client.flush()
  await client.write(4 * MIB, stamped(4 * MIB, 2 * MIB))
  await server.upgrade()
  assert.equal(lockOf(join(server.folder, 'disk')), lock, 'the lock is still that of the first open file description')
  await client.write(8 * MIB, stamped(8 * MIB, MIB))
  await ask(server, 'inject', 'flush:EIO,count=1')
  await refused(client.flush(), NBD_EIO)
  assert.equal((await server.summary('disk'))?.suspectBytes, 3 * MIB)

  await server.upgrade()
  assert.equal(await exportState(server.candor, 'disk'), 'degraded')
  assert.equal((await server.summary('disk'))?.suspectBytes, 3 * MIB)
  await refused(client.flush(), NBD_EIO)
  await refused(client.read(4 * MIB, 4 * KIB), NBD_EIO)
  await refused(client.read(8 * MIB, 4 * KIB), NBD_EIO)
  assert.ok(stamped(0, MIB).equals(await client.read(0, MIB)))
  await client.write(4 * MIB, stamped(4 * MIB, 2 * MIB, 1))

  await server.upgrade()
  assert.equal((await server.summary('disk'))?.suspectBytes, MIB)
  assert.ok(stamped(4 * MIB, MIB, 1).equals(await client.read(4 * MIB, MIB)))
  await ask(server, 'resume')
  await client.flush()
  await server.upgrade()
  assert.equal(await exportState(server.candor, 'disk'), 'ok')
  assert.equal((await server.summary('disk'))?.suspectBytes, MIB)
  await ask(server, 'forget')
  assert.equal((await server.stop()).code, 0)
})

test('an upgraded server that is killed leaves a shadow of what it had not synced, its predecessors included', async (t) => {
  const scope = lastFirst(t)
  const folderWords = diskOf(16 * MIB)
  const server = await startLineage(scope, folderWords)
  const client = await attach(server.candor)
  await client.write(4 * MIB, stamped(4 * MIB, MIB))
  await server.upgrade()
  server.signal('SIGKILL')
  await server.candor.ended
  const record = readFileSync(
    join(server.state, readdirSync(server.state).find((name) => name.startsWith('image-')) ?? ''),
  )
  const shadow = record.subarray(128 * KIB)
  assert.deepEqual([...shadow], [1 << 4, 0])
})

test('faults that are injected, a policy that was set and an image that was let go of stay so', async (t) => {
  const scope = lastFirst(t)
  const server = await startLineage(scope, diskOf(16 * MIB))
  const client = await attach(server.candor)
  await ask(server, 'inject', 'trim:ENOSPC')
  assert.ok((await server.ctl('set', 'disk', '--reserve', '1M')).code === 0)
  await client.write(0, stamped(0, MIB))
  await ask(server, 'release')
  const held = client.read(0, MIB)
  await server.upgrade()
  const [first] = await server.summaries()
  assert.equal(first?.reserve, MIB)
  assert.notEqual(first?.releasedSince, undefined)
  await ask(server, 'resume')
  assert.ok(stamped(0, MIB).equals(await held))
  await assert.rejects(client.trim(0, MIB), /NBD_ENOSPC/)
  await server.upgrade()
  await assert.rejects(client.trim(0, MIB), /NBD_ENOSPC/)
  await client.write(MIB, stamped(MIB, MIB))
  await client.flush()
  assert.equal((await server.stop()).code, 0)
})
