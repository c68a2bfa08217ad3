// What candor knows of an image beyond its own life: state, suspect ranges, and the shadow of what is unflushed. Law:
// the file has its full size from the start and is overwritten in place, since a full disk is just when it is needed.
import {
  closeSync,
  existsSync,
  fdatasync,
  fsync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  write,
  writeSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { DONE, EIO, type Outcome } from '../../backends/index.js'
import type { DurableRecord } from '../exports/durable-record.js'
import type { Range } from '../exports/range-set.js'
import type { ExportState } from '../observe/counters.js'
import {
  formatSlot,
  newestSlot,
  pairsThatFit,
  SHADOW_AT,
  SHADOW_STEP,
  SLOT_BYTES,
  type Stored,
  shadowBytes,
  shadowRanges,
} from './record-format.js'

const writeLater = promisify(write)
const syncLater = promisify(fdatasync)
const syncWholeLater = promisify(fsync)

/** The image that a record speaks of. */
export interface RecordedImage {
  /** The file system's UUID where it is told, inode and birth time; whatever the image is called. */
  readonly identity: string
  /** The export it is served as. */
  readonly name?: string
  readonly path: string
  readonly size: number
}

/** What an earlier server left behind. */
export interface Found {
  /** undefined: the image was never served from this state directory, or its record is damaged. */
  readonly stored: Stored | undefined
  readonly damaged: boolean
  /** What may have been unflushed when the last server ended. */
  readonly shadow: readonly Range[]
}

export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
}

/**
 * Where the record of an image is, or is to be made. Whether the UUID is told depends on the kernel, and older servers
 * did not ask: a record that lacks it, or alone has it, is that of this image all the same.
 */
export function locateRecord(stateDirectory: string, { identity }: Pick<RecordedImage, 'identity'>): string {
  const exact = join(stateDirectory, `image-${identity}`)
  const [, uuid, place] = /^(?:([0-9a-f]{32})-)?(\d+-\d+)$/.exec(identity) ?? []
  if (existsSync(exact) || place === undefined || !existsSync(stateDirectory)) return exact
  const others = uuid === undefined ? new RegExp(`^image-[0-9a-f]{32}-${place}$`) : new RegExp(`^image-${place}$`)
  const [other] = readdirSync(stateDirectory).filter((name) => others.test(name))
  return other === undefined ? exact : join(stateDirectory, other)
}

/** Reads what is known of an image, and changes nothing. */
export function readRecord(path: string, size: number): Found & { readonly bytes: Buffer | undefined } {
  if (!existsSync(path)) return { stored: undefined, damaged: false, shadow: [], bytes: undefined }
  const bytes = readFileSync(path)
  const stored = newestSlot(bytes)
  const shadow = Buffer.alloc(shadowBytes(size))
  // A record that was cut short says nothing of the rest: then all of it may have been unflushed.
  if (stored === undefined) shadow.fill(0xff)
  bytes.subarray(SHADOW_AT).copy(shadow)
  return { stored, damaged: stored === undefined, shadow: [...shadowRanges(shadow, size)], bytes }
}

/** What is stored of the image that was served under a name last; undefined when none was from here. */
export function findRecord(stateDirectory: string, name: string): Stored | undefined {
  if (!existsSync(stateDirectory)) return undefined
  const files = readdirSync(stateDirectory).filter((file) => /^image-[^.]+$/.test(file))
  const stored = files.flatMap((file) => newestSlot(readFileSync(join(stateDirectory, file))) ?? [])
  const called = stored.filter((record) => (record.name ?? basename(record.path)) === name)
  return called.find(({ path }) => existsSync(path)) ?? called[0]
}

/** Gives the record of an image, found or not, its present name. Returns that. @throws as rename(2) does */
export function claimRecord(stateDirectory: string, image: Pick<RecordedImage, 'identity'>): string {
  const found = locateRecord(stateDirectory, image)
  const path = join(stateDirectory, `image-${image.identity}`)
  if (found !== path && existsSync(found)) renameSync(found, path)
  return path
}

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

export class ImageRecord implements DurableRecord {
  readonly #fd: number
  readonly #shadow: Buffer
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

  store(state: ExportState, errno: number, suspect: Iterable<Range>): Promise<Outcome> {
    return this.#write({ state, errno, suspect: pairsThatFit(suspect) })
  }

  /** From here on an end without `closed` is an unclean one. */
  opened(): Promise<Outcome> {
    return this.#write({ dirty: true })
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

/** First and last byte of the shadow that stand for a range of the disk. */
function bytesOf(offset: number, length: number): [number, number] {
  return [Math.floor(offset / SHADOW_STEP) >>> 3, Math.floor((offset + length - 1) / SHADOW_STEP) >>> 3]
}
