// Replies on their way out: part of them goes to the kernel at once, the rest through the event loop, and a client that
// is slow gets every byte in order all the same.
import assert from 'node:assert/strict'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { adoptSocket } from '../../server/nbd/adopt-socket.js'
import { ReplyBatch } from '../../server/nbd/reply-batch.js'
import { temporaryFolder } from '../support/candor.js'

interface Ends {
  readonly client: Socket
  readonly socket: Socket
  readonly fd: number
  readonly batch: ReplyBatch
  readonly folder: string
}

/** A client that does not read yet, and the server's end of its connection. */
async function ends(): Promise<Ends> {
  const folder = temporaryFolder()
  after(() => folder.remove())
  const path = join(folder.path, 'socket')
  const server = createServer({ pauseOnConnect: true }).listen(path)
  await new Promise((resolve) => server.once('listening', resolve))
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve))
  const client = connect(path).pause()
  const sink = { target: Buffer.alloc(64), arrived: () => true }
  const { socket, fd } = adoptSocket(await accepted, sink)
  socket.on('error', () => undefined)
  server.close()
  after(() => {
    client.destroy()
    socket.destroy()
  })
  return { client, socket, fd, batch: new ReplyBatch(socket, fd, () => undefined), folder: folder.path }
}

const REPLY = 100_000

function reply(batch: ReplyBatch, index: number): void {
  const at = batch.reserve(REPLY)
  batch.bytes.fill(index % 251, at, at + REPLY)
  batch.commit(at + REPLY)
}

/** Connections of somebody else, with what arrives at their other ends until they are closed. */
async function someSockets(path: string): Promise<{ descriptors: number[]; received(): Promise<number> }> {
  let bytes = 0
  let open = 0
  let allClosed = () => {}
  const closed = new Promise<void>((resolve) => {
    allClosed = resolve
  })
  const server = createServer((socket) => {
    socket.on('data', (chunk) => {
      bytes += chunk.length
    })
    socket.on('end', () => --open === 0 && allClosed())
  }).listen(path)
  await new Promise((resolve) => server.once('listening', resolve))
  const sockets = Array.from({ length: 8 }, () => connect(path))
  open = sockets.length
  await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once('connect', resolve))))
  const received = async () => {
    for (const socket of sockets) socket.end()
    await closed
    server.close()
    return bytes
  }
  const descriptors = sockets.map(
    (socket) => (socket as { readonly _handle?: { readonly fd: number } })._handle?.fd ?? -1,
  )
  return { descriptors, received }
}

describe('replies', () => {
  test('reach a client that reads late whole and in order, whoever sent them', async () => {
    const { client, socket, batch } = await ends()
    const count = 200
    for (let index = 0; index < count; index++) {
      if (index % 7 === 0) batch.send([Buffer.alloc(REPLY / 2, index % 251), Buffer.alloc(REPLY / 2, index % 251)])
      else reply(batch, index)
    }
    batch.flush()
    assert.ok(batch.backlog > 0, 'the kernel did not take all of it')
    assert.ok(batch.backlog < count * REPLY, 'it took a part at once')
    let seen = 0
    for await (const chunk of client) {
      for (const byte of chunk as Buffer) {
        if (byte !== Math.floor(seen / REPLY) % 251) assert.fail(`byte ${seen} is ${byte}`)
        seen += 1
      }
      if (seen === count * REPLY) break
    }
    assert.equal(batch.backlog, 0)
    assert.ok(!socket.destroyed)
  })

  test('that come after the end of the connection are not written to whatever has its descriptor now', async () => {
    const { socket, fd, batch, folder } = await ends()
    reply(batch, 1)
    const closed = new Promise((resolve) => socket.once('close', resolve))
    socket.destroy()
    await closed
    const others = await someSockets(join(folder, 'others'))
    assert.ok(others.descriptors.includes(fd), 'the descriptor is in use again')
    batch.flush()
    batch.send([Buffer.alloc(10)])
    assert.equal(await others.received(), 0)
  })
})
