// What a receive buffer needs of whoever serves its frames.
import type { FrameHold } from './frame-hold.js'
import type { PayloadSink } from './payload-feed.js'
import type { Verdict } from './region.js'

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
  /** Frames above FRAME_BYTES_MAX are handed on as they come, and not put together. */
  readonly streams: boolean
  /** A frame above FRAME_BYTES_MAX is put together, for which there was room. */
  hold(bytes: number): FrameHold | undefined
  /** A frame above FRAME_BYTES_MAX begins at `at`; undefined: throw it away, and call `answerSkipped`. */
  openPayload(view: DataView, at: number): PayloadSink | undefined
  /** A frame was too large, or answered for elsewhere, and has passed; `header` is a copy of its first bytes. */
  answerSkipped(header: Uint8Array, verdict: Verdict | undefined): void
}
