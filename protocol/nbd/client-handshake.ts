// The client's half of the newstyle handshake: options out, replies in, until NBD_OPT_GO is acknowledged.
import { decodeForDisplay, encodeUtf8, getUint64, viewOf } from './bytes.js'
import { ByteReader, type ByteStream } from './client-stream.js'
import {
  IHAVEOPT,
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_NAME,
  NBD_MAGIC,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ACK,
  NBD_REP_ERR_UNSUP,
  NBD_REP_FLAG_ERROR,
  NBD_REP_INFO,
  NBD_REP_MAGIC,
  NBD_REP_META_CONTEXT,
  NBD_REP_SERVER,
  optionName,
  replyErrorName,
} from './constants.js'
import {
  decodeInfo,
  decodeMetaContext,
  decodeServer,
  EXPORT_NAME_ZEROES,
  type ExportInfo,
  encodeInfoRequest,
  encodeMetaContextRequest,
  encodeOption,
  type MetaContext,
  OPTION_REPLY_HEADER_BYTES,
} from './options.js'
import { ProtocolError } from './protocol-error.js'
import type { ReplyStyle } from './reply.js'

const TEXTS = [NBD_INFO_NAME, NBD_INFO_DESCRIPTION]

/** An option that the server refused; the handshake can go on. */
export class OptionError extends Error {
  /** One of the NBD_REP_ERR_… values. */
  readonly type: number

  constructor(option: number, type: number, text: string) {
    super(`${optionName(option)}: ${replyErrorName(type)}${text === '' ? '' : ` (${text})`}`)
    this.name = 'OptionError'
    this.type = type
  }
}

/** What a client asks for; each is given up where the server does not know it. */
export interface NegotiationWishes {
  /** Default `structured`. */
  readonly replyStyle?: ReplyStyle
  /** Metadata contexts to select. */
  readonly contexts?: readonly string[]
  /** Ask for the size constraints, and so promise to keep to them. Default true. */
  readonly blockSizes?: boolean
}

/** What client and server settled on. */
export interface Negotiation {
  readonly info: ExportInfo
  readonly replyStyle: ReplyStyle
  readonly contexts: readonly MetaContext[]
}

interface OptionReply {
  readonly type: number
  readonly data: Uint8Array
}

/** A handshake that has begun. Its methods may be called in any order that the spec allows. */
export class ClientHandshake {
  #stream: ByteStream
  #reader: ByteReader
  readonly #noZeroes: boolean

  private constructor(stream: ByteStream, reader: ByteReader, noZeroes: boolean) {
    this.#stream = stream
    this.#reader = reader
    this.#noZeroes = noZeroes
  }

  /** Reads the greeting and sends the client flags. @throws ProtocolError for oldstyle and foreign servers */
  static async begin(stream: ByteStream): Promise<ClientHandshake> {
    const reader = new ByteReader(stream)
    const view = viewOf(await reader.mustTake(18))
    if (view.getBigUint64(0) !== NBD_MAGIC || view.getBigUint64(8) !== IHAVEOPT) {
      throw new ProtocolError('bad-greeting', 'the server does not greet as a newstyle NBD server')
    }
    const flags = view.getUint16(16)
    if ((flags & NBD_FLAG_FIXED_NEWSTYLE) === 0) {
      throw new ProtocolError('bad-greeting', 'the server does not offer fixed newstyle negotiation')
    }
    const noZeroes = (flags & NBD_FLAG_NO_ZEROES) !== 0
    const answer = new Uint8Array(4)
    viewOf(answer).setUint32(0, NBD_FLAG_C_FIXED_NEWSTYLE | (noZeroes ? NBD_FLAG_C_NO_ZEROES : 0))
    stream.write(answer)
    return new ClientHandshake(stream, reader, noZeroes)
  }

  get reader(): ByteReader {
    return this.#reader
  }

  get stream(): ByteStream {
    return this.#stream
  }

  /**
   * Asks for TLS; once that is granted `secure` makes the encrypted stream, and the handshake goes on over it as if
   * nothing had been settled before ("NBD_OPT_STARTTLS"). @throws OptionError when the server refuses
   */
  async startTls(secure: () => Promise<ByteStream>): Promise<void> {
    await this.option(NBD_OPT_STARTTLS)
    this.#stream = await secure()
    this.#reader = new ByteReader(this.#stream)
  }

  /** Sends one option and gathers its replies up to the final one. @throws OptionError, ProtocolError */
  async option(option: number, data: Uint8Array = new Uint8Array(0)): Promise<readonly OptionReply[]> {
    this.#stream.write(encodeOption(option, data))
    const replies: OptionReply[] = []
    for (;;) {
      const reply = await this.#reply(option)
      if (reply.type === NBD_REP_ACK) return replies
      if (reply.type >= NBD_REP_FLAG_ERROR) throw new OptionError(option, reply.type, decodeForDisplay(reply.data))
      replies.push(reply)
    }
  }

  async #reply(option: number): Promise<OptionReply> {
    const view = viewOf(await this.#reader.mustTake(OPTION_REPLY_HEADER_BYTES))
    if (view.getBigUint64(0) !== NBD_REP_MAGIC || view.getUint32(8) !== option) {
      throw new ProtocolError('bad-reply', `the reply to ${optionName(option)} is none`)
    }
    return { type: view.getUint32(12), data: await this.#reader.mustTake(view.getUint32(16)) }
  }

  /** Asks for an option that an older server may not know; whether it was granted. */
  async #wish(option: number): Promise<boolean> {
    try {
      await this.option(option)
      return true
    } catch (error) {
      if (error instanceof OptionError && error.type === NBD_REP_ERR_UNSUP) return false
      throw error
    }
  }

  /** The exports that the server lists. */
  async list(): Promise<{ name: string; description: string }[]> {
    const replies = await this.option(NBD_OPT_LIST)
    return replies.filter(({ type }) => type === NBD_REP_SERVER).flatMap(({ data }) => decodeServer(data) ?? [])
  }

  /** Asks for structured replies or extended headers; the best of what was asked for and is known. */
  async replies(wanted: ReplyStyle): Promise<ReplyStyle> {
    if (wanted === 'extended' && (await this.#wish(NBD_OPT_EXTENDED_HEADERS))) return 'extended'
    return wanted !== 'simple' && (await this.#wish(NBD_OPT_STRUCTURED_REPLY)) ? 'structured' : 'simple'
  }

  /** Names of the metadata contexts that the server offers for an export; none where it knows of no such thing. */
  async listContexts(name: string, queries: readonly string[] = []): Promise<MetaContext[]> {
    return decodeContexts(await this.option(NBD_OPT_LIST_META_CONTEXT, encodeMetaContextRequest({ name, queries })))
  }

  async setContexts(name: string, queries: readonly string[]): Promise<MetaContext[]> {
    return decodeContexts(await this.option(NBD_OPT_SET_META_CONTEXT, encodeMetaContextRequest({ name, queries })))
  }

  /** Everything that NBD_OPT_INFO tells of an export. */
  async info(name: string): Promise<ExportInfo> {
    return this.#infoOrGo(NBD_OPT_INFO, name, true)
  }

  async #infoOrGo(option: number, name: string, blockSizes: boolean): Promise<ExportInfo> {
    const info: ExportInfo = {}
    const requests = blockSizes ? [...TEXTS, NBD_INFO_BLOCK_SIZE] : TEXTS
    const replies = await this.option(option, encodeInfoRequest({ name, requests }))
    for (const { type, data } of replies) if (type === NBD_REP_INFO) decodeInfo(data, info)
    if (info.size === undefined) throw new ProtocolError('bad-reply', `${optionName(option)} came without a size`)
    return info
  }

  /** Settles the wishes and enters transmission by NBD_OPT_GO. */
  async go(name: string, wishes: NegotiationWishes): Promise<Negotiation> {
    const replyStyle = await this.replies(wishes.replyStyle ?? 'structured')
    const wanted = wishes.contexts ?? []
    const contexts = replyStyle !== 'simple' && wanted.length > 0 ? await this.setContexts(name, wanted) : []
    return { info: await this.#infoOrGo(NBD_OPT_GO, name, wishes.blockSizes ?? true), replyStyle, contexts }
  }

  /** Enters transmission by NBD_OPT_EXPORT_NAME, for servers that know nothing newer. */
  async exportName(name: string): Promise<Negotiation> {
    this.#stream.write(encodeOption(NBD_OPT_EXPORT_NAME, encodeUtf8(name)))
    const view = viewOf(await this.#reader.mustTake(10 + (this.#noZeroes ? 0 : EXPORT_NAME_ZEROES)))
    const info = { size: getUint64(view, 0), transmissionFlags: view.getUint16(8) }
    return { info, replyStyle: 'simple', contexts: [] }
  }

  /** Leaves without entering transmission ("soft disconnect"). */
  async abort(): Promise<void> {
    await this.option(NBD_OPT_ABORT)
    await this.#stream.close()
  }
}

function decodeContexts(replies: readonly OptionReply[]): MetaContext[] {
  return replies
    .filter(({ type }) => type === NBD_REP_META_CONTEXT)
    .flatMap(({ data }) => decodeMetaContext(data) ?? [])
}
