// Data in pieces of somebody's memory, which file and memory exchange without a buffer in between. Law: what is done with a
// range of it is what would be done with that range of a buffer.
import type { Outcome } from '../outcome.js'
import { fileIo } from './file-io.js'

/** Instead of a buffer; `start` and `length` are bytes of the data, as they would be of a buffer. */
export interface IoVector {
  /** preadv2(2), with RWF_NOWAIT where `nowait` is 1. Short is WOULD_BLOCK. */
  readNow(fd: number, start: number, length: number, offset: number, nowait: 0 | 1): Outcome
  /** pwritev2(2); a part may have landed where WOULD_BLOCK is the outcome. It may carry STALLED. */
  writeNow(fd: number, start: number, length: number, offset: number, nowait: 0 | 1): Outcome
}

export type IoData = Uint8Array | IoVector

export function readNow(
  fd: number,
  target: IoData,
  start: number,
  length: number,
  offset: number,
  nowait: 0 | 1,
): Outcome {
  if (target instanceof Uint8Array) return fileIo.readNow(fd, target, start, length, offset, nowait)
  return target.readNow(fd, start, length, offset, nowait)
}

export function writeNow(fd: number, source: IoData, start: number, length: number, offset: number): Outcome {
  if (source instanceof Uint8Array) return fileIo.writeNow(fd, source, start, length, offset, 0)
  return source.writeNow(fd, start, length, offset, 0)
}
