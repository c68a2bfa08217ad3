// What the threads know of one file system that their images lie on, in memory that all of them share. Law: each thread
// writes in its own part, and reads all.
import { type Counters, sharedBlock } from './counters.js'

export type BackingBlock = Counters

/** Threads that may have images on one file system: as many as there may be I/O threads. */
const PARTS_MAX = 256

// The head: how many parts are taken, written by the main thread; and a place that serves as a fence.
const PARTS_AT = 0
const FENCE_AT = 1
const HEAD_SLOTS = 2

// Places in a part.
/** Bytes that the thread has written since it began. */
export const WRITTEN = 0
/** Bytes that are on their way through storage. */
export const PENDING = 1
/** Bytes that the thread's images may still take. */
export const MAY_TAKE = 2
// The thread's last look: when (ms since the epoch), and what it saw.
export const LOOKED = 3
export const FREE = 4
export const SIZE = 5
export const UNTIL_FULL = 6
const PART_SLOTS = UNTIL_FULL + 1

/** One file system, and one thread's part of its block. */
export interface BackingShare {
  /** Its number as mountinfo writes it. */
  readonly device: string
  readonly mount: string
  readonly block: BackingBlock
  /** Where the thread's part begins. */
  readonly at: number
}

export function backingBlock(): BackingBlock {
  return sharedBlock(HEAD_SLOTS + PARTS_MAX * PART_SLOTS)
}

/** Takes the next part; returns where it begins. */
export function takePart(block: BackingBlock): number {
  const parts = block[PARTS_AT] ?? 0
  if (parts === PARTS_MAX) throw new TypeError(`more than ${PARTS_MAX} threads share a file system`)
  block[PARTS_AT] = parts + 1
  return HEAD_SLOTS + parts * PART_SLOTS
}

export function partsOf(block: BackingBlock): number {
  return block[PARTS_AT] ?? 0
}

/** The sum over all threads; for the hot path, one addition for each. */
export function sumOf(block: BackingBlock, place: number): number {
  const end = HEAD_SLOTS + (block[PARTS_AT] ?? 0) * PART_SLOTS
  let sum = 0
  for (let at = HEAD_SLOTS + place; at < end; at += PART_SLOTS) sum += block[at] ?? 0
  return sum
}

/** What was written here before is seen by every thread that reads after its own fence. */
export function fence(block: BackingBlock): void {
  Atomics.add(new Int32Array(block.buffer, FENCE_AT * block.BYTES_PER_ELEMENT, 1), 0, 1)
}

/** The latest look of any thread: its numbers at FREE, SIZE and UNTIL_FULL; undefined before the first. */
export function lastLook(block: BackingBlock): ((place: number) => number) | undefined {
  let latest = 0
  for (let part = 0; part < partsOf(block); part++) {
    const at = HEAD_SLOTS + part * PART_SLOTS
    if (latest === 0 || (block[at + LOOKED] ?? 0) > (block[latest + LOOKED] ?? 0)) latest = at
  }
  if (latest === 0 || block[latest + LOOKED] === 0) return undefined
  return (place) => block[latest + place] ?? 0
}

/** What the images may still take, less what is free: positive when they could outgrow the file system. */
export function overcommitOf(block: BackingBlock): number {
  return sumOf(block, MAY_TAKE) - (lastLook(block)?.(FREE) ?? Number.POSITIVE_INFINITY)
}
