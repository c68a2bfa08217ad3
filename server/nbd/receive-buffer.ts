// Bytes from the socket, cut into whole frames. It knows lengths, never commands. All connections of a thread share
// one slab; what is left over when a turn ends is copied out, so that the slab is free for the next connection.
//
//     | headroom: the partial frame of last time | bytes that the kernel just put here                  |
//                ^ carried                        ^ SLAB_START                 ^ end of what arrived
import type { FrameSink } from './frame-sink.js'
import { KeptFrame } from './kept-frame.js'
import { PayloadFeed } from './payload-feed.js'
import { type Judged, ownRegion, type Region, release, type Unserved } from './region.js'
import { leftOf, SkippedFrame, skippedOf } from './skipped-frame.js'
import { HEADROOM_BYTES, SLAB_BYTES, slab, slabTarget, slabView } from './slab.js'

/** Larger frames are not put together: their payload is handed on as it comes. A whole MiB and its header are. */
export const FRAME_BYTES_MAX = (1 << 20) + 32
/** Between large frames there may be a small one: a hole between data. */
const LARGE_FOR = 2
const NOTHING = new Uint8Array(0)

export class ReceiveBuffer {
  readonly #sink: FrameSink
  /** The start of a small frame whose rest has not come. */
  #carried: Uint8Array | undefined
  /** A large frame on its way. */
  #frame: KeptFrame | undefined
  /** Bytes that the sink did not take although they are whole frames. */
  #waiting: Region | undefined
  #skipped: SkippedFrame | undefined
  /** The payload of a frame that is handed on as it comes. */
  #feed: PayloadFeed | undefined
  /** Where the bytes that come next were promised room. */
  #lent: 'slab' | 'frame' | 'feed' = 'slab'
  lentBytes = 0
  /** Above 0 the next frame most likely gets a buffer of its own, as one of the last two did. */
  #large = 0

  constructor(sink: FrameSink) {
    this.#sink = sink
  }

  /** Where the kernel is to put the next bytes. Valid until this thread reads for another connection. */
  get target(): Uint8Array {
    const target = this.#lend()
    this.lentBytes = target.length
    return target
  }

  #lend(): Uint8Array {
    this.#lent = this.#room
    if (this.#lent === 'frame' && this.#frame !== undefined) return this.#frame.target
    if (this.#lent === 'feed' && this.#feed !== undefined) return this.#feed.target
    // Behind one large frame, unless it waits, most likely comes another: its header alone is read, no payload copied.
    return this.#large > 0 && this.#waiting === undefined ? slabTarget.subarray(0, this.#sink.headerBytes) : slabTarget
  }

  get #room(): 'slab' | 'frame' | 'feed' {
    if (this.#frame !== undefined) return 'frame'
    return this.#feed !== undefined && !this.#feed.busy && this.#waiting === undefined ? 'feed' : 'slab'
  }

  /** True while frames wait for the sink: nothing more may be read until `resume` has served them. */
  get waiting(): boolean {
    return this.#waiting !== undefined || this.#feed?.busy === true
  }

  /** Whether nothing is kept of a frame that has not come whole. */
  get isBetweenFrames(): boolean {
    return this.#frame === undefined && this.#feed === undefined && this.#carried === undefined && !this.#skipped
  }

  /** Bytes that were read although the sink is to have others first. */
  get ahead(): number {
    return this.#waiting === undefined ? 0 : this.#waiting.end - this.#waiting.at
  }

  /** The requests that were read and not served yet, or the last part of them; a payload that is handed on is none. */
  get rest(): Uint8Array {
    return this.#unread.subarray(this.#feed?.left ?? 0)
  }

  get #unread(): Uint8Array {
    const waiting = this.#waiting
    if (waiting !== undefined) return waiting.bytes.subarray(waiting.at, waiting.end)
    return this.#frame?.partial ?? this.#carried ?? NOTHING
  }

  /** All that is left, as a copy, behind what the sink has left of large payloads; this buffer is of no more use. */
  unserved(before: readonly Uint8Array[] = [], judged?: Judged): Unserved {
    const left = leftOf({ before, unread: this.#unread, feed: this.#feed, skipped: this.#skipped, judged })
    this.close()
    return left
  }

  /** Goes on where another buffer stopped, before anything has arrived here. @throws ProtocolError as `arrived` */
  goOn(unserved: Unserved): void {
    const skipped = skippedOf(unserved)
    const hasPassed = skipped?.left === 0
    // A frame that has passed whole stands before what came behind it, and one that has not behind what waits.
    if (hasPassed) this.#pass(skipped, 0)
    this.feed(unserved.bytes)
    // Without one that was handed over, the bytes themselves may have begun one.
    if (skipped !== undefined && !hasPassed) this.#skipped = skipped
  }

  /** Takes bytes that came elsewhere; what was lent to the kernel stays lent. @throws ProtocolError as `arrived` */
  feed(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += SLAB_BYTES) {
      const part = bytes.subarray(at, at + SLAB_BYTES)
      slabTarget.set(part)
      this.#cameInSlab(part.length)
    }
  }

  /** `length` bytes were put at the beginning of `target`. @throws ProtocolError when the stream is lost */
  arrived(length: number): void {
    if (this.#lent === 'frame' && this.#frame !== undefined) return this.#fill(this.#frame, length)
    if (this.#lent === 'feed') {
      this.#feed?.arrived(length)
      return this.#closeFeed()
    }
    this.#cameInSlab(length)
  }

  #cameInSlab(length: number): void {
    let at = HEADROOM_BYTES
    const end = at + length
    if (this.#skipped !== undefined) at += this.#pass(this.#skipped, length)
    else if (this.#frame !== undefined) at += this.#fillFromSlab(this.#frame, at, end)
    if (at === end) return
    if (this.#waiting !== undefined) return this.#waitBehind(this.#waiting, at, end)
    const carried = this.#carried
    if (carried !== undefined) {
      this.#carried = undefined
      at -= carried.length
      slab.set(carried, at)
    }
    this.#take({ bytes: slab, view: slabView, at, end })
  }

  /** Serves again what waited. */
  resume(): void {
    if (this.#feed?.busy) return
    const region = this.#waiting
    this.#waiting = undefined
    if (region !== undefined) this.#take(region)
  }

  /** Nothing was read for a while, which was not the peer's silence. */
  thaw(): void {
    this.#frame?.touch()
  }

  /** No more will come. */
  close(): void {
    this.#feed?.drop()
    this.#feed = undefined
    if (this.#waiting !== undefined) release(this.#waiting, slab)
    this.#waiting = undefined
    this.#frame?.drop()
    this.#frame = undefined
  }

  /** The first bytes may belong to a payload that is handed on. */
  #take(region: Region): void {
    if (this.#feed === undefined) return this.#serve(region)
    const at = this.#feed.feed(region.bytes, region.at, region.end)
    this.#closeFeed()
    if (at === region.end) return release(region, slab)
    if (this.#feed === undefined) this.#serve({ ...region, at })
    else this.#wait(region, at)
  }

  #closeFeed(): void {
    if (this.#feed?.left !== 0) return
    this.#feed = undefined
    this.#large = LARGE_FOR
  }

  #fill(frame: KeptFrame, length: number): void {
    const whole = frame.arrived(length)
    if (whole === undefined) return
    this.#frame = undefined
    this.#serve(whole)
  }

  /** A large frame began while the socket rested, when the slab had been lent already for what comes next, or is fed. */
  #fillFromSlab(frame: KeptFrame, at: number, end: number): number {
    const length = Math.min(end - at, frame.missing)
    frame.target.set(slab.subarray(at, at + length))
    this.#fill(frame, length)
    return length
  }

  #waitBehind(waiting: Region, at: number, end: number): void {
    const bytes = Buffer.concat([waiting.bytes.subarray(waiting.at, waiting.end), slab.subarray(at, end)])
    release(waiting, slab)
    this.#waiting = ownRegion(bytes)
  }

  #pass(frame: SkippedFrame, length: number): number {
    const passed = frame.pass(length)
    if (frame.left === 0) {
      this.#skipped = undefined
      this.#sink.answerSkipped(frame.header, frame.verdict)
    }
    return passed
  }

  #serve(region: Region): void {
    const { bytes, view, at, end, pooled } = region
    const stopped = this.#sink.serve(bytes, view, at, end, pooled)
    if (stopped < end && this.#sink.halted) return this.#wait(region, stopped)
    this.#large = pooled !== undefined ? LARGE_FOR : Math.max(0, this.#large - 1)
    // What is handed on may have to wait, and is given back where that ends: never here as well.
    if (stopped < end && this.#keepPartial({ ...region, at: stopped })) return
    if (pooled === undefined || !this.#sink.keeps) release(region, slab)
    else region.hold?.leave()
  }

  #wait(region: Region, at: number): void {
    const { bytes, end } = region
    this.#waiting = bytes === slab ? ownRegion(Uint8Array.prototype.slice.call(bytes, at, end)) : { ...region, at }
  }

  /** Keeps the start of a frame; true when the region has another owner now. */
  #keepPartial(region: Region): boolean {
    const { bytes, view, at, end } = region
    const size = this.#sink.frameBytes(view, at, end)
    if (size === undefined || size <= HEADROOM_BYTES) {
      this.#carried = Uint8Array.prototype.slice.call(bytes, at, end)
    } else if (size > this.#sink.frameBytesMax || (size > FRAME_BYTES_MAX && this.#sink.streams)) {
      return this.#handOn(region, size)
    } else {
      const hold = size > FRAME_BYTES_MAX ? this.#sink.hold(size) : undefined
      this.#frame = new KeptFrame(size, this.#sink.headerBytes, bytes.subarray(at, end), hold)
    }
    return false
  }

  #handOn(region: Region, size: number): boolean {
    const { bytes, view, at, end } = region
    const payload = size > this.#sink.frameBytesMax ? undefined : this.#sink.openPayload(view, at)
    if (payload !== undefined) {
      this.#feed = new PayloadFeed(payload)
      this.#take({ ...region, at: at + size - payload.bytes })
      return true
    }
    this.#skipped = new SkippedFrame(size - (end - at), bytes.subarray(at, end))
    return false
  }
}
