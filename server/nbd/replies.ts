// The form of every answer in transmission, by the reply style that the handshake settled on.
import {
  chunkHeaderBytes,
  type DecodedRequest,
  encodeChunk,
  encodeErrorChunk,
  encodeSimpleReply,
  errorChunkBytes,
  errorMessage,
  NBD_CMD_READ,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
  NBD_SUCCESS,
  OFFSET_BYTES,
  type ReplyStyle,
  type Request,
  SATURATED,
  SIMPLE_REPLY_BYTES,
  setUint64,
  viewOf,
} from 'nbd-protocol'
import type { SparseRead } from '../../backends/index.js'
import type { ReplyBatch } from './reply-batch.js'

/**
 * Success without data. Under structured replies a simple reply says the same in fewer bytes, but never to a READ
 * ("Simple reply message").
 */
export function replyDone(batch: ReplyBatch, style: ReplyStyle, request: Request): void {
  if (style === 'simple' || (style === 'structured' && request.type !== NBD_CMD_READ)) {
    const at = batch.reserve(SIMPLE_REPLY_BYTES)
    batch.commit(encodeSimpleReply(batch.view, at, request, NBD_SUCCESS))
    return
  }
  const at = batch.reserve(chunkHeaderBytes(style))
  batch.commit(encodeChunk(batch.view, at, style, request, request.offset, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, 0))
}

/** Where an extended chunk repeats the request's offset. */
const EXTENDED_OFFSET_AT = 16

/** An error. `text` and the first failed byte reach clients that negotiated structured replies. */
export function replyError(
  batch: ReplyBatch,
  style: ReplyStyle,
  request: DecodedRequest,
  error: number,
  text: string,
  errorOffset?: number,
): void {
  if (style === 'simple') {
    const at = batch.reserve(SIMPLE_REPLY_BYTES)
    batch.commit(encodeSimpleReply(batch.view, at, request, error))
    return
  }
  const message = errorMessage(text)
  const at = batch.reserve(errorChunkBytes(message))
  const end = encodeErrorChunk(batch.view, at, style, request, error, message, errorOffset)
  if (style === 'extended' && request.offset === SATURATED) {
    // An offset that no number holds was refused, and is repeated to the letter all the same.
    batch.view.setUint32(at + EXTENDED_OFFSET_AT, request.offsetHigh)
    batch.view.setUint32(at + EXTENDED_OFFSET_AT + 4, request.offsetLow)
  }
  batch.commit(end)
}

/** Bytes in front of a READ's data. */
export function readHeaderBytes(style: ReplyStyle): number {
  return style === 'simple' ? SIMPLE_REPLY_BYTES : chunkHeaderBytes(style) + OFFSET_BYTES
}

/** Writes the header of a READ that succeeded whole, whose data lies at the returned place already. */
export function encodeReadHeader(view: DataView, at: number, style: ReplyStyle, request: Request): number {
  if (style === 'simple') return encodeSimpleReply(view, at, request, NBD_SUCCESS)
  const length = OFFSET_BYTES + request.length
  const { offset } = request
  const end = encodeChunk(view, at, style, request, offset, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_OFFSET_DATA, length)
  setUint64(view, end, offset)
  return end + OFFSET_BYTES
}

const HOLE_PAYLOAD_BYTES = 12

/** A READ's reply in chunks, one for each run of data and of zeroes ("NBD_CMD_READ", structured replies). */
export function encodeReadRuns(style: ReplyStyle, request: Request, { buffer, start, runs }: SparseRead): Uint8Array[] {
  const parts: Uint8Array[] = []
  let at = 0
  runs.forEach((run, index) => {
    const flags = index === runs.length - 1 ? NBD_REPLY_FLAG_DONE : 0
    const offset = request.offset + at
    const data = buffer.subarray(start + at, start + at + run.length)
    if (run.zero) parts.push(holeChunk(style, request, flags, offset, run.length))
    else parts.push(dataHeader(style, request, flags, offset, run.length), data)
    at += run.length
  })
  return parts
}

function holeChunk(style: ReplyStyle, request: Request, flags: number, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(chunkHeaderBytes(style) + HOLE_PAYLOAD_BYTES)
  const view = viewOf(bytes)
  const type = NBD_REPLY_TYPE_OFFSET_HOLE
  const at = encodeChunk(view, 0, style, request, request.offset, flags, type, HOLE_PAYLOAD_BYTES)
  setUint64(view, at, offset)
  view.setUint32(at + OFFSET_BYTES, length)
  return bytes
}

function dataHeader(style: ReplyStyle, request: Request, flags: number, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(readHeaderBytes(style))
  const view = viewOf(bytes)
  const type = NBD_REPLY_TYPE_OFFSET_DATA
  setUint64(view, encodeChunk(view, 0, style, request, request.offset, flags, type, OFFSET_BYTES + length), offset)
  return bytes
}
