// Replies of the transmission phase: simple replies, structured and extended reply chunks. Encoders write in place and
// return the position after; decodeReplyHeader is the client's half.
import { encodeUtf8, getUint64, setUint64 } from './bytes.js'
import {
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_MAX_STRING,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_ERROR_OFFSET,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
} from './constants.js'
import { ProtocolError } from './protocol-error.js'

export const SIMPLE_REPLY_BYTES = 16
export const STRUCTURED_CHUNK_BYTES = 20
export const EXTENDED_CHUNK_BYTES = 32
/** Bytes of the offset that precedes the data of an OFFSET_DATA chunk. */
export const OFFSET_BYTES = 8

/** The two numbers of a cookie as `decodeRequest` found them. */
export interface Cookie {
  readonly cookieHigh: number
  readonly cookieLow: number
}

/** Which form of reply the handshake settled on. */
export type ReplyStyle = 'simple' | 'structured' | 'extended'

/** Writes a simple reply ("Simple reply message"); the data of a READ follows at the returned position. */
export function encodeSimpleReply(view: DataView, at: number, cookie: Cookie, error: number): number {
  view.setUint32(at, NBD_SIMPLE_REPLY_MAGIC)
  view.setUint32(at + 4, error)
  view.setUint32(at + 8, cookie.cookieHigh)
  view.setUint32(at + 12, cookie.cookieLow)
  return at + SIMPLE_REPLY_BYTES
}

export interface Chunk {
  readonly flags: number
  readonly type: number
  /** Bytes of payload that follow the chunk's header. */
  readonly length: number
}

/** Bytes of a chunk's header in this style. */
export function chunkHeaderBytes(style: ReplyStyle): number {
  return style === 'extended' ? EXTENDED_CHUNK_BYTES : STRUCTURED_CHUNK_BYTES
}

/**
 * Writes the header of a structured chunk, or of an extended one, which also repeats the request's `offset`
 * ("Structured reply chunk message"; extension EXTENDED_HEADERS). The payload follows at the returned position.
 */
export function encodeChunk(
  view: DataView,
  at: number,
  style: ReplyStyle,
  cookie: Cookie,
  offset: number,
  flags: number,
  type: number,
  length: number,
): number {
  const extended = style === 'extended'
  view.setUint32(at, extended ? NBD_EXTENDED_REPLY_MAGIC : NBD_STRUCTURED_REPLY_MAGIC)
  view.setUint16(at + 4, flags)
  view.setUint16(at + 6, type)
  view.setUint32(at + 8, cookie.cookieHigh)
  view.setUint32(at + 12, cookie.cookieLow)
  if (extended) {
    setUint64(view, at + 16, offset)
    setUint64(view, at + 24, length)
    return at + EXTENDED_CHUNK_BYTES
  }
  view.setUint32(at + 16, length)
  return at + STRUCTURED_CHUNK_BYTES
}

/** Bytes that `encodeErrorChunk` needs at the most for this message. */
export function errorChunkBytes(message: Uint8Array): number {
  return EXTENDED_CHUNK_BYTES + 6 + message.length + OFFSET_BYTES
}

/** A message for an error chunk: UTF-8, cut at a character within the spec's bound for strings. */
export function errorMessage(text: string): Uint8Array<ArrayBuffer> {
  const bytes = encodeUtf8(text)
  if (bytes.length <= NBD_MAX_STRING) return bytes
  let end = NBD_MAX_STRING
  while (((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1
  return bytes.slice(0, end)
}

/**
 * Writes a whole final error chunk: NBD_REPLY_TYPE_ERROR, or ERROR_OFFSET where `errorOffset` names the first byte of
 * the export that failed.
 */
export function encodeErrorChunk(
  view: DataView,
  at: number,
  style: ReplyStyle,
  request: Cookie & { readonly offset: number },
  error: number,
  message: Uint8Array,
  errorOffset: number | undefined,
): number {
  const located = errorOffset !== undefined
  const type = located ? NBD_REPLY_TYPE_ERROR_OFFSET : NBD_REPLY_TYPE_ERROR
  const length = 6 + message.length + (located ? OFFSET_BYTES : 0)
  let end = encodeChunk(view, at, style, request, request.offset, NBD_REPLY_FLAG_DONE, type, length)
  view.setUint32(end, error)
  view.setUint16(end + 4, message.length)
  new Uint8Array(view.buffer, view.byteOffset, view.byteLength).set(message, end + 6)
  end += 6 + message.length
  if (located) {
    setUint64(view, end, errorOffset)
    end += OFFSET_BYTES
  }
  return end
}

/** A reply header as the client finds it. Simple: `error` counts. Chunks: flags, type and length do. */
export interface ReplyHeader {
  readonly style: ReplyStyle
  readonly cookieHigh: number
  readonly cookieLow: number
  readonly error: number
  readonly flags: number
  readonly type: number
  readonly length: number
}

/** Bytes of the header that begins with the magic at `at`. @throws ProtocolError 'bad-reply' */
export function replyHeaderBytes(view: DataView, at: number): number {
  const magic = view.getUint32(at)
  if (magic === NBD_SIMPLE_REPLY_MAGIC) return SIMPLE_REPLY_BYTES
  if (magic === NBD_STRUCTURED_REPLY_MAGIC) return STRUCTURED_CHUNK_BYTES
  if (magic === NBD_EXTENDED_REPLY_MAGIC) return EXTENDED_CHUNK_BYTES
  throw new ProtocolError('bad-reply', `a reply began with 0x${magic.toString(16)}, which no reply does`)
}

/** Decodes the header at `at`, of which `replyHeaderBytes` bytes are there. @throws ProtocolError 'bad-reply' */
export function decodeReplyHeader(view: DataView, at: number): ReplyHeader {
  const bytes = replyHeaderBytes(view, at)
  const cookie = { cookieHigh: view.getUint32(at + 8), cookieLow: view.getUint32(at + 12) }
  if (bytes === SIMPLE_REPLY_BYTES) {
    const error = view.getUint32(at + 4)
    return { style: 'simple', ...cookie, error, flags: NBD_REPLY_FLAG_DONE, type: 0, length: 0 }
  }
  const extended = bytes === EXTENDED_CHUNK_BYTES
  return {
    style: extended ? 'extended' : 'structured',
    ...cookie,
    error: 0,
    flags: view.getUint16(at + 4),
    type: view.getUint16(at + 6),
    length: extended ? getUint64(view, at + 24) : view.getUint32(at + 16),
  }
}
