// A client that speaks NBD by hand in the clear, asks for TLS or is silent, and goes on inside it. Law: bytes in the
// clear and bytes from inside TLS are kept apart.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect as connectSocket, type NetConnectOpts, type Socket } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls'
import { OPT, REP } from './conformance-numbers.js'
import { FLAGS, GREETING, hex, infoData, option, type Raw, raw } from './raw-bytes.js'

/** For a record of 16 KiB at most. */
const RECORD_PAUSE_MS = 3

export interface OptionAnswer {
  readonly type: number
  readonly data: Buffer
}

/** Bytes of one stream, taken in pieces of known length. */
class Inbox {
  #arrived: Buffer[] = []
  #length = 0
  #ended = false
  #wake: () => void = () => {}
  readonly #source: Duplex
  readonly #keep = (bytes: Buffer): void => {
    this.#arrived.push(bytes)
    this.#length += bytes.length
    this.#wake()
  }

  constructor(source: Duplex) {
    this.#source = source
    const ended = (): void => {
      this.#ended = true
      this.#wake()
    }
    source.on('data', this.#keep).on('error', ended).on('end', ended).on('close', ended)
  }

  /** TLS takes the stream over; nothing that is to be taken may be left. */
  leave(): void {
    assert.equal(this.#length, 0, 'the server said something behind its word on STARTTLS')
    this.#source.off('data', this.#keep)
  }

  async tryTake(length: number): Promise<Buffer | undefined> {
    while (this.#length < length && !this.#ended) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    if (this.#length < length) return undefined
    const all = Buffer.concat(this.#arrived)
    this.#arrived = [all.subarray(length)]
    this.#length -= length
    return all.subarray(0, length)
  }
}

export interface SimpleReply {
  readonly error: number
  readonly cookie: bigint
}

/** What a client of `folder` (see TlsMaterial) shows and trusts. */
export function credentials(folder: string, certificate: boolean): ConnectionOptions {
  const pem = (name: string) => readFileSync(join(folder, name))
  const shown = certificate ? { cert: pem('client-cert.pem'), key: pem('client-key.pem') } : {}
  return { ca: pem('ca-cert.pem'), servername: 'localhost', ...shown }
}

function whereTo(place: number | string | NetConnectOpts): NetConnectOpts {
  if (typeof place === 'string') return { path: place }
  return typeof place === 'number' ? { host: '127.0.0.1', port: place } : place
}

export class TlsSession {
  /** The connection in the clear, also once TLS runs over it. */
  readonly plain: Socket
  secure: TLSSocket | undefined
  #stream: Duplex
  #inbox: Inbox
  /** Settles when the connection is over, by whichever means. */
  readonly closed: Promise<void>

  private constructor(plain: Socket) {
    this.plain = plain
    this.#stream = plain
    this.#inbox = new Inbox(plain)
    this.closed = new Promise((resolve) => plain.once('close', () => resolve()))
  }

  /** Connects to a port of this machine, a path, or whatever is told; reads the greeting and says `first`. */
  static async open(place: number | string | NetConnectOpts, first: Raw = FLAGS): Promise<TlsSession> {
    const socket = connectSocket(whereTo(place))
    await once(socket, 'connect')
    const session = new TlsSession(socket)
    assert.equal(hex(await session.take(18)), hex(raw(GREETING)))
    session.send(first)
    return session
  }

  /** A connection in transmission with simple replies, inside TLS where there are credentials. */
  static async enter(place: number | string | NetConnectOpts, tls?: ConnectionOptions): Promise<TlsSession> {
    const session = await TlsSession.open(place)
    if (tls !== undefined) await session.startTls(tls)
    assert.equal(await session.final(OPT.GO, infoData('disk')), REP.ACK)
    return session
  }

  send(...parts: readonly Raw[]): void {
    this.#stream.write(raw(...parts))
  }

  /** Exactly so many bytes; undefined when the connection ended before them. */
  tryTake(length: number): Promise<Buffer | undefined> {
    return this.#inbox.tryTake(length)
  }

  async take(length: number): Promise<Buffer> {
    const bytes = await this.tryTake(length)
    assert.ok(bytes !== undefined, `the server closed before ${length} bytes`)
    return bytes
  }

  /** Sends an option and reads its replies; the last is the final one. */
  async option(type: number, ...data: readonly Raw[]): Promise<readonly OptionAnswer[]> {
    this.send(option(type, ...data))
    const answers: OptionAnswer[] = []
    for (;;) {
      const header = await this.take(20)
      assert.equal(hex(header.subarray(0, 8)), '0003e889045565a9')
      assert.equal(header.readUInt32BE(8), type, 'a reply names its option')
      const answer = { type: header.readUInt32BE(12), data: await this.take(header.readUInt32BE(16)) }
      answers.push(answer)
      if (answer.type === REP.ACK || answer.type >= 2 ** 31) return answers
    }
  }

  /** The type of an option's final reply. */
  async final(type: number, ...data: readonly Raw[]): Promise<number> {
    return (await this.option(type, ...data)).at(-1)?.type ?? 0
  }

  /** STARTTLS and the TLS handshake. Rejects when the handshake fails. */
  async startTls(options: ConnectionOptions): Promise<TLSSocket> {
    assert.equal(await this.final(OPT.STARTTLS), REP.ACK)
    return this.upgrade(options)
  }

  /** The TLS handshake alone; from here on all is said and read inside TLS. */
  async upgrade(options: ConnectionOptions): Promise<TLSSocket> {
    this.#inbox.leave()
    const secure = connectTls({ ...options, socket: this.plain })
    await new Promise<void>((resolve, reject) => {
      const closed = (): void => reject(new Error('the server closed during the TLS handshake'))
      secure.once('secureConnect', resolve).once('error', reject).once('close', closed)
    })
    this.secure = secure
    this.#stream = secure
    this.#inbox = new Inbox(secure)
    return secure
  }

  async simpleReply(): Promise<SimpleReply> {
    const header = await this.take(16)
    assert.equal(header.readUInt32BE(0), 0x67446698)
    return { error: header.readUInt32BE(4), cookie: header.readBigUInt64BE(8) }
  }

  /** Nothing is read any more, so that the server's replies pile up. */
  stopReading(): void {
    this.#stream.pause()
    this.plain.pause()
  }

  /** The end of stopReading. */
  readOn(): void {
    this.plain.resume()
    this.#stream.resume()
  }

  /** Reads on, a record of TLS at a time, with a pause behind each: some MiB in a second. */
  readSlowly(): void {
    this.readOn()
    this.#stream.on('data', () => {
      this.#stream.pause()
      setTimeout(() => this.#stream.resume(), RECORD_PAUSE_MS)
    })
  }

  /** Asserts that the server ends the connection without another byte. */
  async closes(): Promise<void> {
    assert.equal(await this.tryTake(1), undefined, 'nothing more is said')
    this.plain.destroy()
    await this.closed
  }

  /** Reads on, whatever comes, until the server has ended the connection. */
  async untilClosed(): Promise<void> {
    this.plain.resume()
    await this.closed
  }

  /** Gone without a word, over TCP with a reset. */
  cut(): void {
    this.plain.resetAndDestroy()
  }

  /** Gone. */
  readonly leave = (): void => {
    this.#stream.destroy()
    this.plain.destroy()
  }
}
