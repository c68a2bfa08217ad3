// How the frames of one connection are measured and served. Law: it knows how long a frame is and who serves it, and nothing of
// what it means.
import { decodeRequest, emptyRequest, frameSize, ProtocolError, requestHeaderBytes, viewOf } from 'nbd-protocol'
import type { ConnectionLimits } from './connection-options.js'
import { FrameHold } from './frame-hold.js'
import type { FrameSink } from './frame-sink.js'
import { PAYLOAD_BYTES_MAX } from './negotiation.js'
import type { PayloadBudget } from './payload-budget.js'
import type { PayloadSink } from './payload-feed.js'
import type { Verdict } from './region.js'
import type { Transmission } from './transmission.js'

export interface FramesOptions {
  /** Who serves them, once it is there. */
  readonly transmission: () => Transmission
  readonly extended: boolean
  readonly limits: ConnectionLimits
  readonly budget: PayloadBudget
  /** Called when the peer has said that it leaves. */
  readonly leaving: () => void
  /** Called when the peer has stopped in the middle of a frame that others wait for; ends the connection. */
  readonly stalled: () => void
}

export class Frames implements FrameSink {
  readonly frameBytesMax = requestHeaderBytes(true) + PAYLOAD_BYTES_MAX
  readonly headerBytes: number
  readonly #transmission: () => Transmission
  readonly #extended: boolean
  /** Larger frames end the connection. */
  readonly #bytesMax: number
  readonly #leaving: () => void
  readonly #hold: (bytes: number) => FrameHold

  constructor({ transmission, extended, limits, budget, leaving, stalled }: FramesOptions) {
    this.#transmission = transmission
    this.#extended = extended
    this.headerBytes = requestHeaderBytes(extended)
    this.#bytesMax = Math.max(this.frameBytesMax, limits.oversizeBytesMax + this.headerBytes)
    this.#leaving = leaving
    this.#hold = (bytes) => new FrameHold(budget, bytes, limits.payloadTimeoutMs, stalled)
  }

  get halted(): boolean {
    return this.#transmission().halt !== 'none'
  }

  get streams(): boolean {
    return this.#transmission().streams
  }

  get keeps(): boolean {
    return this.#transmission().keeps
  }

  frameBytes(view: DataView, at: number, end: number): number | undefined {
    if (end - at < this.headerBytes) return undefined
    const bytes = frameSize(view, at, this.#extended)
    if (bytes <= this.#bytesMax) return bytes
    throw new ProtocolError('payload-too-long', `a request announced ${bytes} bytes; ${this.#bytesMax} is the bound`)
  }

  serve(bytes: Uint8Array, view: DataView, at: number, end: number, pooled?: Uint8Array): number {
    const stopped = this.#transmission().serve(bytes, view, at, end, pooled)
    if (!this.#transmission().disconnected) return stopped
    this.#leaving()
    return end
  }

  hold(bytes: number): FrameHold {
    return this.#hold(bytes)
  }

  openPayload(view: DataView, at: number): PayloadSink | undefined {
    return this.#transmission().openPayload(view, at)
  }

  answerSkipped(header: Uint8Array, verdict: Verdict | undefined): void {
    this.#transmission().answerSkipped(decodeRequest(viewOf(header), 0, this.#extended, emptyRequest()), verdict)
  }
}
