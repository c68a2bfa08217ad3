// The other side of the same codec: a client's handshake and requests over any byte stream. Tests, `candor info` and
// programs speak through it. Several requests may be in flight at once; each settles by its own cookie.
import { concatenate, viewOf } from './bytes.js'
import { ClientHandshake, type Negotiation, type NegotiationWishes } from './client-handshake.js'
import {
  type Answer,
  type BlockDescriptor,
  checkCovered,
  type Pending,
  RequestError,
  takeChunk,
} from './client-replies.js'
import type { ByteReader, ByteStream } from './client-stream.js'
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_REPLY_FLAG_DONE,
} from './constants.js'
import { ProtocolError } from './protocol-error.js'
import { decodeReplyHeader, type ReplyHeader, replyHeaderBytes, SIMPLE_REPLY_BYTES } from './reply.js'
import { encodeRequest, requestHeaderBytes } from './request.js'

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
    return new Promise<Answer>((settle, fail) => {
      const data = new Uint8Array(type === NBD_CMD_READ ? length : 0)
      const state = { command, type, offset, data, covered: [], status: new Map(), failure: undefined }
      this.#pending.set(cookie, { ...state, settle, fail })
      this.#send(cookie, type, flags, offset, length, payload)
    })
  }

  /** Ends the session as the spec asks of clients: NBD_CMD_DISC, then the stream closes. */
  async disconnect(): Promise<void> {
    if (this.#lost === undefined) this.#send(0, NBD_CMD_DISC, 0, 0, 0, undefined)
    await this.#stream.close()
  }

  /** Closes the stream without a goodbye ("hard disconnect"): whatever is in flight is lost. */
  async abandon(): Promise<void> {
    this.#lose(new ProtocolError('bad-reply', 'the client abandoned the connection'))
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
      const more = replyHeaderBytes(viewOf(start), 0) - SIMPLE_REPLY_BYTES
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
    if (header.style !== 'simple' && pending.failure === undefined) checkCovered(pending)
    this.#pending.delete(header.cookieLow)
    if (pending.failure === undefined) pending.settle(pending)
    else pending.fail(pending.failure)
  }

  async #takeSimple(header: ReplyHeader, pending: Pending): Promise<void> {
    if (header.error !== 0) pending.failure = new RequestError(pending.command, header.error, '', undefined)
    else if (pending.data.length > 0) pending.data.set(await this.#reader.mustTake(pending.data.length))
  }
}

/** Shakes hands over the stream and enters transmission on `name`. @throws ProtocolError, OptionError */
export async function connectClient(stream: ByteStream, name: string, wishes: NegotiationWishes = {}): Promise<Client> {
  return enterTransmission(await ClientHandshake.begin(stream), name, wishes)
}

/** The same at the end of a handshake that has begun, for callers who asked for TLS or looked around first. */
export async function enterTransmission(
  handshake: ClientHandshake,
  name: string,
  wishes: NegotiationWishes = {},
): Promise<Client> {
  const negotiation = await handshake.go(name, wishes)
  return new Client(handshake.stream, handshake.reader, negotiation)
}
