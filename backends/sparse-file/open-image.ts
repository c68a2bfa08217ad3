// Opens an image, or says in one sentence why not: everything that can be the operator's mistake is found here.
import { closeSync, constants, fstatSync, fsyncSync, ftruncateSync, openSync, type Stats, unlinkSync } from 'node:fs'
import { dirname, resolve } from 'node:path'

import { type Capabilities, OpenError } from '../backend.js'
import { fileIo } from '../native/file-io.js'
import type { IoEngineWish } from '../native/io-engine.js'
import { seekSync } from './fs-ext-door.js'
import type { KnownImage } from './held-image.js'
import { lockFile, lockForQemu } from './image-lock.js'
import { type Place, placeOf } from './image-space.js'

export interface ImageOptions {
  readonly path: string
  readonly readOnly: boolean
  /** Bytes of a new sparse image where there is none yet; undefined: it must exist. */
  readonly create?: number | undefined
  /** Default: auto. */
  readonly engine?: IoEngineWish
  /** A descriptor of this very file that outlived an earlier server: then nothing is opened. */
  readonly kept?: number | undefined
}

/** What is still asked when the image is open. */
export type UseOptions = Pick<ImageOptions, 'readOnly' | 'engine'>

/** An image that is open and locked. */
export interface OpenedImage {
  readonly fd: number
  /** Absolute, for the later look whether it still leads to this file. */
  readonly path: string
  readonly size: number
  readonly device: number
  /** The file system that it lies on; undefined for a block device. */
  readonly place: Place | undefined
  readonly isBlockDevice: boolean
  /** The file system's UUID where the kernel tells it, inode and birth time; or a block device's number. */
  readonly identity: string
  /** Bytes: 1 for files, the device's own for block devices. */
  readonly logicalBlockSize: number
  readonly created: boolean
  /** Another process has held it until now. */
  readonly known?: KnownImage
}

const SIZE_MAX = 2 ** 53 - 1
const PREFERRED_BLOCK_SIZE = 4096

/** What an image can do once it is open. */
export function capabilitiesOf(image: OpenedImage, readOnly: boolean): Capabilities {
  return {
    write: !readOnly,
    trim: true,
    fastZero: true,
    extents: !image.isBlockDevice,
    minimumBlockSize: image.logicalBlockSize,
    vectors: true,
    preferredBlockSize: Math.max(PREFERRED_BLOCK_SIZE, image.logicalBlockSize),
  }
}

const REASONS: Readonly<Record<string, (path: string) => string>> = {
  ENOENT: (path) => `there is no image at ${path}: give the right path, or --create SIZE to make it`,
  EACCES: (path) => `no permission to open ${path}: run as a user who may, or serve it with --read-only`,
  EPERM: (path) => `the host does not permit opening ${path}: see its attributes (lsattr) and the mount's options`,
  EISDIR: (path) => `${path} is a directory, not a disk image: name the file itself`,
  EROFS: (path) => `${path} lies on a read-only file system: serve it with --read-only`,
  ENOSPC: (path) => `no space to create ${path}: free some on its file system`,
  EFBIG: (path) => `${path} would be larger than its file system can hold: choose a smaller size, or another place`,
  EINVAL: (path) => `${path} would be larger than its file system can hold: choose a smaller size, or another place`,
  ETXTBSY: (path) => `${path} is in use as a program or swap space: it cannot be served`,
  ENOTDIR: (path) => `a part of ${path} is not a directory: give the right path`,
}

/** The same of an image that was served a moment ago. */
const REASONS_AGAIN: typeof REASONS = {
  ENOENT: (path) => `there is no image at ${path}: mount its file system first`,
  EROFS: (path) => `${path} lies on a file system that is read-only: mount it writable first`,
  EIO: (path) => `the file system of ${path} answers with EIO: unmount it, and mount it again`,
}

function refusal(error: unknown, path: string, again = false): OpenError {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  const sentence = again ? REASONS_AGAIN[code]?.(path) : undefined
  if (sentence !== undefined) return new OpenError(sentence)
  return new OpenError(REASONS[code]?.(path) ?? `cannot open ${path}: ${(error as Error).message}`)
}

function syncDirectory(path: string): void {
  const directory = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}

/**
 * Makes a sparse image, and its name durable: the parent directory is synced too. An image that exists is refused.
 * @throws OpenError
 */
export function createImage(path: string, size: number): void {
  let fd: number
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') {
      throw new OpenError(`${path} exists already: remove it first, or give another name`)
    }
    throw refusal(error, path)
  }
  try {
    ftruncateSync(fd, size)
    fsyncSync(fd)
    syncDirectory(resolve(path))
  } catch (error) {
    // An image of the wrong size must not lie there for a later start to find.
    unlinkSync(path)
    throw refusal(error, path)
  } finally {
    closeSync(fd)
  }
}

function openOrCreate(path: string, options: ImageOptions, again: boolean): { fd: number; created: boolean } {
  if (options.kept !== undefined) return { fd: options.kept, created: false }
  const flags = (options.readOnly ? constants.O_RDONLY : constants.O_RDWR) | constants.O_NONBLOCK
  try {
    return { fd: openSync(path, flags), created: false }
  } catch (error) {
    const missing = error instanceof Error && 'code' in error && error.code === 'ENOENT'
    if (!missing || options.create === undefined || options.readOnly) throw refusal(error, path, again)
  }
  createImage(path, options.create)
  return { fd: openSync(path, flags), created: true }
}

function measure(fd: number, path: string, status: Stats): { size: number; logicalBlockSize: number } {
  if (status.isDirectory()) throw new OpenError(REASONS['EISDIR']?.(path) ?? path)
  if (status.isFile()) return { size: status.size, logicalBlockSize: 1 }
  if (!status.isBlockDevice()) {
    throw new OpenError(`${path} is neither a file nor a block device: candor serves only these two`)
  }
  const block = fileIo.logicalBlockSize(fd)
  if (block <= 0) throw new OpenError(`${path} does not tell its block size: it is no block device that can be served`)
  return { size: seekSync(fd, 0, 2), logicalBlockSize: block }
}

function identityOf(fd: number, isBlockDevice: boolean): string {
  const { ino, birthtimeNs, rdev } = fstatSync(fd, { bigint: true })
  if (isBlockDevice) return `device-${rdev}`
  const uuid = fileIo.fileSystemUuid(fd)
  return uuid === '' ? `${ino}-${birthtimeNs}` : `${uuid}-${ino}-${birthtimeNs}`
}

/** Gives an image back that nobody came to serve. */
export function closeImage({ fd }: OpenedImage): void {
  closeSync(fd)
}

/** Opens and locks an image; in the main thread, since fs-ext is at home in one thread only. @throws OpenError */
export function openImage(options: ImageOptions): Promise<OpenedImage> {
  return open(resolve(options.path), options, false)
}

/** The same for an image that was let go of, or that another mount shows. @throws OpenError */
export function reopenImage({ path, readOnly }: ImageOptions): Promise<OpenedImage> {
  return open(path, { path, readOnly }, true)
}

async function open(path: string, options: ImageOptions, again: boolean): Promise<OpenedImage> {
  const { fd, created } = openOrCreate(path, options, again)
  try {
    const status = fstatSync(fd)
    const { size, logicalBlockSize } = measure(fd, path, status)
    if (size > SIZE_MAX) throw new OpenError(`${path} has ${size} bytes, more than candor can address (2^53 - 1)`)
    if (!(await lockFile(fd, options.readOnly ? 'shared' : 'exclusive'))) {
      const remedy = options.readOnly ? '' : ', or serve it with --read-only beside other readers'
      throw new OpenError(`${path} is in use by another program that locked it: stop that one first${remedy}`)
    }
    // A block device's own number names the device itself, not the file system that its node lies on.
    const device = status.isBlockDevice() ? status.rdev : status.dev
    if (!lockForQemu(fd, options.readOnly ? 'shared' : 'exclusive')) {
      throw new OpenError(`${path} is in use by QEMU or one of its tools: stop that one first`)
    }
    const isBlockDevice = status.isBlockDevice()
    const place = isBlockDevice ? undefined : placeOf(fd, device)
    const identity = identityOf(fd, isBlockDevice)
    return { fd, path, size, device, place, isBlockDevice, identity, logicalBlockSize, created }
  } catch (error) {
    closeSync(fd)
    throw error instanceof OpenError ? error : refusal(error, path)
  }
}
