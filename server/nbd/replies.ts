// The form of every answer in transmission, by the reply style that the handshake settled on.
import {
  chunkHeaderBytes,
  encodeChunk,
  encodeErrorChunk,
  encodeSimpleReply,
  errorChunkBytes,
  errorMessage,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_SUCCESS,
  OFFSET_BYTES,
  type ReplyStyle,
  type Request,
  SIMPLE_REPLY_BYTES,
  setUint64,
} from 'nbd-protocol'
import type { ReplyBatch } from './reply-batch.js'

/** Success without data. Under structured replies a simple reply says the same in fewer bytes ("Simple reply message"). */
export function replyDone(batch: ReplyBatch, style: ReplyStyle, request: Request): void {
  if (style !== 'extended') {
    const at = batch.reserve(SIMPLE_REPLY_BYTES)
    batch.commit(encodeSimpleReply(batch.view, at, request, NBD_SUCCESS))
    return
  }
  const at = batch.reserve(chunkHeaderBytes(style))
  batch.commit(encodeChunk(batch.view, at, style, request, request.offset, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, 0))
}

/** An error. `text` and the first failed byte reach clients that negotiated structured replies. */
export function replyError(
  batch: ReplyBatch,
  style: ReplyStyle,
  request: Request,
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
  batch.commit(encodeErrorChunk(batch.view, at, style, request, error, message, errorOffset))
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
