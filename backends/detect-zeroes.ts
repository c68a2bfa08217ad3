// A wrapper that makes holes of written zeroes, for clients that cannot send WRITE_ZEROES: Linux's NBD driver before 6.12.
// Law: what is not all zeroes reaches the inner backend unchanged, and zeroes that could not be punched for want of space are written.
import type { Backend, BackingSpace, Capabilities, Condition, Extent, SparseRead, TakeBuffer } from './backend.js'
import { ZERO_PUNCH } from './backend.js'
import { EDQUOT, ENOSPC } from './errno.js'
import { errnoOf, isSyncFailure, type Outcome, WOULD_BLOCK } from './outcome.js'

const { compare } = Buffer.prototype

/** `inner`, whose writes of nothing but zeroes give their space back where they cover a whole block. */
export function withZeroDetection(inner: Backend): Backend {
  return new ZeroDetection(inner)
}

/**
 * Whether bytes [start, start + length) are zeroes. Three bytes answer for nearly all data (12 ns); the rest is a
 * comparison of the range with itself, one byte on, which is memcmp(3): 0.1 µs for 4 KiB, 1.3 µs for 128 KiB.
 */
export function isZero(bytes: Uint8Array, start: number, length: number): boolean {
  const last = start + length - 1
  if (bytes[start] !== 0 || bytes[last] !== 0 || bytes[start + (length >>> 1)] !== 0) return false
  return compare.call(bytes, bytes, start + 1, last + 1, start, last) === 0
}

class ZeroDetection implements Backend {
  readonly can: Capabilities
  readonly #inner: Backend
  readonly #block: number

  constructor(inner: Backend) {
    this.#inner = inner
    // What is to be looked at for zeroes has to be a buffer.
    this.can = { ...inner.can, vectors: false }
    this.#block = inner.can.preferredBlockSize
  }

  #becomesHole(bytes: Uint8Array, start: number, length: number, offset: number): boolean {
    const first = Math.ceil(offset / this.#block) * this.#block
    return first + this.#block <= offset + length && isZero(bytes, start, length)
  }

  writeNow(source: Uint8Array, start: number, length: number, offset: number): Outcome {
    if (this.#becomesHole(source, start, length, offset)) return WOULD_BLOCK
    return this.#inner.writeNow(source, start, length, offset)
  }

  async write(source: Uint8Array, start: number, length: number, offset: number, durable: boolean): Promise<Outcome> {
    if (!this.#becomesHole(source, start, length, offset)) {
      return this.#inner.write(source, start, length, offset, durable)
    }
    const outcome = await this.#inner.zero(offset, length, ZERO_PUNCH, durable)
    const full = errnoOf(outcome) === ENOSPC || errnoOf(outcome) === EDQUOT
    // Splitting an extent may need a block where overwriting it needs none.
    return full && !isSyncFailure(outcome) ? this.#inner.write(source, start, length, offset, durable) : outcome
  }

  get size(): number {
    return this.#inner.size
  }

  get identity(): string | undefined {
    return this.#inner.identity
  }

  get warnings(): readonly string[] {
    return this.#inner.warnings
  }

  get space(): BackingSpace | undefined {
    return this.#inner.space
  }

  get released(): boolean {
    return this.#inner.released
  }

  pagesNow(length: number, offset: number): Outcome {
    return this.#inner.pagesNow?.(length, offset) ?? WOULD_BLOCK
  }

  readNow(target: Uint8Array, start: number, length: number, offset: number): Outcome {
    return this.#inner.readNow(target, start, length, offset)
  }

  read(target: Uint8Array, start: number, length: number, offset: number): Promise<Outcome> {
    return this.#inner.read(target, start, length, offset)
  }

  readSparse(headroom: number, length: number, offset: number, take?: TakeBuffer): Promise<SparseRead | Outcome> {
    return this.#inner.readSparse(headroom, length, offset, take)
  }

  zero(offset: number, length: number, mode: number, durable: boolean): Promise<Outcome> {
    return this.#inner.zero(offset, length, mode, durable)
  }

  trim(offset: number, length: number, durable: boolean): Promise<Outcome> {
    return this.#inner.trim(offset, length, durable)
  }

  flush(): Promise<Outcome> {
    return this.#inner.flush()
  }

  settle(): Promise<Outcome> {
    return this.#inner.settle()
  }

  probe(quick?: boolean): Outcome {
    return this.#inner.probe(quick)
  }

  cache(offset: number, length: number): Promise<Outcome> {
    return this.#inner.cache(offset, length)
  }

  extents(offset: number, length: number, limit: number): Promise<readonly Extent[] | Outcome> {
    return this.#inner.extents(offset, length, limit)
  }

  look(): Condition {
    return this.#inner.look()
  }

  measure(): number {
    return this.#inner.measure()
  }

  resize(size: number): Promise<Outcome> {
    return this.#inner.resize(size)
  }

  release(): Promise<Outcome> {
    return this.#inner.release()
  }

  reopen(): Promise<Outcome> {
    return this.#inner.reopen()
  }

  close(): Promise<void> {
    return this.#inner.close()
  }
}
