// Tunnels with real clients: the server's part of TLS is the addon's, the client's is OpenSSL's as Node or s_client carries
// it, and the end in the clear is a descriptor that a test reads, fills or leaves alone.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { closeSync } from 'node:fs'
import { type AddressInfo, createServer, connect as dial, Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls'
import { hungUp, socketIo, socketPair, type TlsContext, TlsTunnels } from '../../backends/index.js'
import { descriptorOf } from '../../server/nbd/adopt-socket.js'
import { openTls, TlsOutcome } from '../../server/nbd/tls.js'
import { until } from './controlled.js'
import type { Scope } from './faults.js'

export const KIB = 1024
export const MIB = 1024 * KIB
export const GONE = 2
export const WIRES = ['a Unix socket', 'TCP'] as const
export type Wire = (typeof WIRES)[number]
export const VERSIONS = ['TLSv1.2', 'TLSv1.3'] as const

/** Turns of the event loop in which nothing moved, after which nothing is expected to. */
const IDLE_TURNS = 2000
/** More than sockets of any kind hold. */
const FLOOD_PIECES_MAX = 1024
const REQUESTS = Buffer.alloc(64 * KIB, 0x51)

/** The server's certificate in `directory`; with `verifyClient` its clients have to show one as well. */
export function contextOf(directory: string, verifyClient = false): TlsContext {
  const context = openTls({ mode: 'require', offered: true, directory, verifyClient, pskFile: undefined })
  assert.ok(context !== undefined)
  return context
}

export const atMost = (version: (typeof VERSIONS)[number]) => ({ minVersion: version, maxVersion: version })

/** Everything that a stream says from here on. */
export class Heard {
  readonly #pieces: Buffer[] = []
  #length = 0
  #isOver = false
  #wake: () => void = () => {}

  constructor(stream: Readable) {
    const over = () => {
      this.#isOver = true
      this.#wake()
    }
    stream
      .on('error', () => {})
      .on('end', over)
      .on('close', over)
    stream.on('data', (piece: Buffer) => {
      this.#pieces.push(piece)
      this.#length += piece.length
      this.#wake()
    })
    stream.resume()
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#pieces)
  }

  /** Waits for so many bytes; fails when the stream ends before. */
  async reaches(length: number): Promise<void> {
    while (this.#length < length) {
      assert.ok(!this.#isOver, `the stream ended after ${this.#length} bytes of ${length}`)
      await this.#something()
    }
  }

  /** Waits for a text that is as wanted; fails when the stream ends before. */
  async says(wanted: (text: string) => boolean): Promise<void> {
    while (!wanted(String(this.bytes))) {
      assert.ok(!this.#isOver, `the stream ended with ${this.bytes}`)
      await this.#something()
    }
  }

  /** All that was said, once the stream is over, by whatever means. */
  async whole(): Promise<Buffer> {
    while (!this.#isOver) await this.#something()
    return this.bytes
  }

  #something(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }
}

/** The end of a tunnel that speaks for the client in the clear. */
export class PlainEnd {
  readonly fd: number
  #isOpen = true
  #socket: Socket | undefined

  constructor(scope: Scope, fd: number) {
    this.fd = fd
    scope.after(() => this.close())
  }

  /** How the handshake ended. Nothing behind it is read. */
  async outcome(): Promise<TlsOutcome> {
    const outcome = new TlsOutcome()
    const byte = new Uint8Array(1)
    for (;;) {
      const isGone = hungUp(this.fd) === GONE
      if (socketIo.receiveNow(this.fd, byte, 0) === 1) {
        if (outcome.receive(byte) !== undefined) return outcome
      } else {
        assert.ok(!isGone, 'the tunnel ended without a word on its handshake')
        await turn()
      }
    }
  }

  /** The descriptor as a stream, whose it is from here on. The client's end ends nothing by itself. */
  stream(): Socket {
    this.#socket ??= new Socket({ fd: this.fd, readable: true, writable: true, allowHalfOpen: true })
    return this.#socket.on('error', () => {})
  }

  close(): void {
    if (this.#isOpen && this.#socket === undefined) closeSync(this.fd)
    this.#isOpen = false
    this.#socket?.destroy()
  }
}

/** Two connected sockets: a client's, and a descriptor for whom it speaks to. */
export async function connected(scope: Scope, wire: Wire = 'a Unix socket'): Promise<readonly [Socket, number]> {
  if (wire === 'TCP') return overTcp(scope)
  const [near, far] = socketPair()
  return [socketOver(scope, near), far]
}

/** A socket over a descriptor, gone with the scope. */
export function socketOver(scope: Scope, fd: number): Socket {
  const socket = new Socket({ fd, readable: true, writable: true, allowHalfOpen: true }).on('error', () => {})
  scope.after(() => socket.destroy())
  return socket
}

/** A port for one client, and its connection once it is there. */
export async function port(scope: Scope): Promise<{ readonly number: number; readonly accepted: Promise<number> }> {
  const server = createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1')
  scope.after(() => server.close())
  await once(server, 'listening')
  const accepted = once(server, 'connection').then(([socket]) => {
    server.close()
    return descriptorOf(socket as Socket)
  })
  return { number: (server.address() as AddressInfo).port, accepted }
}

async function overTcp(scope: Scope): Promise<readonly [Socket, number]> {
  const { number, accepted } = await port(scope)
  const near = dial({ port: number, host: '127.0.0.1', allowHalfOpen: true }).on('error', () => {})
  scope.after(() => near.destroy())
  return [near, await accepted]
}

export interface Entered {
  readonly client: TLSSocket
  readonly plain: PlainEnd
}

/** Tunnels of a test, which end with it. */
export class Scene {
  readonly tunnels = new TlsTunnels()
  readonly scope: Scope
  readonly #context: TlsContext

  constructor(scope: Scope, context: TlsContext) {
    this.scope = scope
    this.#context = context
  }

  secure(socket: number): PlainEnd {
    return new PlainEnd(this.scope, this.tunnels.secure(this.#context, socket))
  }

  /** A client inside TLS, over a socket of its own or over those that are given. */
  async enter(options: ConnectionOptions, wire: Wire | readonly [Socket, number] = 'a Unix socket'): Promise<Entered> {
    const [near, far] = typeof wire === 'string' ? await connected(this.scope, wire) : wire
    const plain = this.secure(far)
    const client = connect({ ...options, socket: near }).on('error', () => {})
    this.scope.after(() => client.destroy())
    await once(client, 'secureConnect')
    assert.equal((await plain.outcome()).failure, undefined)
    return { client, plain }
  }

  /** Waits until so many tunnels are open. */
  async only(count: number): Promise<void> {
    await until(
      'open tunnels',
      async () => this.tunnels.open,
      (open) => open === count,
    )
  }

  /** Waits until none is. */
  empty(): Promise<void> {
    return this.only(0)
  }
}

/** Writes until the last piece is not taken, and fails when all are: a client that asks for more than is read. */
export async function flood(client: TLSSocket): Promise<void> {
  for (let piece = 0; piece < FLOOD_PIECES_MAX; piece++) {
    let isTaken = false
    client.write(REQUESTS, () => {
      isTaken = true
    })
    for (let idle = 0; idle < IDLE_TURNS && !isTaken; idle++) await turn()
    if (!isTaken) return
  }
  assert.fail('requests wait in front of the export')
}

/** Sends until the kernel takes no more, and fails when it takes all; returns how many bytes it took. */
export async function fill(fd: number, bytes: Uint8Array): Promise<number> {
  let sent = 0
  for (let idle = 0; idle < IDLE_TURNS && sent < bytes.length; idle++) {
    const took = socketIo.sendNow(fd, bytes, sent, bytes.length - sent)
    assert.ok(took >= 0)
    if (took > 0) idle = 0
    sent += took
    await turn()
  }
  assert.ok(sent < bytes.length, 'replies wait in front of the client')
  return sent
}
