// A backend from a few promises: what a program that embeds the server has to say of its own storage. Law: a rejection
// is an error for the client, by the errno that it carries; nothing is answered with success that was not resolved.
import type { Backend, Capabilities, Condition, Extent, SparseRead } from './backend.js'
import { ZERO_FAST } from './backend.js'
import { EIO, EOPNOTSUPP, EROFS, errnoNumber } from './errno.js'
import { DONE, errnoOf, NOT_FAST, type Outcome, SYNC_FAILED, WOULD_BLOCK } from './outcome.js'

/** `offset` and `length` are bytes within `size`. An error with a `code` such as 'ENOSPC' is told as that, others as EIO. */
export interface Storage {
  /** Bytes; a safe integer. */
  readonly size: number
  /** What a smaller or unaligned request costs more than; a power of two from 512 on. Default 4096. */
  readonly preferredBlockSize?: number
  /** Resolves with exactly `length` bytes. */
  read(offset: number, length: number): Promise<Uint8Array>
  /** Resolves when all the bytes are written, which are the storage's until then. Absent: the disk is read-only. */
  write?(offset: number, bytes: Uint8Array): Promise<void>
  /** Resolves when all that was written before is durable. Absent: every write is when it resolves. */
  flush?(): Promise<void>
  /** Makes the range read as zeroes without writing it. Absent: zeroes are written, and TRIM does nothing. */
  discard?(offset: number, length: number): Promise<void>
  close?(): Promise<void>
}

const PREFERRED_BLOCK_SIZE = 4096
const ZEROES_BYTES = 1 << 20

/** The Backend that serves `storage`. */
export function storageBackend(storage: Storage): Backend {
  return new StorageBackend(storage)
}

function outcomeOf(error: unknown): Outcome {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return errnoNumber(code) ?? EIO
}

async function settled(work: Promise<unknown> | undefined): Promise<Outcome> {
  try {
    await work
    return DONE
  } catch (error) {
    return outcomeOf(error)
  }
}

class StorageBackend implements Backend {
  readonly size: number
  readonly can: Capabilities
  readonly identity = undefined
  readonly space = undefined
  readonly warnings: readonly string[] = []
  readonly #storage: Storage

  constructor(storage: Storage) {
    this.#storage = storage
    this.size = storage.size
    const discards = storage.discard !== undefined
    this.can = {
      write: storage.write !== undefined,
      trim: discards,
      fastZero: discards,
      extents: false,
      minimumBlockSize: 1,
      preferredBlockSize: storage.preferredBlockSize ?? PREFERRED_BLOCK_SIZE,
    }
  }

  readNow(): Outcome {
    return WOULD_BLOCK
  }

  writeNow(): Outcome {
    return WOULD_BLOCK
  }

  async read(target: Uint8Array, start: number, length: number, offset: number): Promise<Outcome> {
    try {
      const bytes = await this.#storage.read(offset, length)
      if (bytes.length !== length) return EIO
      target.set(bytes, start)
      return DONE
    } catch (error) {
      return outcomeOf(error)
    }
  }

  async readSparse(headroom: number, length: number, offset: number): Promise<SparseRead | Outcome> {
    const buffer = new Uint8Array(headroom + length)
    const outcome = await this.read(buffer, headroom, length, offset)
    return outcome === DONE ? { buffer, start: headroom, runs: wholly(length) } : outcome
  }

  async write(source: Uint8Array, start: number, length: number, offset: number, durable: boolean): Promise<Outcome> {
    if (this.#storage.write === undefined) return EROFS
    const outcome = await settled(this.#storage.write(offset, source.subarray(start, start + length)))
    return outcome === DONE && durable ? this.flush() : outcome
  }

  async zero(offset: number, length: number, mode: number, durable: boolean): Promise<Outcome> {
    if (this.#storage.discard === undefined) {
      return (mode & ZERO_FAST) !== 0 ? NOT_FAST : this.#writeZeroes(offset, length, durable)
    }
    const outcome = await settled(this.#storage.discard(offset, length))
    return outcome === DONE && durable ? this.flush() : outcome
  }

  async #writeZeroes(offset: number, length: number, durable: boolean): Promise<Outcome> {
    const end = offset + length
    for (let at = offset; at < end; at += ZEROES_BYTES) {
      const zeroes = new Uint8Array(Math.min(ZEROES_BYTES, end - at))
      const outcome = await this.write(zeroes, 0, zeroes.length, at, false)
      if (outcome !== DONE) return outcome
    }
    return durable ? this.flush() : DONE
  }

  async trim(offset: number, length: number, durable: boolean): Promise<Outcome> {
    const outcome = await settled(this.#storage.discard?.(offset, length))
    return outcome === DONE && durable ? this.flush() : outcome
  }

  async flush(): Promise<Outcome> {
    const outcome = await settled(this.#storage.flush?.())
    return outcome === DONE ? DONE : errnoOf(outcome) | SYNC_FAILED
  }

  settle(): Promise<Outcome> {
    return this.flush()
  }

  probe(): Outcome {
    return DONE
  }

  async cache(): Promise<Outcome> {
    return DONE
  }

  async extents(_offset: number, length: number): Promise<readonly Extent[]> {
    return wholly(length)
  }

  look(): Condition {
    return { present: this.size, unlinked: false }
  }

  measure(): number {
    return this.size
  }

  async resize(size: number): Promise<Outcome> {
    return size === this.size ? DONE : EOPNOTSUPP
  }

  readonly released = false

  /** Whoever embeds the server knows best how to let go of it. */
  async release(): Promise<Outcome> {
    return EOPNOTSUPP
  }

  async reopen(): Promise<Outcome> {
    return DONE
  }

  async close(): Promise<void> {
    await this.#storage.close?.()
  }
}

function wholly(length: number): readonly Extent[] {
  return length === 0 ? [] : [{ length, hole: false, zero: false }]
}
