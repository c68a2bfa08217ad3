// The payload of one large WRITE on its way from the socket to whoever takes it, in pieces. Law: a piece is whole, or the
// last one, when it is given; what is kept of it is kept by whoever took it, the rest is used again.
import { giveBuffer, takeBuffer } from './buffer-pool.js'

export const PIECE_BYTES = 256 << 10

/** Who takes the payload of a large frame. */
export interface PayloadSink {
  /** Bytes of the whole payload. */
  readonly bytes: number
  /** Pieces wait for storage: no further one may be given now. */
  readonly busy: boolean
  /** Takes the next bytes, bytes[at, at + length). True: `pooled`, of which they are a part, is its own from here on. */
  take(bytes: Uint8Array, at: number, length: number, pooled?: Uint8Array): boolean
}

export class PayloadFeed {
  readonly #sink: PayloadSink
  /** Bytes that have not come yet. */
  #left: number
  /** A piece that is not whole yet. */
  #piece: Uint8Array | undefined
  #filled = 0

  constructor(sink: PayloadSink) {
    this.#sink = sink
    this.#left = sink.bytes
  }

  get busy(): boolean {
    return this.#sink.busy
  }

  get left(): number {
    return this.#left
  }

  /** What has come of a piece that is not whole. */
  get partial(): Uint8Array | undefined {
    return this.#piece?.subarray(0, this.#filled)
  }

  /** Where the next bytes may be put; only while it is not busy. */
  get target(): Uint8Array {
    this.#piece ??= takeBuffer(PIECE_BYTES)
    return this.#piece.subarray(this.#filled, Math.min(PIECE_BYTES, this.#filled + this.#left))
  }

  /** `length` bytes were put there. */
  arrived(length: number): void {
    this.#filled += length
    this.#left -= length
    if (this.#piece === undefined || (this.#filled < PIECE_BYTES && this.#left > 0)) return
    const filled = this.#filled
    this.#filled = 0
    if (this.#sink.take(this.#piece, 0, filled, this.#piece)) this.#piece = undefined
    else if (this.#left === 0) this.drop()
  }

  /** Takes of bytes[at, end), which are only loaned, what belongs to it and can be taken now; returns where that ends. */
  feed(bytes: Uint8Array, from: number, end: number): number {
    let at = from
    while (at < end && this.#left > 0 && !this.busy) at += this.#feedOnce(bytes, at, end)
    return at
  }

  #feedOnce(bytes: Uint8Array, at: number, end: number): number {
    const there = Math.min(this.#left, end - at, PIECE_BYTES)
    if (this.#filled === 0 && (there === this.#left || there === PIECE_BYTES)) {
      this.#left -= there
      this.#sink.take(bytes, at, there)
      if (this.#left === 0) this.drop()
      return there
    }
    // Less than a piece waits for the rest of one: until then nobody has to wait for this write.
    const length = Math.min(there, this.target.length)
    this.target.set(bytes.subarray(at, at + length))
    this.arrived(length)
    return length
  }

  /** Gives the buffer back: all has come, or no more will. */
  drop(): void {
    if (this.#piece !== undefined) giveBuffer(this.#piece)
    this.#piece = undefined
  }
}
