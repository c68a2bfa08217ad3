// Every limit of a connection, one past its edge: what is too much is refused or waits, and nothing else is hurt.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { after, describe, test } from 'node:test'
import {
  encodeInfoRequest,
  encodeOption,
  encodeRequest,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_EINVAL,
  NBD_OPT_GO,
  RequestError,
  viewOf,
} from 'nbd-protocol'
import { openBackend, WOULD_BLOCK, withFaults } from '../../backends/index.js'
import type { NbdLimits } from '../../server/nbd/nbd-options.js'
import { IN_FLIGHT_AT } from '../../server/observe/counters.js'
import { type InProcess, serveInProcess } from '../support/in-process.js'

const MIB = 1 << 20
const BLOCK = 4096
const PAYLOAD_MAX = 32 * MIB

async function memoryServer(limits: Partial<NbdLimits> = {}, size = 64 * MIB): Promise<InProcess> {
  const server = await serveInProcess(await openBackend('memory', { size }), limits)
  after(() => server.close())
  return server
}

interface Held {
  readonly server: InProcess
  release(): void
}

/** A disk whose reads all wait in storage until they are released. */
async function heldServer(limits: Partial<NbdLimits>): Promise<Held> {
  let release = () => {}
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  const disk = withFaults(await openBackend('memory', { size: 64 * MIB }), ({ command, now }) => {
    if (command !== 'read') return undefined
    return now ? { outcome: WOULD_BLOCK } : { outcome: 0, after: released }
  })
  const server = await serveInProcess(disk, limits)
  after(() => server.close())
  return { server, release }
}

/** A socket that has entered transmission with simple replies; nothing of it is read after that. */
async function rawSession(path: string): Promise<Socket> {
  const socket = connect(path)
  socket.write(Buffer.from([0, 0, 0, 3]))
  socket.write(encodeOption(NBD_OPT_GO, encodeInfoRequest({ name: 'disk', requests: [] })))
  let seen = 0
  while (seen < 18 + 20 + 12 + 20) {
    await once(socket, 'readable')
    seen += (socket.read() as Buffer | null)?.length ?? 0
  }
  after(() => socket.destroy())
  return socket
}

function request(type: number, cookie: number, offset: number, length: number): Uint8Array {
  const header = new Uint8Array(28)
  const fields = { type, flags: 0, cookieHigh: 0, cookieLow: cookie, offset, length, payloadLength: 0 }
  encodeRequest(viewOf(header), 0, false, fields)
  return header
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve))
}

describe('the payload of one request', () => {
  test('may have 32 MiB; one byte more is refused, and the stream stays in step', async () => {
    const server = await memoryServer()
    const client = await server.client()
    const largest = Buffer.alloc(PAYLOAD_MAX, 5)
    await client.write(0, largest)
    assert.deepEqual(Buffer.from(await client.read(0, PAYLOAD_MAX)), largest)
    const refused = (error: unknown) => error instanceof RequestError && error.error === NBD_EINVAL
    await assert.rejects(client.write(0, Buffer.alloc(PAYLOAD_MAX + 1)), refused)
    await assert.rejects(client.write(0, Buffer.alloc(PAYLOAD_MAX + 5)), refused)
    await assert.rejects(client.read(0, PAYLOAD_MAX + 1), refused)
    assert.deepEqual(Buffer.from(await client.read(0, BLOCK)), Buffer.alloc(BLOCK, 5))
  })

  test('ends the connection past the bound of what is thrown away, and no other connection', async () => {
    const server = await memoryServer({ oversizeBytesMax: 40 * MIB })
    const other = await server.client()
    const socket = await rawSession(server.path)
    socket.resume().write(request(NBD_CMD_WRITE, 1, 0, 40 * MIB + 1))
    await once(socket, 'close')
    assert.equal((await other.read(0, BLOCK)).length, BLOCK)
  })
})

describe('connections', () => {
  test('one past the bound is closed, and comes in when another has left', async () => {
    const server = await memoryServer({ connectionsMax: 2 })
    const first = await server.client()
    await server.client()
    await assert.rejects(server.client())
    await first.disconnect()
    await until(() => server.server.connections < 2)
    assert.equal((await (await server.client()).read(0, 1)).length, 1)
  })

  test('a handshake that takes too long ends', async () => {
    const server = await memoryServer({ handshakeTimeoutMs: 50 })
    const socket = connect(server.path)
    socket.resume()
    await once(socket, 'close')
    await until(() => server.server.connections === 0)
  })
})

describe('requests in flight', () => {
  test('at their bound the connection is not read, and goes on when one is answered', async () => {
    const { server, release } = await heldServer({ slowRequestsMax: 4 })
    const client = await server.client()
    const reads = Array.from({ length: 20 }, (_, index) => client.read(index * BLOCK, BLOCK))
    const other = await server.client()
    await other.write(0, Buffer.alloc(BLOCK))
    assert.equal(server.served.counters[IN_FLIGHT_AT], 4)
    release()
    assert.equal((await Promise.all(reads)).length, 20)
    await until(() => server.served.counters[IN_FLIGHT_AT] === 0)
  })

  test('their bytes have a bound too', async () => {
    const { server, release } = await heldServer({ slowBytesMax: 2 * MIB })
    const client = await server.client()
    const reads = Array.from({ length: 8 }, (_, index) => client.read(index * MIB, MIB))
    const other = await server.client()
    await other.write(0, Buffer.alloc(BLOCK))
    assert.equal(server.served.counters[IN_FLIGHT_AT], 2)
    release()
    assert.equal((await Promise.all(reads)).length, 8)
  })

  test('replies that nobody takes have a bound, and are all there when they are taken', async () => {
    const server = await memoryServer({ replyBacklogMax: MIB })
    const socket = await rawSession(server.path)
    const count = 400
    const requests = Array.from({ length: count }, (_, cookie) => request(NBD_CMD_READ, cookie, 0, MIB / 4))
    socket.pause().write(Buffer.concat(requests))
    const other = await server.client()
    await until(() => server.host.backlog > 0)
    assert.equal((await other.read(0, BLOCK)).length, BLOCK)
    assert.ok(server.host.backlog <= 3 * MIB, `${server.host.backlog} bytes wait`)
    let taken = 0
    for await (const chunk of socket) {
      taken += (chunk as Buffer).length
      if (taken === count * (16 + MIB / 4)) break
    }
  })
})

describe('a turn', () => {
  test('of one connection with very many requests lets the others have theirs', async () => {
    const server = await memoryServer()
    const socket = await rawSession(server.path)
    const count = 60_000
    const requests = Array.from({ length: count }, (_, cookie) => request(NBD_CMD_READ, cookie, 0, 1))
    let taken = 0
    const all = new Promise<void>((resolve) => {
      socket.on('data', (chunk: Buffer) => {
        taken += chunk.length
        if (taken === count * 17) resolve()
      })
    })
    socket.write(Buffer.concat(requests))
    await until(() => taken > 0)
    const other = await server.client()
    assert.equal((await other.read(0, BLOCK)).length, BLOCK)
    assert.ok(taken < count * 17, 'the other was served in between')
    await all
  })

  test('that ends before a large write has come whole finds the rest of it wherever it lands', async () => {
    const server = await memoryServer()
    const socket = await rawSession(server.path)
    const reads = Array.from({ length: 3000 }, (_, cookie) => request(NBD_CMD_READ, cookie, 0, 1))
    const data = Buffer.from(Uint8Array.from({ length: MIB }, (_, index) => (index * 7) & 0xff))
    const tail = request(NBD_CMD_READ, 9999, 5, 1)
    const write = Buffer.concat([request(NBD_CMD_WRITE, 5000, 4 * MIB, MIB), data])
    // A cut after the header and 100,000 bytes: more than the headroom for partial frames.
    socket.write(Buffer.concat([...reads, write.subarray(0, 100_028)]))
    socket.write(Buffer.concat([write.subarray(100_028), tail]))
    let taken = 0
    for await (const chunk of socket) {
      taken += (chunk as Buffer).length
      if (taken === 3000 * 17 + 16 + 17) break
    }
    const client = await server.client()
    assert.deepEqual(Buffer.from(await client.read(4 * MIB, MIB)), data)
  })
})
