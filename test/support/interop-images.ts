// Images with a known layout of data and holes, and a look at what is allocated in them on the host. Law: what the
// host says of an image never comes from candor.
import assert from 'node:assert/strict'
import { closeSync, ftruncateSync, openSync, readSync, statSync, writeSync } from 'node:fs'
import { patternBytes } from './guest-images.js'
import { useTool } from './interop.js'

export interface Range {
  readonly offset: number
  readonly length: number
}

/** Bytes of the file that take up space, those included that the file system has only promised so far. */
export function allocatedBytes(path: string): number {
  return statSync(path).blocks * 512
}

/** Blocks in which the file system keeps its own list of a file's extents count as the file's. */
const EXTENT_LIST_BYTES_MAX = 64 * 1024

/** Judges a sum of allocated bytes. */
export function assertAbout(actual: number, expected: number, what = 'the image'): void {
  const distance = Math.abs(actual - expected)
  assert.ok(
    distance <= EXTENT_LIST_BYTES_MAX,
    `${what}: ${actual} bytes are allocated or freed where ${expected} should be`,
  )
}

/** A sparse file with bytes that look random in each range. Returns the sum of the ranges' lengths. */
export function makeImage(path: string, size: number, ranges: readonly Range[]): number {
  const descriptor = openSync(path, 'w')
  ftruncateSync(descriptor, size)
  const pattern = patternBytes(Math.max(0, ...ranges.map(({ length }) => length)))
  let sum = 0
  for (const { offset, length } of ranges) {
    // Another part of the pattern each time, so that data at the wrong place is wrong data.
    const turned = Buffer.concat([pattern.subarray(offset % 4093), pattern.subarray(0, offset % 4093)])
    writeSync(descriptor, turned, 0, length, offset)
    sum += length
  }
  closeSync(descriptor)
  return sum
}

/** Damages an image behind the server's back. */
export function changeByte(path: string, offset: number): void {
  const descriptor = openSync(path, 'r+')
  const byte = Buffer.alloc(1)
  readSync(descriptor, byte, 0, 1, offset)
  writeSync(
    descriptor,
    byte.map((value) => value ^ 0xff),
    0,
    1,
    offset,
  )
  closeSync(descriptor)
}

/** Data in every second range of `step` bytes, beginning with the first. */
export function everySecond(size: number, step: number): Range[] {
  const count = Math.ceil(size / (2 * step))
  return Array.from({ length: count }, (_, index) => ({ offset: index * 2 * step, length: step }))
}

interface MappedRange {
  readonly start: number
  readonly length: number
  readonly data: boolean
  readonly zero: boolean
}

/** Data ranges, neighbours joined, by `qemu-img map` of a file or of a URI. */
export async function mappedData(image: string): Promise<Range[]> {
  const text = await useTool('qemu-img', ['map', '--output=json', '-f', 'raw', image])
  const mapped: readonly MappedRange[] = JSON.parse(text)
  return joined(mapped.filter(({ data }) => data).map(({ start, length }) => ({ offset: start, length })))
}

/** Ranges that follow each other without a gap become one. */
export function joined(ranges: readonly Range[]): Range[] {
  const result: Range[] = []
  for (const range of ranges) {
    const last = result.at(-1)
    if (last !== undefined && last.offset + last.length === range.offset) {
      result[result.length - 1] = { offset: last.offset, length: last.length + range.length }
    } else result.push(range)
  }
  return result
}
