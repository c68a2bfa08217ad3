// What candor knows of an image beyond its own life: state, suspect ranges, and the shadow of what is unflushed. Law:
// the file has its full size from the start and is overwritten in place, since a full disk is just when it is needed.
import { closeSync, fdatasync, fsync, openSync, renameSync, write, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { DONE, EIO, type Outcome } from '../../backends/index.js'
import type { DurableRecord } from '../exports/durable-record.js'
import type { Range } from '../exports/range-set.js'
import type { ExportState } from '../observe/counters.js'
import { bootId, type Found, type RecordedImage, readRecord } from './record-files.js'
import {
  bytesOf,
  formatSlot,
  pairsThatFit,
  SHADOW_AT,
  SHADOW_STEP,
  SLOT_BYTES,
  type Stored,
  shadowBytes,
} from './record-format.js'

const writeLater = promisify(write)
const syncLater = promisify(fdatasync)
const syncWholeLater = promisify(fsync)

/**
 * Opens or makes the record of an image that is to be written to; a damaged one is set aside. Other exports of this thread
 * are served meanwhile. Rejects as open(2), write(2) and fsync(2) do.
 */
export async function openRecord(path: string, image: RecordedImage): Promise<{ record: ImageRecord; found: Found }> {
  const found = readRecord(path, image.size)
  if (found.damaged) renameSync(path, `${path}.damaged`)
  const isNew = found.damaged || found.bytes === undefined
  const fd = openSync(path, isNew ? 'wx+' : 'r+', 0o600)
  try {
    const record = new ImageRecord(fd, image, found)
    await record.settleIn(dirname(path), isNew)
    return { record, found }
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** The record of an image that another process kept until now, and `stored` in it. @throws as open(2) does */
export function continueRecord(path: string, image: RecordedImage, stored: Stored): ImageRecord {
  const { shadow } = readRecord(path, image.size)
  const record = new ImageRecord(openSync(path, 'r+', 0o600), image, { stored, damaged: false, shadow })
  record.untouched = false
  return record
}

export class ImageRecord implements DurableRecord {
  readonly #fd: number
  #shadow: Buffer
  #stored: Stored
  /** Bytes of the shadow that are not zero lie in [from, to). */
  #marked = { from: 0, to: 0 }
  #last: Promise<Outcome> = Promise.resolve(DONE)
  /** Nothing was changed since it was opened. */
  untouched = true

  constructor(fd: number, image: RecordedImage, found: Found) {
    this.#fd = fd
    this.#shadow = Buffer.alloc(shadowBytes(image.size))
    const { path, size, name } = image
    const fresh = { seq: 0, dirty: false, state: 'ok' as const, errno: 0, suspect: [] }
    this.#stored = { ...fresh, ...found.stored, ...(name !== undefined && { name }), path, size, bootId: bootId() }
    for (const range of found.shadow) this.#set(range.start, range.end - range.start)
  }

  /** Puts the file at its full size, and its name, on stable storage. A slot that is there stays: one is always whole. */
  async settleIn(directory: string, isNew: boolean): Promise<void> {
    const slot = formatSlot(this.#stored)
    await this.#writeAt(isNew ? Buffer.concat([slot, slot, this.#shadow]) : this.#shadow, isNew ? 0 : SHADOW_AT)
    await syncWholeLater(this.#fd)
    const folder = openSync(directory, 'r')
    await syncWholeLater(folder).finally(() => closeSync(folder))
  }

  async #writeAt(bytes: Uint8Array, position: number): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      const { bytesWritten } = await writeLater(this.#fd, bytes, at, bytes.length - at, position + at)
      at += bytesWritten
    }
  }

  #set(offset: number, length: number): boolean {
    let changed = false
    for (let step = Math.floor(offset / SHADOW_STEP); step * SHADOW_STEP < offset + length; step++) {
      const before = this.#shadow[step >>> 3] ?? 0
      const after = before | (1 << (step & 7))
      if (after === before) continue
      this.#shadow[step >>> 3] = after
      changed = true
    }
    if (changed) this.#mark(...bytesOf(offset, length))
    return changed
  }

  #mark(first: number, last: number): void {
    const { from, to } = this.#marked
    const isFirst = from === to
    this.#marked = isFirst ? { from: first, to: last + 1 } : { from: Math.min(from, first), to: Math.max(to, last + 1) }
  }

  touched(offset: number, length: number): boolean {
    this.untouched = false
    return !this.#set(offset, length) || this.#writeShadow(...bytesOf(offset, length))
  }

  synced(still: Iterable<Range>): boolean {
    const before = this.#marked
    this.#shadow.fill(0, before.from, before.to)
    this.#marked = { from: 0, to: 0 }
    for (const { start, end } of still) this.#set(start, end - start)
    if (before.from === before.to && this.#marked.from === this.#marked.to) return true
    const from = Math.min(before.from, this.#marked.from)
    return this.#writeShadow(from, Math.max(before.to, this.#marked.to) - 1)
  }

  // The page cache outlives this process, and a crash of the host is told by the dirty mark: no sync is needed here.
  #writeShadow(first: number, last: number): boolean {
    try {
      const length = last - first + 1
      return writeSync(this.#fd, this.#shadow, first, length, SHADOW_AT + first) === length
    } catch {
      return false
    }
  }

  /** A shadow that becomes longer gets its new part on the disk before any byte behind it is written to. */
  async resized(size: number): Promise<Outcome> {
    this.untouched = false
    const before = this.#shadow
    const shadow = Buffer.alloc(shadowBytes(size))
    before.copy(shadow)
    this.#shadow = shadow
    this.#marked = { from: Math.min(this.#marked.from, shadow.length), to: Math.min(this.#marked.to, shadow.length) }
    try {
      await this.#writeAt(shadow.subarray(before.length), SHADOW_AT + before.length)
    } catch (error) {
      return -((error as NodeJS.ErrnoException).errno ?? -EIO)
    }
    return this.#write({ size })
  }

  store(state: ExportState, errno: number, suspect: Iterable<Range>): Promise<Outcome> {
    return this.#write({ state, errno, suspect: pairsThatFit(suspect) })
  }

  /** From here on an end without `closed` is an unclean one. */
  opened(): Promise<Outcome> {
    return this.#write({ dirty: true })
  }

  /** What stands in it, once all of it is written. */
  async settled(): Promise<Stored> {
    await this.#last
    return this.#stored
  }

  /** Another process keeps it from here on. */
  abandon(): void {
    closeSync(this.#fd)
  }

  /** Nothing is written to the image any more. `clean`: it was synced, or nothing was. */
  async closed(clean: boolean): Promise<void> {
    if (clean) await this.#write({ dirty: false })
    await this.#last
    closeSync(this.#fd)
  }

  #write(change: Partial<Stored>): Promise<Outcome> {
    const isNewState = change.state !== undefined && change.state !== this.#stored.state
    const since = isNewState ? { since: Date.now() } : {}
    this.#stored = { ...this.#stored, ...change, ...since, seq: this.#stored.seq + 1 }
    const slot = formatSlot(this.#stored)
    const at = (this.#stored.seq % 2) * SLOT_BYTES
    this.#last = this.#last.then(async () => {
      try {
        await this.#writeAt(slot, at)
        await syncLater(this.#fd)
        return DONE
      } catch (error) {
        return -((error as NodeJS.ErrnoException).errno ?? -EIO)
      }
    })
    return this.#last
  }
}
