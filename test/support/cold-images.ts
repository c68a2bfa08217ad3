// Images whose pages tell where they belong, and whose page cache is empty: every read of them waits for storage. Threads
// use this too, and fs-ext cannot be loaded there: nothing of the server is imported.
import { writeFileSync } from 'node:fs'
import { run } from './loop-disk.js'

export const PAGE_BYTES = 4096

/** Pages from `offset` on, each filled with its own place. */
export function pagesFor(offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  const stamp = Buffer.alloc(8)
  for (let at = 0; at < length; at += PAGE_BYTES) {
    stamp.writeBigUInt64LE(BigInt(offset + at + 1))
    bytes.fill(stamp, at, Math.min(at + PAGE_BYTES, length))
  }
  return bytes
}

/** Writes an image of such pages, synced. */
export function stampedImage(path: string, bytes: number): void {
  writeFileSync(path, pagesFor(0, bytes), { flush: true })
}

/** Takes the image's pages out of the page cache. */
export function cool(path: string): void {
  run('dd', `if=${path}`, 'iflag=nocache', 'count=0', 'status=none')
}

/** Whether the bytes are those of the pages at `offset`. */
export function isStamped(bytes: Uint8Array, offset: number): boolean {
  return pagesFor(offset, bytes.length).equals(bytes)
}
