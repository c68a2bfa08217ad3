// Large READs whose data leave in the kernel's own pages: the same bytes, the same errors, and nothing for a client that does not
// take them.
import assert from 'node:assert/strict'
import { closeSync, openSync, truncateSync, writeFileSync } from 'node:fs'
import { Socket } from 'node:net'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { NBD_CMD_READ, type ReplyStyle } from 'nbd-protocol'
import {
  type Backend,
  DONE,
  EIO,
  type Outcome,
  openBackend,
  pagePipe,
  SYNC_FAILED,
  socketIo,
  socketPair,
} from '../../backends/index.js'
import { PAGES_BYTES_MIN } from '../../server/nbd/read-now.js'
import { ReplyBatch } from '../../server/nbd/reply-batch.js'
import { READ_BYTES_AT } from '../../server/observe/counters.js'
import { temporaryFolder } from '../support/candor.js'
import { serveInProcess } from '../support/in-process.js'
import { KIB, MIB, pattern, until } from '../support/large-writes.js'
import { request } from '../support/raw-bytes.js'
import { RawClient } from '../support/raw-client.js'

const BYTES = 16 * MIB

/** A served image in the page cache; `onPages` is called when a range was put into the pipe. */
async function scene() {
  const folder = temporaryFolder()
  const path = join(folder.path, 'image')
  const content = pattern(BYTES, 5)
  writeFileSync(path, content)
  const inner = await openBackend('sparse-file', { path, readOnly: false })
  const seen = { pages: 0, onPages: () => {} }
  const pagesNow = (length: number, offset: number): Outcome => {
    const outcome = inner.pagesNow?.(length, offset) ?? DONE
    if (outcome === DONE) {
      seen.pages += 1
      seen.onPages()
    }
    return outcome
  }
  const backend = new Proxy(inner, {
    get: (target, key) => {
      if (key === 'pagesNow') return pagesNow
      const value: unknown = Reflect.get(target, key)
      return typeof value === 'function' ? value.bind(target) : value
    },
  }) satisfies Backend
  const server = await serveInProcess(backend)
  after(async () => {
    await server.close()
    folder.remove()
  })
  return { path, content, server, seen }
}

for (const replyStyle of ['simple', 'structured', 'extended'] satisfies ReplyStyle[]) {
  test(`the bytes of the image come, with ${replyStyle} replies`, async () => {
    const { content, server, seen } = await scene()
    const client = await server.client({ replyStyle, blockSizes: false })
    const ranges = [
      [0, PAGES_BYTES_MIN],
      [MIB, MIB],
      [5000, 300 * KIB + 1],
      [BYTES - PAGES_BYTES_MIN, PAGES_BYTES_MIN],
    ] as const
    for (const [offset, length] of ranges) {
      assert.ok(Buffer.from(await client.read(offset, length)).equals(content.subarray(offset, offset + length)))
    }
    assert.equal(seen.pages, ranges.length)
    const short = await client.read(0, PAGES_BYTES_MIN - 1)
    assert.ok(Buffer.from(short).equals(content.subarray(0, PAGES_BYTES_MIN - 1)))
    assert.equal(seen.pages, ranges.length, 'less than that is copied')
    const all = ranges.reduce((sum, [, length]) => sum + length, short.length)
    assert.equal(server.served.counters[READ_BYTES_AT], all)
    await client.disconnect()
  })
}

test('a client that takes its replies late gets each of them whole, among smaller ones', async () => {
  const { content, server, seen } = await scene()
  const client = await RawClient.enter(server.path, 'simple')
  const reads = Array.from({ length: 24 }, (_, index) => ({
    offset: index * 128 * KIB,
    length: index % 3 === 0 ? 4 * KIB : 256 * KIB + index,
  }))
  const frames = reads.map(({ offset, length }, index) =>
    request('simple', { type: NBD_CMD_READ, cookie: BigInt(index), offset, length }),
  )
  client.socket.pause()
  await client.send(Buffer.concat(frames))
  await until(() => server.host.backlog > 0)
  client.socket.resume()
  for (let left = reads.length; left > 0; left--) {
    const reply = await client.reply((cookie) => reads[Number(cookie)]?.length ?? 0)
    const { offset = 0, length = 0 } = reads[Number(reply?.cookie)] ?? {}
    assert.equal(reply?.error, 0)
    assert.ok(Buffer.from(reply.payload).equals(content.subarray(offset, offset + length)))
  }
  assert.ok(seen.pages > 0)
  client.vanish()
})

test('bytes that become suspect while they are read are EIO, and the next READ is served', async () => {
  const { content, server, seen } = await scene()
  const client = await server.client()
  await client.write(MIB, content.subarray(MIB, MIB + 64 * KIB))
  seen.onPages = () => {
    seen.onPages = () => {}
    server.served.durability.judge(EIO | SYNC_FAILED)
  }
  await assert.rejects(client.read(MIB, MIB), /NBD_EIO/)
  const next = Buffer.from(await client.read(2 * MIB, MIB))
  assert.ok(next.equals(content.subarray(2 * MIB, 3 * MIB)))
  assert.equal(seen.pages, 2)
  await client.disconnect()
})

test('a part that somebody cut off is EIO, and no zeroes', async () => {
  const { path, content, server } = await scene()
  const client = await server.client()
  truncateSync(path, BYTES - 64 * KIB)
  await assert.rejects(client.read(BYTES - 256 * KIB, 256 * KIB), /NBD_EIO/)
  assert.ok(Buffer.from(await client.read(0, MIB)).equals(content.subarray(0, MIB)))
  await client.disconnect()
})

test('replies that the kernel did not take whole go before the pages behind them', async () => {
  const folder = temporaryFolder()
  const path = join(folder.path, 'image')
  const pages = pattern(PAGES_BYTES_MIN, 5)
  writeFileSync(path, pages)
  const image = openSync(path, 'r+')
  const [near, far] = socketPair()
  const [socket, other] = [new Socket({ fd: near }), new Socket({ fd: far })]
  const batch = new ReplyBatch(socket, near, () => {})
  const put = (bytes: Uint8Array) => {
    const at = batch.reserve(bytes.length)
    batch.bytes.set(bytes, at)
    batch.commit(at + bytes.length)
  }
  // The kernel's buffer is as large as it gets, and full.
  socketIo.sendBuffer(near, 2 * MIB)
  let before = 0
  for (let sent = 1; sent > 0; before += sent) sent = socketIo.sendNow(near, new Uint8Array(64 * KIB), 0, 64 * KIB)
  const [reply, header] = [pattern(100 * KIB, 9), pattern(16, 3)]
  put(reply)
  assert.ok(batch.takesPages)
  assert.equal(pagePipe.pagesIn(image, 0, pages.length), DONE)
  put(header)
  assert.ok(batch.backlog > 0, 'the kernel took all of it')
  const taken = new Uint8Array(200 * KIB)
  const early = socketIo.receiveNow(far, taken, 0)
  assert.ok(early > 0)
  batch.flushWithPages(pages.length)
  const chunks = [Buffer.from(taken.subarray(0, early))]
  let come = early
  other.on('data', (chunk) => {
    chunks.push(chunk)
    come += chunk.length
  })
  const all = before + reply.length + header.length + pages.length
  await until(() => come >= all)
  assert.ok(
    Buffer.concat(chunks)
      .subarray(before)
      .equals(Buffer.concat([reply, header, pages])),
  )
  socket.destroy()
  other.destroy()
  closeSync(image)
  folder.remove()
})
