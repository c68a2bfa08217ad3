// A disk that loses writes the way Linux does: pages that could not be written back count as clean, read as they were
// written until they are evicted and as they were before from then on; each description hears of it once.
import type { Backend, Condition, Extent, SparseRead } from '../../backends/backend.js'
import { DONE, EIO, ENOSPC, EOPNOTSUPP, type Outcome, SYNC_FAILED } from '../../backends/index.js'
import type { Weather } from './fault-weather.js'
import type { Medium } from './linux-disk-media.js'

export const PAGE_BYTES = 4096

/** Descriptions of the file that ask whether write-back failed: the one of all I/O, and the one that only asks. */
type Description = 'own' | 'witness'

export class LinuxDisk implements Backend {
  readonly size: number
  readonly can: Backend['can']
  readonly identity = undefined
  readonly space = undefined
  readonly warnings: readonly string[] = []
  readonly #medium: Medium
  readonly #inner: Backend
  readonly #weather: Weather
  /** What stable storage holds of each page whose content in the cache is another. */
  readonly #saved = new Map<number, Uint8Array>()
  /** Pages that were given up: clean, their content only in the cache. */
  readonly #lost = new Set<number>()
  /** Changes of a page that are in the inner backend right now. */
  readonly #busy = new Map<number, number>()
  /** Grows with each failure of write-back (the kernel's errseq_t). */
  #failures = 0
  #errno = EIO
  readonly #seen: Record<Description, number> = { own: 0, witness: 0 }
  /** Pages whose content was lost for good so far. */
  evicted = 0

  constructor(medium: Medium, weather: Weather) {
    this.#medium = medium
    this.#inner = medium.inner
    this.#weather = weather
    this.size = medium.inner.size
    this.can = medium.inner.can
  }

  /** What would be found after a power cut. */
  stable(): Uint8Array {
    const bytes = new Uint8Array(this.size)
    for (let page = 0; page * PAGE_BYTES < this.size; page++) {
      bytes.set(this.#saved.get(page) ?? this.#medium.peek(page), page * PAGE_BYTES)
    }
    return bytes
  }

  #dirty(offset: number, length: number): void {
    for (const page of pagesOf(offset, length)) {
      if (!this.#saved.has(page)) this.#saved.set(page, this.#medium.peek(page))
      this.#lost.delete(page)
    }
  }

  /** Writes these pages back as far as they are dirty; `failing` gives some of them up. */
  #writeBack(pages: Iterable<number>, failing: boolean): void {
    let failed = false
    for (const page of pages) {
      if (!this.#saved.has(page) || this.#lost.has(page)) continue
      // What is being changed stays dirty, and is neither lost nor evicted.
      if (this.#busy.has(page)) this.#saved.set(page, this.#medium.peek(page))
      else if (failing && this.#weather.random.onceIn(2)) {
        failed = true
        this.#lost.add(page)
      } else this.#saved.delete(page)
    }
    if (!failed) return
    this.#failures += 1
    this.#errno = this.#weather.random.pick([EIO, EIO, ENOSPC])
    if (this.#weather.random.onceIn(2)) this.evict()
  }

  /** The kernel writes some dirty pages back by itself. */
  writeBackSome(): void {
    const pages = [...this.#saved.keys()].filter(() => this.#weather.random.onceIn(2))
    this.#writeBack(pages, this.#weather.syncFails())
  }

  /** Memory is wanted elsewhere: pages that were given up are read from storage from here on. */
  evict(): void {
    for (const page of [...this.#lost]) {
      const old = this.#saved.get(page)
      if (old === undefined || this.#busy.has(page) || this.#weather.random.onceIn(3)) continue
      this.#medium.poke(page, old)
      this.#saved.delete(page)
      this.#lost.delete(page)
      this.evicted += 1
    }
  }

  /** Somebody cuts the file off; for when no change is on its way. */
  truncate(size: number): void {
    for (const [page, bytes] of [...this.#saved]) {
      const start = page * PAGE_BYTES
      if (start >= size) {
        this.#saved.delete(page)
        this.#lost.delete(page)
      } else if (start + PAGE_BYTES > size) bytes.fill(0, size - start)
    }
    this.#medium.truncate(size)
  }

  #told(description: Description): number {
    if (this.#seen[description] === this.#failures) return 0
    this.#seen[description] = this.#failures
    return this.#errno
  }

  probe(): Outcome {
    const own = this.#told('own')
    return this.#told('witness') || own
  }

  async #sync(pages: readonly number[]): Promise<Outcome> {
    await this.#weather.pass()
    this.#writeBack(pages, this.#weather.syncFails())
    const errno = this.#told('own')
    await this.#weather.pass()
    return errno === 0 ? DONE : errno | SYNC_FAILED
  }

  flush(): Promise<Outcome> {
    return this.#sync([...this.#saved.keys()])
  }

  settle(): Promise<Outcome> {
    return this.flush()
  }

  /** A change in the inner backend, then the delay of its completion, then the sync of a durable one. */
  async #change(offset: number, length: number, durable: boolean, run: () => Promise<Outcome>): Promise<Outcome> {
    const pages = pagesOf(offset, length)
    await this.#weather.pass()
    this.#dirty(offset, length)
    for (const page of pages) this.#busy.set(page, (this.#busy.get(page) ?? 0) + 1)
    const outcome = await run()
    for (const page of pages) {
      const others = (this.#busy.get(page) ?? 1) - 1
      if (others > 0) this.#busy.set(page, others)
      else this.#busy.delete(page)
    }
    await this.#weather.pass()
    return outcome === DONE && durable ? await this.#sync(pages) : outcome
  }

  writeNow(source: Uint8Array, start: number, length: number, offset: number): Outcome {
    this.#dirty(offset, length)
    return this.#inner.writeNow(source, start, length, offset)
  }

  write(source: Uint8Array, start: number, length: number, offset: number, durable: boolean): Promise<Outcome> {
    return this.#change(offset, length, durable, () => this.#inner.write(source, start, length, offset, durable))
  }

  zero(offset: number, length: number, mode: number, durable: boolean): Promise<Outcome> {
    return this.#change(offset, length, durable, () => this.#inner.zero(offset, length, mode, durable))
  }

  /** Whole pages are gone from cache and storage at once. */
  trim(offset: number, length: number, durable: boolean): Promise<Outcome> {
    return this.#change(offset, length, durable, async () => {
      const outcome = await this.#inner.trim(offset, length, durable)
      for (const page of pagesOf(offset, length)) {
        const whole = page * PAGE_BYTES >= offset && (page + 1) * PAGE_BYTES <= offset + length
        if (outcome !== DONE || !whole) continue
        this.#saved.delete(page)
        this.#lost.delete(page)
      }
      return outcome
    })
  }

  readNow(target: Uint8Array, start: number, length: number, offset: number): Outcome {
    return this.#inner.readNow(target, start, length, offset)
  }

  async read(target: Uint8Array, start: number, length: number, offset: number): Promise<Outcome> {
    await this.#weather.pass()
    const outcome = await this.#inner.read(target, start, length, offset)
    await this.#weather.pass()
    return outcome
  }

  async readSparse(headroom: number, length: number, offset: number): Promise<SparseRead | Outcome> {
    await this.#weather.pass()
    const read = await this.#inner.readSparse(headroom, length, offset)
    await this.#weather.pass()
    return read
  }

  async extents(offset: number, length: number, limit: number): Promise<readonly Extent[] | Outcome> {
    await this.#weather.pass()
    const found = await this.#inner.extents(offset, length, limit)
    await this.#weather.pass()
    return found
  }

  cache(offset: number, length: number): Promise<Outcome> {
    return this.#inner.cache(offset, length)
  }

  readonly released = false

  async release(): Promise<Outcome> {
    return EOPNOTSUPP
  }

  async reopen(): Promise<Outcome> {
    return DONE
  }

  measure(): number {
    return this.size
  }

  async resize(): Promise<Outcome> {
    return EOPNOTSUPP
  }

  look(): Condition {
    return this.#inner.look()
  }

  close(): Promise<void> {
    return this.#medium.close()
  }
}

function pagesOf(offset: number, length: number): number[] {
  const first = Math.floor(offset / PAGE_BYTES)
  const end = Math.ceil((offset + length) / PAGE_BYTES)
  return Array.from({ length: end - first }, (_, index) => first + index)
}
