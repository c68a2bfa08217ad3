// A READ that is answered in the turn in which it came, when its bytes are in the page cache. Law: a reply is begun when storage
// has said that it has all of them, and nothing of them is suspect.
import type { ReplyStyle, Request } from 'nbd-protocol'
import { DONE, EIO, type Outcome, pagePipe } from '../../backends/index.js'
import type { Export } from '../exports/export.js'
import { encodeReadHeader, readHeaderBytes } from './replies.js'
import type { ReplyBatch } from './reply-batch.js'

/** Shorter replies are copied: that takes less time than to move their pages. */
export const PAGES_BYTES_MIN = 128 << 10

/** Adds the reply to the batch, or sends it; without it the outcome of a failure, or WOULD_BLOCK. */
export function readNow(served: Export, batch: ReplyBatch, style: ReplyStyle, request: Request): Outcome {
  const { offset, length } = request
  if (served.firstSuspect(offset, length) !== undefined) return EIO
  if (length >= PAGES_BYTES_MIN && batch.takesPages && served.backend.pagesNow?.(length, offset) === DONE) {
    return readPages(served, batch, style, request)
  }
  const headerBytes = readHeaderBytes(style)
  const at = batch.reserve(headerBytes + length)
  const outcome = served.backend.readNow(batch.bytes, at + headerBytes, length, offset)
  if (outcome !== DONE) return outcome
  if (!isSound(served, request)) return EIO
  encodeReadHeader(batch.view, at, style, request)
  batch.commit(at + headerBytes + length)
  return DONE
}

/** The data lie in the thread's pipe, and leave it in this call. */
function readPages(served: Export, batch: ReplyBatch, style: ReplyStyle, request: Request): Outcome {
  if (!isSound(served, request)) {
    pagePipe.pagesDrop()
    return EIO
  }
  const headerBytes = readHeaderBytes(style)
  const at = batch.reserve(headerBytes)
  encodeReadHeader(batch.view, at, style, request)
  batch.commit(at + headerBytes)
  batch.flushWithPages(request.length)
  return DONE
}

/** Write-back of what was read may have failed, and its bytes have become suspect, before or while they were. */
function isSound(served: Export, { offset, length }: Request): boolean {
  served.durability.readBack(offset, length)
  return served.firstSuspect(offset, length) === undefined
}
