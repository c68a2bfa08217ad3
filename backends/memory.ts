// A disk in memory, sparse by blocks: the reference model that every other backend is compared with. It forgets
// everything when it is closed.
import type { Backend, Capabilities, Condition, Extent, SparseRead } from './backend.js'
import { EOPNOTSUPP } from './errno.js'
import { DONE, type Outcome } from './outcome.js'

const BLOCK_BYTES = 4096

/** A disk of `size` bytes that reads as zeroes. */
export function openMemory(size: number): Backend {
  return new Memory(size)
}

class Memory implements Backend {
  size: number
  readonly can: Capabilities = {
    write: true,
    trim: true,
    fastZero: true,
    extents: true,
    minimumBlockSize: 1,
    preferredBlockSize: BLOCK_BYTES,
  }
  readonly identity = undefined
  readonly space = undefined
  readonly warnings: readonly string[] = ['this disk lies in memory: all of it is lost when the server ends']
  readonly #blocks = new Map<number, Uint8Array>()

  constructor(size: number) {
    this.size = size
  }

  /** Calls `visit` for each block that the range touches, with the part of the block that it covers. */
  #each(offset: number, length: number, visit: (block: number, from: number, to: number, at: number) => void): void {
    const end = offset + length
    for (let at = offset; at < end; ) {
      const block = Math.floor(at / BLOCK_BYTES)
      const from = at % BLOCK_BYTES
      const to = Math.min(BLOCK_BYTES, from + end - at)
      visit(block, from, to, at - offset)
      at += to - from
    }
  }

  readNow(target: Uint8Array, start: number, length: number, offset: number): Outcome {
    this.#each(offset, length, (block, from, to, at) => {
      const bytes = this.#blocks.get(block)
      if (bytes === undefined) target.fill(0, start + at, start + at + to - from)
      else target.set(bytes.subarray(from, to), start + at)
    })
    return DONE
  }

  writeNow(source: Uint8Array, start: number, length: number, offset: number): Outcome {
    this.#each(offset, length, (block, from, to, at) => {
      this.#blockAt(block).set(source.subarray(start + at, start + at + to - from), from)
    })
    return DONE
  }

  #blockAt(block: number): Uint8Array {
    let bytes = this.#blocks.get(block)
    if (bytes === undefined) {
      bytes = new Uint8Array(BLOCK_BYTES)
      this.#blocks.set(block, bytes)
    }
    return bytes
  }

  async read(target: Uint8Array, start: number, length: number, offset: number): Promise<Outcome> {
    return this.readNow(target, start, length, offset)
  }

  async readSparse(headroom: number, length: number, offset: number): Promise<SparseRead> {
    const buffer = new Uint8Array(headroom + length)
    this.readNow(buffer, headroom, length, offset)
    return { buffer, start: headroom, runs: await this.extents(offset, length, Number.MAX_SAFE_INTEGER) }
  }

  async write(source: Uint8Array, start: number, length: number, offset: number): Promise<Outcome> {
    return this.writeNow(source, start, length, offset)
  }

  async zero(offset: number, length: number): Promise<Outcome> {
    return this.#clear(offset, length)
  }

  async trim(offset: number, length: number): Promise<Outcome> {
    return this.#clear(offset, length)
  }

  /** Visits the blocks that hold data, not those of the range: a disk of 16 TiB is cleared as fast as it is empty. */
  #clear(offset: number, length: number): Outcome {
    const end = offset + length
    for (const [block, bytes] of this.#blocks) {
      const from = Math.max(0, offset - block * BLOCK_BYTES)
      const to = Math.min(BLOCK_BYTES, end - block * BLOCK_BYTES)
      if (from >= to) continue
      if (to - from === BLOCK_BYTES) this.#blocks.delete(block)
      else bytes.fill(0, from, to)
    }
    return DONE
  }

  async flush(): Promise<Outcome> {
    return DONE
  }

  async settle(): Promise<Outcome> {
    return DONE
  }

  probe(): Outcome {
    return DONE
  }

  async cache(): Promise<Outcome> {
    return DONE
  }

  async extents(offset: number, length: number, limit: number): Promise<readonly Extent[]> {
    const end = offset + length
    const starts = [...this.#blocks.keys()].map((block) => block * BLOCK_BYTES).sort((a, b) => a - b)
    const extents: Extent[] = []
    let at = offset
    const append = (until: number, hole: boolean) => {
      const to = Math.min(until, end)
      if (to <= at) return
      const last = extents.at(-1)
      if (last?.hole === hole) extents[extents.length - 1] = { ...last, length: last.length + to - at }
      else extents.push({ length: to - at, hole, zero: hole })
      at = to
    }
    for (const start of starts) {
      append(start, true)
      if (start + BLOCK_BYTES > at) append(start + BLOCK_BYTES, false)
    }
    append(end, true)
    return extents.slice(0, limit)
  }

  measure(): number {
    return this.size
  }

  async resize(size: number): Promise<Outcome> {
    if (size < this.size) this.#clear(size, this.size - size)
    this.size = size
    return DONE
  }

  look(): Condition {
    return { present: this.size, unlinked: false }
  }

  readonly released = false

  /** There is nothing under it that could be unmounted. */
  async release(): Promise<Outcome> {
    return EOPNOTSUPP
  }

  async reopen(): Promise<Outcome> {
    return DONE
  }

  async close(): Promise<void> {
    this.#blocks.clear()
  }
}
