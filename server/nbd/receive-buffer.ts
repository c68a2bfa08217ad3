// Bytes from the socket, cut into whole frames. It knows lengths, never commands. All connections of a thread share
// one slab; what is left over when a turn ends is copied out, so that the slab is free for the next connection.
//
//     | headroom: the partial frame of last time | bytes that the kernel just put here                  |
//                ^ carried                        ^ SLAB_START                 ^ end of what arrived
import { viewOf } from 'nbd-protocol'
import { giveBuffer, takeBuffer } from './buffer-pool.js'

const SLAB_BYTES = 4 << 20
/** Partial frames up to this size are joined in front of the next arrival; larger ones get a buffer of their own. */
const HEADROOM_BYTES = 64 << 10

const slab = Buffer.allocUnsafeSlow(HEADROOM_BYTES + SLAB_BYTES)
const slabView = viewOf(slab)
const slabTarget = slab.subarray(HEADROOM_BYTES)

/** Who serves the frames. */
export interface FrameSink {
  /**
   * Serves whole frames of bytes[at, end) and returns where it stopped. `pooled`: these bytes are one frame in a buffer
   * of the pool, which is the sink's own from here on when `keeps` is true afterwards.
   */
  serve(bytes: Uint8Array, view: DataView, at: number, end: number, pooled?: Uint8Array): number
  readonly keeps: boolean
  /** True when `serve` stopped although a whole frame was there: it wants to be called again later. */
  readonly halted: boolean
  /** Bytes of the frame that begins at `at`; undefined while its header is incomplete. */
  frameBytes(view: DataView, at: number, end: number): number | undefined
  /** Bytes in front of a frame's payload. */
  readonly headerBytes: number
  /** Larger frames are thrown away as they come. */
  readonly frameBytesMax: number
  /** A frame was too large and has passed; `header` is a copy of its first bytes. */
  refuseOversize(header: Uint8Array): void
}

interface Region {
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly at: number
  readonly end: number
  /** The pool's buffer behind `bytes`, given back when the region is served. */
  readonly pooled?: Uint8Array
}

/** What a stream brought and nobody has served: how it goes on where another buffer takes it over. */
export interface Unserved {
  /** In the order in which they came. */
  readonly bytes: Uint8Array
  /** Bytes still to come of a frame that is too large, and is thrown away. */
  readonly skip: number
  /** The first bytes of that frame. */
  readonly skippedHeader: Uint8Array | undefined
}

const HEADER_COPY_BYTES = 32
const NOTHING = new Uint8Array(0)

export class ReceiveBuffer {
  readonly #sink: FrameSink
  /** The start of a small frame whose rest has not come. */
  #carried: Uint8Array | undefined
  /** A large frame on its way: exactly its bytes of a buffer of the pool. */
  #frame: Uint8Array | undefined
  #pooled: Uint8Array | undefined
  #filled = 0
  /** Bytes that the sink did not take although they are whole frames. */
  #waiting: Region | undefined
  #skip = 0
  #skippedHeader: Uint8Array | undefined
  /** Whether the bytes that come next were promised room in `#frame`; else they come into the slab. */
  #lentFrame = false
  /** The last frame had a buffer of its own; the next one most likely will. */
  #large = false

  constructor(sink: FrameSink) {
    this.#sink = sink
  }

  /** Where the kernel is to put the next bytes. Valid until this thread reads for another connection. */
  get target(): Uint8Array {
    this.#lentFrame = this.#frame !== undefined
    if (this.#frame !== undefined) return this.#frame.subarray(this.#filled)
    // Behind one large frame most likely comes another: its header alone is read, and nothing of its payload copied.
    return this.#large ? slabTarget.subarray(0, this.#sink.headerBytes) : slabTarget
  }

  /** True while frames wait for the sink: nothing more may be read until `resume` has served them. */
  get waiting(): boolean {
    return this.#waiting !== undefined
  }

  /** What was read and not served yet, or the last part of it. */
  get rest(): Uint8Array {
    if (this.#waiting !== undefined) return this.#waiting.bytes.subarray(this.#waiting.at, this.#waiting.end)
    return this.#frame?.subarray(0, this.#filled) ?? this.#carried ?? NOTHING
  }

  /** All that is left, as a copy; this buffer is of no more use. */
  unserved(): Unserved {
    const bytes = Uint8Array.prototype.slice.call(this.rest)
    return { bytes, skip: this.#skip, skippedHeader: this.#skippedHeader }
  }

  /** Goes on where another buffer stopped, before anything has arrived here; the bytes are the caller's to feed. */
  goOn({ skip, skippedHeader }: Omit<Unserved, 'bytes'>): void {
    this.#skip = skip
    this.#skippedHeader = skippedHeader
  }

  /** `length` bytes were put at the beginning of `target`. @throws ProtocolError when the stream is lost */
  arrived(length: number): void {
    if (this.#lentFrame && this.#frame !== undefined) return this.#fill(this.#frame, length)
    let at = HEADROOM_BYTES
    const end = at + length
    if (this.#skip > 0) at += this.#skipped(length)
    else if (this.#frame !== undefined) at += this.#fillFromSlab(this.#frame, at, end)
    if (at === end) return
    if (this.#waiting !== undefined) return this.#waitBehind(this.#waiting, at, end)
    const carried = this.#carried
    if (carried !== undefined) {
      this.#carried = undefined
      at -= carried.length
      slab.set(carried, at)
    }
    this.#serve({ bytes: slab, view: slabView, at, end })
  }

  /** Serves again what waited. */
  resume(): void {
    const region = this.#waiting
    this.#waiting = undefined
    if (region !== undefined) this.#serve(region)
  }

  #fill(frame: Uint8Array, length: number): void {
    this.#filled += length
    if (this.#filled < frame.length) return
    const pooled = this.#pooled
    this.#frame = undefined
    this.#pooled = undefined
    this.#serve({ bytes: frame, view: viewOf(frame), at: 0, end: frame.length, ...(pooled && { pooled }) })
  }

  /** A large frame began while the socket rested, when the slab had been lent already for what comes next. */
  #fillFromSlab(frame: Uint8Array, at: number, end: number): number {
    const length = Math.min(end - at, frame.length - this.#filled)
    frame.set(slab.subarray(at, at + length), this.#filled)
    this.#fill(frame, length)
    return length
  }

  #waitBehind(waiting: Region, at: number, end: number): void {
    const bytes = Buffer.concat([waiting.bytes.subarray(waiting.at, waiting.end), slab.subarray(at, end)])
    this.#waiting = { bytes, view: viewOf(bytes), at: 0, end: bytes.length }
  }

  #skipped(length: number): number {
    const skipped = Math.min(this.#skip, length)
    this.#skip -= skipped
    const header = this.#skippedHeader
    if (this.#skip === 0 && header !== undefined) {
      this.#skippedHeader = undefined
      this.#sink.refuseOversize(header)
    }
    return skipped
  }

  #serve(region: Region): void {
    const { bytes, view, at, end, pooled } = region
    const stopped = this.#sink.serve(bytes, view, at, end, pooled)
    if (stopped < end && this.#sink.halted) return this.#wait(region, stopped)
    this.#large = pooled !== undefined
    if (stopped < end) this.#keepPartial(bytes, view, stopped, end)
    if (pooled !== undefined && !this.#sink.keeps) giveBuffer(pooled)
  }

  #wait(region: Region, at: number): void {
    const { bytes, end } = region
    if (bytes !== slab) {
      this.#waiting = { ...region, at }
      return
    }
    const copy = Uint8Array.prototype.slice.call(bytes, at, end)
    this.#waiting = { bytes: copy, view: viewOf(copy), at: 0, end: copy.length }
  }

  #keepPartial(bytes: Uint8Array, view: DataView, at: number, end: number): void {
    const size = this.#sink.frameBytes(view, at, end)
    if (size === undefined || size <= HEADROOM_BYTES) {
      this.#carried = Uint8Array.prototype.slice.call(bytes, at, end)
    } else if (size > this.#sink.frameBytesMax) {
      this.#skippedHeader = Uint8Array.prototype.slice.call(bytes, at, Math.min(end, at + HEADER_COPY_BYTES))
      this.#skip = size - (end - at)
    } else {
      this.#pooled = takeBuffer(size)
      this.#frame = this.#pooled.subarray(0, size)
      this.#frame.set(bytes.subarray(at, end))
      this.#filled = end - at
    }
  }
}
