// The records of images as files of the state directory: which one is an image's, and what stands in it. Law: looking changes
// nothing.
import { existsSync, readdirSync, readFileSync, renameSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { Range } from '../exports/range-set.js'
import { newestSlot, SHADOW_AT, type Stored, shadowBytes, shadowRanges } from './record-format.js'

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
  if (uuid !== undefined) {
    const without = join(stateDirectory, `image-${place}`)
    return existsSync(without) ? without : exact
  }
  const others = new RegExp(`^image-[0-9a-f]{32}-${place}$`)
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
