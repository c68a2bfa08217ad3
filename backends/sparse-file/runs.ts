// Runs of data and holes as the addon tells them: numbers behind the data of a read, or in a buffer of their own.
import type { Extent } from '../backend.js'
import { IO_EXTENTS, RUN_DATA, RUN_HOLE } from '../native/file-io.js'
import { LINE_BYTES } from '../native/socket-io.js'
import { DONE, errnoOf, type Outcome } from '../outcome.js'
import type { HeldImage } from './held-image.js'

/** Runs that one sparse read tells apart; what lies beyond is read as data. */
export const RUNS_MAX = 64

const NUMBER_BYTES = Float64Array.BYTES_PER_ELEMENT

function roundUp(bytes: number): number {
  return Math.ceil(bytes / NUMBER_BYTES) * NUMBER_BYTES
}

/** Where things lie in the buffer of a sparse read: headroom, data at a cache line if the buffer begins one, runs; aligned as IO_RUNS_AT of io-ops.h asks. */
export function sparseReadRoom(headroom: number, length: number): { start: number; runsAt: number; bytes: number } {
  const start = Math.ceil(headroom / LINE_BYTES) * LINE_BYTES
  const runsAt = roundUp(start + length + NUMBER_BYTES)
  return { start, runsAt, bytes: runsAt + NUMBER_BYTES * (1 + 2 * RUNS_MAX) }
}

/** The runs from `offset` on: their number, then pairs (end, kind). */
export function runsOf(numbers: Float64Array, offset: number): Extent[] {
  const [count = 0] = numbers
  const extents: Extent[] = []
  let at = offset
  for (let index = 0; index < count; index++) {
    const end = numbers[1 + 2 * index] ?? at
    const kind = numbers[2 + 2 * index]
    extents.push({ length: end - at, hole: kind === RUN_HOLE, zero: kind !== RUN_DATA })
    at = end
  }
  return extents
}

/** Asks for the runs of a range, `limit` at most. */
export async function runsIn(
  image: HeldImage,
  offset: number,
  length: number,
  limit: number,
): Promise<readonly Extent[] | Outcome> {
  const numbers = new Float64Array(1 + 2 * limit)
  const bytes = new Uint8Array(numbers.buffer)
  const outcome = await image.run(IO_EXTENTS, limit, bytes, 0, length, offset)
  return outcome === DONE ? runsOf(numbers, offset) : errnoOf(outcome)
}

/** The part of a range that is made of whole blocks; its length may be 0. */
export function wholeBlocks(offset: number, length: number, block: number): { offset: number; length: number } {
  const first = Math.ceil(offset / block) * block
  const end = Math.floor((offset + length) / block) * block
  return { offset: first, length: Math.max(0, end - first) }
}
