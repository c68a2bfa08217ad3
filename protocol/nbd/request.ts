// Request headers of the transmission phase, compact and extended: bytes to a Request and back. Never throws but for
// a wrong magic, the one thing after which the stream cannot be followed any more.
import { getUint64, setUint64 } from './bytes.js'
import { NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_WRITE, NBD_EXTENDED_REQUEST_MAGIC, NBD_REQUEST_MAGIC } from './constants.js'
import { ProtocolError } from './protocol-error.js'

/** Bytes of a compact request header ("Request message"). */
export const REQUEST_BYTES = 28
/** Bytes of an extended request header (extension EXTENDED_HEADERS). */
export const EXTENDED_REQUEST_BYTES = 32

/**
 * One request. `offset` and `length` are bytes on the export; numbers past 2^53 - 1 are saturated, and so refused by
 * any size check. The cookie is opaque: two halves, so that the hot path needs no BigInt.
 */
export interface Request {
  type: number
  flags: number
  cookieHigh: number
  cookieLow: number
  offset: number
  length: number
  /** Bytes that follow the header on the wire: a WRITE's data, or the filter of a BLOCK_STATUS. */
  payloadLength: number
}

/** A request as it came, with the offset's own bits: an extended reply repeats them, however large they are. */
export interface DecodedRequest extends Request {
  offsetHigh: number
  offsetLow: number
}

export function emptyRequest(): DecodedRequest {
  const fields = { type: 0, flags: 0, cookieHigh: 0, cookieLow: 0, offset: 0, length: 0, payloadLength: 0 }
  return { ...fields, offsetHigh: 0, offsetLow: 0 }
}

/** Bytes of the header that this connection's requests carry. */
export function requestHeaderBytes(extended: boolean): number {
  return extended ? EXTENDED_REQUEST_BYTES : REQUEST_BYTES
}

/**
 * Bytes of the whole frame, header and payload, whose header begins at `at`.
 * @throws ProtocolError 'bad-request-magic'
 */
export function frameSize(view: DataView, at: number, extended: boolean): number {
  return extended ? EXTENDED_REQUEST_BYTES + extendedPayload(view, at) : REQUEST_BYTES + compactPayload(view, at)
}

function compactPayload(view: DataView, at: number): number {
  if (view.getUint32(at) !== NBD_REQUEST_MAGIC) throw badMagic(view.getUint32(at), NBD_REQUEST_MAGIC)
  return view.getUint16(at + 6) === NBD_CMD_WRITE ? view.getUint32(at + 24) : 0
}

// Under extended headers the flag says that a payload follows. A WRITE has to set it, and QEMU's client, 8.2 to 10 at least,
// does not: its payload comes all the same, and nothing else could follow a WRITE.
function extendedPayload(view: DataView, at: number): number {
  if (view.getUint32(at) !== NBD_EXTENDED_REQUEST_MAGIC) throw badMagic(view.getUint32(at), NBD_EXTENDED_REQUEST_MAGIC)
  const brings = (view.getUint16(at + 4) & NBD_CMD_FLAG_PAYLOAD_LEN) !== 0 || view.getUint16(at + 6) === NBD_CMD_WRITE
  return brings ? getUint64(view, at + 24) : 0
}

function badMagic(found: number, wanted: number): ProtocolError {
  return new ProtocolError(
    'bad-request-magic',
    `a request began with 0x${found.toString(16)} instead of 0x${wanted.toString(16)}`,
  )
}

/**
 * Decodes the header at `at` into `into` (reused by the caller, so that the hot path allocates nothing).
 * The caller has at least `requestHeaderBytes(extended)` bytes there. Source: "Request message".
 * @throws ProtocolError 'bad-request-magic'
 */
export function decodeRequest(view: DataView, at: number, extended: boolean, into: DecodedRequest): DecodedRequest {
  into.payloadLength = extended ? extendedPayload(view, at) : compactPayload(view, at)
  into.flags = view.getUint16(at + 4)
  into.type = view.getUint16(at + 6)
  into.cookieHigh = view.getUint32(at + 8)
  into.cookieLow = view.getUint32(at + 12)
  into.offset = getUint64(view, at + 16)
  into.offsetHigh = view.getUint32(at + 16)
  into.offsetLow = view.getUint32(at + 20)
  into.length = extended ? getUint64(view, at + 24) : view.getUint32(at + 24)
  return into
}

/** Encodes a request's header at `at`; the payload, if any, is the caller's. Returns the position after it. */
export function encodeRequest(view: DataView, at: number, extended: boolean, request: Request): number {
  view.setUint32(at, extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC)
  view.setUint16(at + 4, request.flags)
  view.setUint16(at + 6, request.type)
  view.setUint32(at + 8, request.cookieHigh)
  view.setUint32(at + 12, request.cookieLow)
  setUint64(view, at + 16, request.offset)
  if (extended) setUint64(view, at + 24, request.length)
  else view.setUint32(at + 24, request.length)
  return at + requestHeaderBytes(extended)
}
