// A client that says whatever it is told to over a Unix socket, and reads replies as the specification draws them.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { contextData, FLAGS, infoData, option, raw, type Style } from './raw-bytes.js'

const STRUCTURED = 8
const SET_CONTEXT = 10
const EXTENDED = 11
const GO = 7

/** Everything that is said to reach transmission on the export 'disk', with base:allocation where it can be had. */
export function handshakeBytes(style: Style): Uint8Array {
  if (style === 'simple') return raw(FLAGS, option(GO, infoData('disk')))
  const select = option(SET_CONTEXT, contextData('disk', 'base:allocation'))
  return raw(FLAGS, option(style === 'extended' ? EXTENDED : STRUCTURED), select, option(GO, infoData('disk')))
}

export interface RawReply {
  readonly style: Style
  readonly cookie: bigint
  readonly error: number
  readonly flags: number
  readonly type: number
  /** Extended replies only. */
  readonly offset: bigint | undefined
  readonly payload: Uint8Array
}

export class RawClient {
  readonly socket: Socket
  /** What has come and was not taken yet. It is joined when enough of it is there, or much would be copied often. */
  #arrived: Buffer[] = []
  #arrivedBytes = 0
  #ended = false
  #wake: () => void = () => {}
  /** Bytes that came from the server. */
  received = 0
  /** Settles when the server's side is closed, by whichever means. */
  readonly closed: Promise<void>

  private constructor(socket: Socket) {
    this.socket = socket
    this.closed = new Promise((resolve) => socket.once('close', () => resolve()))
    socket.on('data', (bytes) => {
      this.received += bytes.length
      this.#arrived.push(bytes)
      this.#arrivedBytes += bytes.length
      this.#wake()
    })
    const ended = () => {
      this.#ended = true
      this.#wake()
    }
    // A server may reset what a fuzzer says; that this happens is what `closed` is for.
    socket.on('error', ended).on('end', ended).on('close', ended)
  }

  /** Connects to a socket's path, or to a port of this machine, by number: not every machine knows a 'localhost'. */
  static async connect(place: string): Promise<RawClient> {
    const socket = connect(/^\d+$/.test(place) ? { host: '127.0.0.1', port: Number(place) } : { path: place })
    await once(socket, 'connect')
    return new RawClient(socket)
  }

  /** A connection in transmission, its handshake read. */
  static async enter(path: string, style: Style): Promise<RawClient> {
    const client = await RawClient.connect(path)
    client.send(handshakeBytes(style))
    await client.take(18)
    await client.skipOptionReplies()
    return client
  }

  /** Resolves when the kernel has the bytes, or never will. */
  send(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve) => this.socket.write(bytes, () => resolve()))
  }

  /** Exactly `length` bytes; undefined when the server closed before them. */
  async tryTake(length: number): Promise<Uint8Array | undefined> {
    while (this.#arrivedBytes < length && !this.#ended) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    if (this.#arrivedBytes < length) return undefined
    const [only, ...more] = this.#arrived
    const all = only !== undefined && more.length === 0 ? only : Buffer.concat(this.#arrived)
    this.#arrived = [all.subarray(length)]
    this.#arrivedBytes -= length
    return Uint8Array.prototype.slice.call(all, 0, length)
  }

  async take(length: number): Promise<Uint8Array> {
    const bytes = await this.tryTake(length)
    assert.ok(bytes !== undefined, `the server closed before ${length} bytes`)
    return bytes
  }

  /** Reads option replies up to the one that ends GO; all must be sound. */
  async skipOptionReplies(): Promise<void> {
    for (;;) {
      const header = Buffer.from(await this.take(20))
      assert.equal(header.readBigUInt64BE(0), 0x3e889045565a9n)
      await this.take(header.readUInt32BE(16))
      assert.ok(header.readUInt32BE(12) < 2 ** 31, 'a sound handshake is refused nothing')
      if (header.readUInt32BE(8) === GO && header.readUInt32BE(12) === 1) return
    }
  }

  /** One reply or chunk; `readLength` is what a simple reply with this cookie brings. undefined at the end. */
  async reply(readLength: (cookie: bigint) => number): Promise<RawReply | undefined> {
    const start = await this.tryTake(16)
    if (start === undefined) return undefined
    const head = Buffer.from(start)
    const magic = head.readUInt32BE(0)
    const cookie = head.readBigUInt64BE(8)
    if (magic === 0x67446698) {
      const error = head.readUInt32BE(4)
      const payload = await this.take(error === 0 ? readLength(cookie) : 0)
      return { style: 'simple', cookie, error, flags: 1, type: 0, offset: undefined, payload }
    }
    assert.ok(magic === 0x668e33ef || magic === 0x6e8a278c, `a reply begins with ${magic.toString(16)}`)
    const extended = magic === 0x6e8a278c
    const rest = Buffer.from(await this.take(extended ? 16 : 4))
    const payload = await this.take(extended ? Number(rest.readBigUInt64BE(8)) : rest.readUInt32BE(0))
    const [flags, type] = [head.readUInt16BE(4), head.readUInt16BE(6)]
    const error = type >= 0x8000 ? Buffer.from(payload).readUInt32BE(0) : 0
    const offset = extended ? rest.readBigUInt64BE(0) : undefined
    return { style: extended ? 'extended' : 'structured', cookie, error, flags, type, offset, payload }
  }

  /** No more is said; the server ends the connection when it has seen that. What still comes is thrown away. */
  async leave(): Promise<void> {
    this.socket.end()
    await this.closed
  }

  /** Gone without a word. */
  vanish(): void {
    this.socket.destroy()
  }
}
