// Reads that wait for storage: short ones through the ring, long ones by a thread that looks for holes first. Law: a hole
// is told only where the kernel called it one; short reads bring its zeroes.
import type { SparseRead, TakeBuffer } from '../backend.js'
import { IO_FLAG_RING, IO_READ, IO_READ_SPARSE } from '../native/file-io.js'
import { DONE, type Outcome } from '../outcome.js'
import type { HeldImage } from './held-image.js'
import { RUNS_MAX, runsOf, sparseReadRoom } from './runs.js'

/**
 * A read of up to this many bytes goes through the ring: above, copying in this thread costs more than waking another.
 * Nor are holes looked for, by three calls under the inode's lock, to spare so few zeroes.
 */
export const SHORT_READ_BYTES_MAX = 32 << 10

/** Flags of IO_READ. Where the kernel cannot read without a thread that waits, the ring has fewer of them than the pool. */
export function readFlags(nowait: boolean, length: number): number {
  return nowait && length <= SHORT_READ_BYTES_MAX ? IO_FLAG_RING : 0
}

/** As Backend's `readSparse`; `nowait`: the file system can say that a page is not in the cache. */
export async function readSparse(
  image: Pick<HeldImage, 'run'>,
  nowait: boolean,
  headroom: number,
  length: number,
  offset: number,
  take: TakeBuffer = Buffer.allocUnsafeSlow,
): Promise<SparseRead | Outcome> {
  const { bytes, start, runsAt } = sparseReadRoom(headroom, length)
  const buffer = take(bytes)
  if (length <= SHORT_READ_BYTES_MAX) {
    const outcome = await image.run(IO_READ, readFlags(nowait, length), buffer, start, length, offset)
    return outcome === DONE ? { buffer, start, runs: [{ length, hole: false, zero: false }] } : outcome
  }
  const outcome = await image.run(IO_READ_SPARSE, RUNS_MAX, buffer, start, length, offset)
  if (outcome !== DONE) return outcome
  return { buffer, start, runs: runsOf(new Float64Array(buffer.buffer, buffer.byteOffset + runsAt), offset) }
}
