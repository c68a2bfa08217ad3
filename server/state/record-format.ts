// The bytes of an image's record: two slots that are written in turn, so that one is always whole, then the shadow.
//
//     | slot 0: check sum, JSON, spaces | slot 1 | shadow: a bit for each MiB of the image |
import { crc32 } from 'node:zlib'
import type { Range } from '../exports/range-set.js'
import type { ExportState } from '../observe/counters.js'

export const SLOT_BYTES = 64 << 10
export const SHADOW_AT = 2 * SLOT_BYTES
/** Bytes of the disk behind one bit of the shadow. */
export const SHADOW_STEP = 1 << 20
/** Room in a slot that is not for suspect ranges. */
const SLOT_RESERVE_BYTES = 8 << 10
const SUM_CHARACTERS = 8

/** What stands in a slot. */
export interface Stored {
  readonly seq: number
  /** The export that the image is served as; records of 0.1's first days do not tell. */
  readonly name?: string
  readonly path: string
  readonly size: number
  /** /proc/sys/kernel/random/boot_id of the host when it was written. */
  readonly bootId: string
  /** True while a server has the image open for writing. */
  readonly dirty: boolean
  readonly state: ExportState
  readonly errno: number
  /** When the state began, in ms since the epoch. */
  readonly since?: number
  readonly suspect: readonly (readonly [number, number])[]
}

function checkSum(json: string): string {
  return crc32(json).toString(16).padStart(SUM_CHARACTERS, '0')
}

/** undefined for a slot that was never written, or not whole. */
function parseSlot(bytes: Uint8Array): Stored | undefined {
  const text = Buffer.from(bytes).toString('utf8').trimEnd()
  const json = text.slice(SUM_CHARACTERS + 1)
  return json !== '' && checkSum(json) === text.slice(0, SUM_CHARACTERS) ? (JSON.parse(json) as Stored) : undefined
}

/** The newer of the slots that are whole. */
export function newestSlot(bytes: Uint8Array): Stored | undefined {
  const slots = [bytes.subarray(0, SLOT_BYTES), bytes.subarray(SLOT_BYTES, SHADOW_AT)].map(parseSlot)
  return slots.flatMap((stored) => stored ?? []).sort((a, b) => b.seq - a.seq)[0]
}

export function formatSlot(stored: Stored): Buffer {
  const json = JSON.stringify(stored)
  return Buffer.from(`${checkSum(json)} ${json}`.padEnd(SLOT_BYTES))
}

/** The ranges as pairs that fit a slot: near neighbours become one, which makes more suspect and never less. */
export function pairsThatFit(ranges: Iterable<Range>): [number, number][] {
  let pairs = [...ranges].map(({ start, end }): [number, number] => [start, end])
  for (let gap = 4096; JSON.stringify(pairs).length > SLOT_BYTES - SLOT_RESERVE_BYTES; gap *= 2) {
    const joined: [number, number][] = []
    for (const [start, end] of pairs) {
      const last = joined.at(-1)
      if (last !== undefined && start - last[1] <= gap) last[1] = end
      else joined.push([start, end])
    }
    pairs = joined
  }
  return pairs
}

export function shadowBytes(size: number): number {
  return Math.ceil(size / SHADOW_STEP / 8)
}

/** The ranges whose bits are on. */
export function* shadowRanges(shadow: Uint8Array, size: number): IterableIterator<Range> {
  for (let step = 0; step < shadow.length * 8; step++) {
    if (((shadow[step >>> 3] ?? 0) & (1 << (step & 7))) === 0) continue
    const start = step * SHADOW_STEP
    if (start < size) yield { start, end: Math.min(size, start + SHADOW_STEP) }
  }
}

/** First and last byte of the shadow that stand for a range of the disk. */
export function bytesOf(offset: number, length: number): [number, number] {
  return [Math.floor(offset / SHADOW_STEP) >>> 3, Math.floor((offset + length - 1) / SHADOW_STEP) >>> 3]
}
