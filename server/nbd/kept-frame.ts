// A frame that is put together in a buffer of its own. Law: it is exactly the frame's bytes, and is given on when it is whole.
import { viewOf } from 'nbd-protocol'
import { giveBuffer, headAt, takeBuffer } from './buffer-pool.js'
import type { FrameHold } from './frame-hold.js'
import { PIECE_BYTES } from './payload-feed.js'
import type { Region } from './region.js'

export class KeptFrame {
  readonly #pooled: Uint8Array
  readonly #bytes: Uint8Array
  readonly #hold: FrameHold | undefined
  #filled: number
  /** What had come when its hold was last touched. */
  #touchedAt = 0

  /** A frame of `size` bytes, which begins with `first`, and has its payload behind `headerBytes`. */
  constructor(size: number, headerBytes: number, first: Uint8Array, hold: FrameHold | undefined) {
    const at = headAt(headerBytes)
    this.#pooled = takeBuffer(at + size)
    this.#bytes = this.#pooled.subarray(at, at + size)
    this.#bytes.set(first)
    this.#filled = first.length
    this.#hold = hold
  }

  /** Where the next bytes are to be put. */
  get target(): Uint8Array {
    return this.#bytes.subarray(this.#filled)
  }

  /** What has come of it. */
  get partial(): Uint8Array {
    return this.#bytes.subarray(0, this.#filled)
  }

  get missing(): number {
    return this.#bytes.length - this.#filled
  }

  /** `length` bytes were put at the beginning of `target`. The frame, if it is whole now: its buffer is the caller's then. */
  arrived(length: number): Region | undefined {
    const [bytes, hold] = [this.#bytes, this.#hold]
    this.#filled += length
    if (this.missing > 0) {
      if (this.#filled - this.#touchedAt >= PIECE_BYTES) this.touch()
      return undefined
    }
    hold?.complete()
    return { bytes, view: viewOf(bytes), at: 0, end: bytes.length, pooled: this.#pooled, ...(hold && { hold }) }
  }

  /** It was not read for a while: that was not its client's silence. */
  touch(): void {
    this.#touchedAt = this.#filled
    this.#hold?.touch()
  }

  /** No more will come. */
  drop(): void {
    this.#hold?.leave()
    giveBuffer(this.#pooled)
  }
}
