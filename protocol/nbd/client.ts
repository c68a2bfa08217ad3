// The other side of the same codec: a client's handshake and requests over any byte stream. Tests, `candor info` and
// programs speak through it. Several requests may be in flight at once; each settles by its own cookie.
import { concatenate, decodeForDisplay, getUint64, viewOf } from './bytes.js'
import { ClientHandshake, type Negotiation, type NegotiationWishes } from './client-handshake.js'
import type { ByteReader, ByteStream } from './client-stream.js'
import {
  errorName,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EIO,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
  NBD_REPLY_TYPE_ERROR_OFFSET,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
} from './constants.js'
import { ProtocolError } from './protocol-error.js'
import { decodeReplyHeader, OFFSET_BYTES, type ReplyHeader, SIMPLE_REPLY_BYTES } from './reply.js'
import { encodeRequest, requestHeaderBytes } from './request.js'

/** A request that the server answered with an error value of the spec. */
export class RequestError extends Error {
  /** One of the NBD_E… values. */
  readonly error: number
  /** The first byte of the export that failed, where the server named it. */
  readonly offset: number | undefined

  constructor(command: string, error: number, text: string, offset: number | undefined) {
    super(`${command}: ${errorName(error)}${text === '' ? '' : ` (${text})`}`)
    this.name = 'RequestError'
    this.error = error
    this.offset = offset
  }
}

/** One descriptor of a block status reply. */
export interface BlockDescriptor {
  /** Bytes. */
  readonly length: number
  readonly flags: number
}

/** What a request came to: READ's bytes, and BLOCK_STATUS's descriptors by metadata context id. */
interface Answer {
  readonly data: Uint8Array
  readonly status: ReadonlyMap<number, readonly BlockDescriptor[]>
}

interface Pending {
  readonly command: string
  readonly type: number
  readonly offset: number
  readonly data: Uint8Array
  readonly status: Map<number, BlockDescriptor[]>
  failure: RequestError | undefined
  settle(answer: Answer): void
  fail(error: Error): void
}

/** An NBD client in the transmission phase; `connectClient` makes one. */
export class Client {
  readonly #stream: ByteStream
  readonly #reader: ByteReader
  readonly #pending = new Map<number, Pending>()
  #nextCookie = 1
  #lost: Error | undefined
  /** What the handshake settled on. */
  readonly negotiation: Negotiation

  constructor(stream: ByteStream, reader: ByteReader, negotiation: Negotiation) {
    this.#stream = stream
    this.#reader = reader
    this.negotiation = negotiation
    this.#receive().catch((error: unknown) => this.#lose(error instanceof Error ? error : new Error(String(error))))
  }

  /** Bytes of the export. */
  get size(): number {
    return this.negotiation.info.size ?? 0
  }

  /** Reads `length` bytes. @throws RequestError, or ProtocolError when the connection is lost */
  async read(offset: number, length: number, flags = 0): Promise<Uint8Array> {
    return (await this.request('read', NBD_CMD_READ, flags, offset, length)).data
  }

  async write(offset: number, data: Uint8Array, flags = 0): Promise<void> {
    const extended = this.negotiation.replyStyle === 'extended' ? NBD_CMD_FLAG_PAYLOAD_LEN : 0
    await this.request('write', NBD_CMD_WRITE, flags | extended, offset, data.length, data)
  }

  async flush(flags = 0): Promise<void> {
    await this.request('flush', NBD_CMD_FLUSH, flags, 0, 0)
  }

  async trim(offset: number, length: number, flags = 0): Promise<void> {
    await this.request('trim', NBD_CMD_TRIM, flags, offset, length)
  }

  async writeZeroes(offset: number, length: number, flags = 0): Promise<void> {
    await this.request('write_zeroes', NBD_CMD_WRITE_ZEROES, flags, offset, length)
  }

  async cache(offset: number, length: number, flags = 0): Promise<void> {
    await this.request('cache', NBD_CMD_CACHE, flags, offset, length)
  }

  /** Descriptors from `offset` on, by the name of each metadata context that was negotiated. */
  async blockStatus(offset: number, length: number, flags = 0): Promise<Map<string, readonly BlockDescriptor[]>> {
    const answer = await this.request('block_status', NBD_CMD_BLOCK_STATUS, flags, offset, length)
    const names = new Map(this.negotiation.contexts.map(({ id, name }) => [id, name]))
    return new Map([...answer.status].map(([id, descriptors]) => [names.get(id) ?? `context ${id}`, descriptors]))
  }

  /** Any request at all, also one that the spec does not allow; for tests and for callers with needs of their own. */
  request(
    command: string,
    type: number,
    flags: number,
    offset: number,
    length: number,
    payload?: Uint8Array,
  ): Promise<Answer> {
    if (this.#lost !== undefined) return Promise.reject(this.#lost)
    const cookie = this.#nextCookie++
    const data = new Uint8Array(type === NBD_CMD_READ ? length : 0)
    return new Promise<Answer>((settle, fail) => {
      this.#pending.set(cookie, { command, type, offset, data, status: new Map(), failure: undefined, settle, fail })
      this.#send(cookie, type, flags, offset, length, payload)
    })
  }

  /** Ends the session as the spec asks of clients: NBD_CMD_DISC, then the stream closes. */
  async disconnect(): Promise<void> {
    if (this.#lost === undefined) this.#send(0, NBD_CMD_DISC, 0, 0, 0, undefined)
    await this.#stream.close()
  }

  #send(
    cookie: number,
    type: number,
    flags: number,
    offset: number,
    length: number,
    payload: Uint8Array | undefined,
  ): void {
    const extended = this.negotiation.replyStyle === 'extended'
    const header = new Uint8Array(requestHeaderBytes(extended))
    const fields = { type, flags, cookieHigh: 0, cookieLow: cookie, offset, length, payloadLength: 0 }
    encodeRequest(viewOf(header), 0, extended, fields)
    this.#stream.write(payload === undefined ? header : concatenate([header, payload]))
  }

  #lose(error: Error): void {
    this.#lost ??= error
    for (const pending of this.#pending.values()) pending.fail(this.#lost)
    this.#pending.clear()
  }

  async #receive(): Promise<void> {
    for (;;) {
      const start = await this.#reader.take(SIMPLE_REPLY_BYTES)
      if (start === undefined) throw new ProtocolError('bad-reply', 'the server closed the connection')
      const more = replyRest(start)
      const rest = more === 0 ? new Uint8Array(0) : await this.#reader.mustTake(more)
      await this.#answer(decodeReplyHeader(viewOf(concatenate([start, rest])), 0))
    }
  }

  async #answer(header: ReplyHeader): Promise<void> {
    const pending = this.#pending.get(header.cookieLow)
    if (pending === undefined || header.cookieHigh !== 0) {
      throw new ProtocolError('bad-reply', `a reply names the cookie ${header.cookieLow}, which no request carries`)
    }
    if (header.style === 'simple') await this.#takeSimple(header, pending)
    else takeChunk(header, await this.#reader.mustTake(header.length), pending)
    if ((header.flags & NBD_REPLY_FLAG_DONE) === 0) return
    this.#pending.delete(header.cookieLow)
    if (pending.failure === undefined) pending.settle(pending)
    else pending.fail(pending.failure)
  }

  async #takeSimple(header: ReplyHeader, pending: Pending): Promise<void> {
    if (header.error !== 0) pending.failure = new RequestError(pending.command, header.error, '', undefined)
    else if (pending.data.length > 0) pending.data.set(await this.#reader.mustTake(pending.data.length))
  }
}

function replyRest(start: Uint8Array): number {
  // The magic alone tells the three headers apart; all share their first sixteen bytes' length at least.
  const view = viewOf(start)
  const whole = { 1720595439: 20, 1854547852: 32, 1732535960: SIMPLE_REPLY_BYTES }[view.getUint32(0)]
  if (whole === undefined) throw new ProtocolError('bad-reply', 'a reply began with no magic that the spec knows')
  return whole - SIMPLE_REPLY_BYTES
}

function takeChunk(header: ReplyHeader, payload: Uint8Array, pending: Pending): void {
  const view = viewOf(payload)
  if (header.type >= 0x8000) pending.failure ??= chunkError(header.type, payload, pending.command)
  else if (header.type === NBD_REPLY_TYPE_OFFSET_DATA) {
    placeData(pending, getUint64(view, 0), payload.subarray(OFFSET_BYTES))
  } else if (header.type === NBD_REPLY_TYPE_OFFSET_HOLE) {
    placeData(pending, getUint64(view, 0), new Uint8Array(view.getUint32(8)))
  } else if (header.type === NBD_REPLY_TYPE_BLOCK_STATUS) {
    pending.status.set(view.getUint32(0), decodeDescriptors(view, 4, 8))
  } else if (header.type === NBD_REPLY_TYPE_BLOCK_STATUS_EXT) {
    pending.status.set(view.getUint32(0), decodeDescriptors(view, 8, 16))
  }
}

function placeData(pending: Pending, offset: number, data: Uint8Array): void {
  const at = offset - pending.offset
  if (at < 0 || at + data.length > pending.data.length) {
    throw new ProtocolError('bad-reply', `a chunk at ${offset} lies outside of the read at ${pending.offset}`)
  }
  pending.data.set(data, at)
}

function decodeDescriptors(view: DataView, start: number, bytes: number): BlockDescriptor[] {
  const descriptors: BlockDescriptor[] = []
  for (let at = start; at + bytes <= view.byteLength; at += bytes) {
    const wide = bytes === 16
    descriptors.push({
      length: wide ? getUint64(view, at) : view.getUint32(at),
      flags: wide ? getUint64(view, at + 8) : view.getUint32(at + 4),
    })
  }
  return descriptors
}

function chunkError(type: number, payload: Uint8Array, command: string): RequestError {
  if (payload.length < 6) return new RequestError(command, NBD_EIO, 'a malformed error chunk', undefined)
  const view = viewOf(payload)
  const end = Math.min(6 + view.getUint16(4), payload.length)
  const located = type === NBD_REPLY_TYPE_ERROR_OFFSET && payload.length >= end + OFFSET_BYTES
  const offset = located ? getUint64(view, end) : undefined
  return new RequestError(command, view.getUint32(0), decodeForDisplay(payload.subarray(6, end)), offset)
}

/** Shakes hands over the stream and enters transmission on `name`. @throws ProtocolError, OptionError */
export async function connectClient(stream: ByteStream, name: string, wishes: NegotiationWishes = {}): Promise<Client> {
  const handshake = await ClientHandshake.begin(stream)
  const negotiation = await handshake.go(name, wishes)
  return new Client(stream, handshake.reader, negotiation)
}
