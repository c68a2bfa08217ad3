// A disk image in a sparse file, or on a block device. Law: what might wait for storage never runs in the calling thread.
import type { Backend, Capabilities, Condition, Extent, SparseRead, TakeBuffer } from '../backend.js'
import { ZERO_FAST, ZERO_PUNCH } from '../backend.js'
import { EOPNOTSUPP } from '../errno.js'
import {
  fileIo,
  IO_FLAG_DURABLE,
  IO_PUNCH,
  IO_READ,
  IO_SAME_FILE,
  IO_SYNCFS,
  IO_WILLNEED,
  IO_WRITE,
  IO_WRITE_DURABLE,
  IO_WRITE_ZEROES,
  IO_ZERO_RANGE,
  STALLED,
} from '../native/file-io.js'
import { chooseIoEngine } from '../native/io-engine.js'
import { type IoData, readNow, writeNow } from '../native/io-vector.js'
import { DONE, NOT_FAST, type Outcome, WOULD_BLOCK } from '../outcome.js'
import { fileSystemTraits, warningsFor } from './file-system.js'
import { HeldImage, type Reopen } from './held-image.js'
import { imageSpace } from './image-space.js'
import {
  capabilitiesOf,
  type ImageOptions,
  type OpenedImage,
  openImage,
  reopenImage,
  type UseOptions,
} from './open-image.js'
import { Pages } from './pages.js'
import { runsIn, wholeBlocks } from './runs.js'
import { readFlags, readSparse } from './sparse-read.js'
import { StandBack } from './stand-back.js'

const PAGE_BYTES = 4096

/** Opens an image. @throws OpenError with one sentence for the operator */
export const openSparseFile = async (options: ImageOptions): Promise<Backend> =>
  sparseFileOn(await openImage(options), options)

export interface ServingOptions extends UseOptions {
  /** Opens the image once more after it was let go of; by default in the calling thread, which has to be the main one. */
  readonly reopen?: Reopen | undefined
}

/** A backend over an image that is open and locked already. */
export const sparseFileOn = (image: OpenedImage, how: ServingOptions): Backend => new SparseFile(image, how)

class SparseFile implements Backend {
  readonly can: Capabilities
  readonly identity: string
  readonly warnings: readonly string[]
  readonly space: Backend['space']
  readonly #opened: OpenedImage
  readonly #fileSystem: number
  readonly #image: HeldImage
  readonly #block: number
  #reads: 'nowait' | 'inline' | 'wait'
  readonly #writes: 'inline' | 'wait'
  readonly #pages: Pages
  #punches = true
  #zeroesRanges = true
  readonly #standBack = new StandBack()
  readonly measure = () => this.#image.measure()
  readonly resize = (size: number) => this.#image.resize(size)
  readonly release = () => this.#image.release()
  readonly reopen = () => this.#image.reopen()
  readonly probe = (quick?: boolean) => this.#image.probe(quick)
  readonly quiet = () => this.#image.writeBack.quiet()

  constructor(image: OpenedImage, { readOnly, engine = 'auto', reopen = reopenImage }: ServingOptions) {
    this.#fileSystem = image.known?.fileSystem ?? (image.isBlockDevice ? 0 : fileIo.fileSystemType(image.fd))
    const traits = fileSystemTraits(this.#fileSystem)
    this.#opened = image
    this.identity = image.identity
    this.#image = new HeldImage(image, { writable: !readOnly, engine: chooseIoEngine(engine).engine, reopen })
    this.#block = image.logicalBlockSize
    this.space = image.place && imageSpace(this.#image, traits.spaceLags ?? false)
    this.#reads = traits.reads
    this.#writes = traits.writes
    this.#pages = new Pages(this.#image, image.isBlockDevice ? 'free' : traits.splices)
    this.can = capabilitiesOf(image, readOnly)
    this.warnings = warningsFor(traits, image.size)
  }

  readNow(target: IoData, start: number, length: number, offset: number): Outcome {
    const { fd } = this.#image
    if (this.#reads === 'wait' || fd < 0) return WOULD_BLOCK
    const outcome = readNow(fd, target, start, length, offset, this.#reads === 'nowait' ? 1 : 0)
    if (outcome !== EOPNOTSUPP || this.#reads !== 'nowait') return outcome
    this.#reads = 'wait'
    return WOULD_BLOCK
  }

  pagesNow(length: number, offset: number): Outcome {
    return this.#standBack.isOver ? this.#standBack.heed(this.#pages.take(length, offset)) : WOULD_BLOCK
  }

  writeNow(source: IoData, start: number, length: number, offset: number): Outcome {
    const { fd } = this.#image
    if (fd < 0 || !this.#mayWriteInline(length, offset)) return WOULD_BLOCK
    const outcome = writeNow(fd, source, start, length, offset)
    if ((outcome & ~STALLED) === DONE) this.#image.writeBack.wrote(offset, length)
    return this.#standBack.heed(outcome)
  }

  #mayWriteInline(length: number, offset: number): boolean {
    if (this.#writes === 'wait' || !this.#standBack.isOver) return false
    return this.#reads === 'inline' || this.#edgesCached(offset, offset + length)
  }

  /** Writing a part of a page that is not in the cache reads the rest of it from the disk first. */
  #edgesCached(offset: number, end: number): boolean {
    if (offset % PAGE_BYTES !== 0 && fileIo.cached(this.#image.fd, offset) === 0) return false
    return end % PAGE_BYTES === 0 || fileIo.cached(this.#image.fd, end - 1) === 1
  }

  read(target: Uint8Array, start: number, length: number, offset: number): Promise<Outcome> {
    return this.#image.run(IO_READ, readFlags(this.#reads === 'nowait', length), target, start, length, offset)
  }

  readSparse(headroom: number, length: number, offset: number, take?: TakeBuffer): Promise<SparseRead | Outcome> {
    return readSparse(this.#image, this.#reads === 'nowait', headroom, length, offset, take)
  }

  async write(source: Uint8Array, start: number, length: number, offset: number, durable: boolean): Promise<Outcome> {
    const kind = durable ? IO_WRITE_DURABLE : IO_WRITE
    const write = () => this.#image.run(kind, 0, source, start, length, offset)
    const { writeBack } = this.#image
    const run = durable ? () => this.#andStillThere(write) : () => writeBack.behind(write, offset, length)
    // A write that came here for its edges holds the lock while it reads; one that came because of another's lock, or
    // for its durability, holds it no longer than an inline write, and must not keep the others away.
    const reads = !this.#edgesCached(offset, offset + length)
    return reads && !this.#standBack.locked ? this.#standBack.during(run) : run()
  }

  async zero(offset: number, length: number, mode: number, durable: boolean): Promise<Outcome> {
    const punch = (mode & ZERO_PUNCH) !== 0
    const fast = (mode & ZERO_FAST) !== 0
    const aligned = wholeBlocks(offset, length, this.#block)
    const isShort = this.look().present < offset + length
    if ((aligned.length < length || isShort) && fast) return NOT_FAST
    // A file that somebody truncated is not made longer by punching: its missing part has to be written.
    if (isShort) return this.#writeZeroes(offset, length, durable)
    const outcome = await this.#zeroBlocks(aligned.offset, aligned.length, punch, durable)
    if (outcome === EOPNOTSUPP) return fast ? NOT_FAST : this.#writeZeroes(offset, length, durable)
    if (outcome !== DONE || aligned.length === length) return outcome
    return this.#zeroEdges(offset, length, aligned, durable)
  }

  /** Block devices zero whole blocks only: the edges are written, in which the page cache keeps the rest of a block. */
  async #zeroEdges(
    offset: number,
    length: number,
    aligned: { readonly offset: number; readonly length: number },
    durable: boolean,
  ): Promise<Outcome> {
    if (aligned.length === 0) return this.#writeZeroes(offset, length, durable)
    const before = await this.#writeZeroes(offset, aligned.offset - offset, durable)
    const end = aligned.offset + aligned.length
    return before === DONE ? this.#writeZeroes(end, offset + length - end, durable) : before
  }

  /** EOPNOTSUPP when the host can neither punch nor zero here. */
  async #zeroBlocks(offset: number, length: number, punch: boolean, durable: boolean): Promise<Outcome> {
    if (length === 0) return DONE
    if (punch && this.#punches) {
      const outcome = await this.#change(IO_PUNCH, offset, length, durable)
      if (outcome !== EOPNOTSUPP) return outcome
      this.#punches = false
    }
    if (!this.#zeroesRanges) return EOPNOTSUPP
    const outcome = await this.#change(IO_ZERO_RANGE, offset, length, durable)
    if (outcome === EOPNOTSUPP) this.#zeroesRanges = false
    return outcome
  }

  #writeZeroes(offset: number, length: number, durable: boolean): Promise<Outcome> {
    return length === 0 ? Promise.resolve(DONE) : this.#change(IO_WRITE_ZEROES, offset, length, durable)
  }

  #change(kind: number, offset: number, length: number, durable: boolean): Promise<Outcome> {
    const flags = durable ? IO_FLAG_DURABLE : 0
    const change = () => this.#standBack.during(() => this.#image.run(kind, flags, null, 0, length, offset), length)
    return durable ? this.#andStillThere(change) : change()
  }

  /** A durable change of a file that nobody can find again is DETACHED; the look at its path runs beside the change. */
  async #andStillThere(run: () => Promise<Outcome>): Promise<Outcome> {
    const { path } = this.#image
    if (path === null) return run()
    const [outcome, place] = await Promise.all([run(), this.#image.run(IO_SAME_FILE, 0, path, 0, path.length, 0)])
    return outcome === DONE ? place : outcome
  }

  async trim(offset: number, length: number, durable: boolean): Promise<Outcome> {
    const whole = wholeBlocks(offset, length, this.#block)
    if (!this.#punches || whole.length === 0) return DONE
    const outcome = await this.#change(IO_PUNCH, whole.offset, whole.length, durable)
    if (outcome !== EOPNOTSUPP) return outcome
    this.#punches = false
    return DONE
  }

  flush(): Promise<Outcome> {
    return this.#image.flush()
  }

  async settle(): Promise<Outcome> {
    const outcome = await this.#image.run(IO_SYNCFS, 0, null, 0, 0, 0)
    return outcome === DONE ? this.flush() : outcome
  }

  cache(offset: number, length: number): Promise<Outcome> {
    return this.#image.run(IO_WILLNEED, 0, null, 0, length, offset)
  }

  async extents(offset: number, length: number, limit: number): Promise<readonly Extent[] | Outcome> {
    if (!this.can.extents) return [{ length, hole: false, zero: false }]
    return runsIn(this.#image, offset, length, limit)
  }

  get size(): number {
    return this.#image.size
  }

  look(): Condition {
    return this.#image.look()
  }

  get image(): OpenedImage {
    const known = { ...this.#image.known, fileSystem: this.#fileSystem }
    return { ...this.#opened, size: this.size, fd: known.fd, known }
  }

  get released(): boolean {
    return this.#image.released
  }

  async close(): Promise<void> {
    this.#image.close()
  }
}
