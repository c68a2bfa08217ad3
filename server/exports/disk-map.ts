// The picture of a disk: [from, to) in cells of equal length, each with what lies in it. Law: bounded work and memory
// whatever the image looks like, and a cell never hides a failed, held or suspect byte that is known.
import { DONE, type Extent, errnoName, errnoOf, type Outcome } from '../../backends/index.js'
import type { LedgerEntry } from '../state/ledger.js'
import type { Range } from './range-set.js'

/** Bits of a cell; one without data and without hole was not told of by storage. */
export const CELL_DATA = 1
export const CELL_HOLE = 2
export const CELL_FAILED = 4
export const CELL_HELD = 8
export const CELL_SUSPECT = 16

/** Cells that a map may be asked for. */
export const MAP_CELLS_MAX = 16_384
export const MAP_CELLS_DEFAULT = 1024
/** Cells are whole sectors. */
export const SECTOR_BYTES = 512
/** Runs that storage is asked for at a time: between two pages other work of this thread goes on. */
const PAGE_RUNS = 1024
/** Runs that are counted byte by byte; from there on it is only looked which kinds a cell has. */
export const MAP_RUNS_MAX = 1 << 20
/** Runs alternate between data, holes and reserved space, so that a few of them have shown every kind. */
const GLANCE_RUNS = 8
/** Ranges of each kind that a map names; the cells show them all. */
export const MAP_RANGES_MAX = 512

/** A request that waits for space, or one that failed, or bytes that may be lost. */
export interface MapRange {
  readonly kind: 'failed' | 'held' | 'suspect'
  readonly offset: number
  readonly length: number
  /** ISO 8601, where it is known. */
  readonly time?: string
  readonly command?: string
  readonly errno?: string
  readonly client?: string
  /** Requests that make up the range. */
  readonly count?: number
}

export interface DiskMap {
  readonly export: string
  /** Bytes of the export. */
  readonly size: number
  /** What is shown, rounded outwards to sectors. */
  readonly from: number
  readonly to: number
  /** Bytes of a cell, whole sectors; the last one may be shorter. */
  readonly cellBytes: number
  /** Bits of each cell. */
  readonly cells: readonly number[]
  /** Bytes of each cell that are allocated. */
  readonly data: readonly number[]
  /** False when there were too many runs to count them all: then `data` is too small, and `cells` right all the same. */
  readonly exact: boolean
  /** What storage said when it was asked where data lies; absent when it answered. */
  readonly error?: string
  /** By offset; at most MAP_RANGES_MAX of each kind. */
  readonly ranges: readonly MapRange[]
  /** Ranges that are not named for want of room. */
  readonly rangesOmitted: number
}

/** What is asked for: bytes, and how many cells to make of them. */
export interface MapWindow {
  readonly from: number
  readonly to: number
  readonly cells: number
}

/** What a map needs to know of an export. */
export interface MapSources {
  readonly name: string
  readonly size: number
  extents(offset: number, length: number, limit: number): Promise<readonly Extent[] | Outcome>
  readonly suspect: Iterable<Range>
  readonly failures: Iterable<LedgerEntry>
  readonly held: Iterable<MapRange>
}

/** The cells of one map while it is painted. */
class Canvas {
  readonly from: number
  readonly to: number
  readonly cellBytes: number
  readonly cells: Uint8Array
  readonly data: Float64Array

  constructor(window: MapWindow, size: number) {
    this.from = Math.floor(window.from / SECTOR_BYTES) * SECTOR_BYTES
    this.to = Math.min(size, Math.ceil(window.to / SECTOR_BYTES) * SECTOR_BYTES)
    const span = this.to - this.from
    this.cellBytes = Math.max(1, Math.ceil(span / window.cells / SECTOR_BYTES)) * SECTOR_BYTES
    const cells = Math.ceil(span / this.cellBytes)
    this.cells = new Uint8Array(cells)
    this.data = new Float64Array(cells)
  }

  cellEnd(offset: number): number {
    const index = Math.floor((offset - this.from) / this.cellBytes)
    return Math.min(this.to, this.from + (index + 1) * this.cellBytes)
  }

  #indexOf(offset: number): number {
    return Math.floor((offset - this.from) / this.cellBytes)
  }

  /** One run of the image; runs do not overlap. */
  run(start: number, end: number, bit: typeof CELL_DATA | typeof CELL_HOLE): void {
    const last = this.#indexOf(end - 1)
    for (let index = this.#indexOf(start); index <= last; index++) {
      this.cells[index] = (this.cells[index] ?? 0) | bit
      if (bit === CELL_HOLE) continue
      const at = this.from + index * this.cellBytes
      this.data[index] = (this.data[index] ?? 0) + Math.min(end, at + this.cellBytes) - Math.max(start, at)
    }
  }

  /** Ranges that may overlap: each costs the same, however long it is. */
  mark(ranges: readonly MapRange[], bit: number): void {
    const steps = new Int32Array(this.cells.length + 1)
    for (const { offset, length } of ranges) {
      const first = this.#indexOf(Math.max(offset, this.from))
      const last = this.#indexOf(Math.min(offset + length, this.to) - 1)
      steps[first] = (steps[first] ?? 0) + 1
      steps[last + 1] = (steps[last + 1] ?? 0) - 1
    }
    let covering = 0
    for (const index of this.cells.keys()) {
      covering += steps[index] ?? 0
      if (covering > 0) this.cells[index] = (this.cells[index] ?? 0) | bit
    }
  }
}

/** Paints the runs of [at, …), and returns where they end. */
function paint(canvas: Canvas, at: number, runs: readonly Extent[]): number {
  for (const { length, hole } of runs) {
    canvas.run(at, at + length, hole ? CELL_HOLE : CELL_DATA)
    at += length
  }
  return at
}

/** Walks the extents, a page at a time. Resolves with the outcome, and whether every run was seen. */
async function paintExtents(canvas: Canvas, { extents }: MapSources): Promise<{ outcome: Outcome; exact: boolean }> {
  let runs = 0
  let exact = true
  for (let at = canvas.from; at < canvas.to; ) {
    const glance = runs >= MAP_RUNS_MAX
    const end = glance ? canvas.cellEnd(at) : canvas.to
    const found = await extents(at, end - at, glance ? GLANCE_RUNS : PAGE_RUNS)
    if (typeof found === 'number') return { outcome: found, exact }
    const reached = paint(canvas, at, found)
    runs += found.length
    if (glance && reached < end) exact = false
    at = glance ? end : Math.max(reached, at + 1)
  }
  return { outcome: DONE, exact }
}

function* named(sources: MapSources): Iterable<MapRange> {
  for (const { start, end } of sources.suspect) yield { kind: 'suspect', offset: start, length: end - start }
  yield* sources.held
  for (const { offset, length, time, command, errno, client, count } of sources.failures) {
    yield { kind: 'failed', offset, length, time, command, errno, client, count }
  }
}

/** Marks what is wrong; returns the ranges that there is room to name, the latest of each kind. */
function paintRanges(canvas: Canvas, sources: MapSources): { ranges: MapRange[]; omitted: number } {
  const seen = { failed: [] as MapRange[], held: [] as MapRange[], suspect: [] as MapRange[] }
  for (const range of named(sources)) {
    const inside = range.length > 0 && range.offset < canvas.to && range.offset + range.length > canvas.from
    if (inside) seen[range.kind].push(range)
  }
  canvas.mark(seen.failed, CELL_FAILED)
  canvas.mark(seen.held, CELL_HELD)
  canvas.mark(seen.suspect, CELL_SUSPECT)
  const lists = Object.values(seen)
  const ranges = lists.flatMap((list) => list.slice(-MAP_RANGES_MAX)).sort((a, b) => a.offset - b.offset)
  return { ranges, omitted: lists.reduce((sum, { length }) => sum + length, 0) - ranges.length }
}

/** The map of a window that `checkWindow` has let through. */
export async function drawMap(sources: MapSources, window: MapWindow): Promise<DiskMap> {
  const canvas = new Canvas(window, sources.size)
  const { outcome, exact } = await paintExtents(canvas, sources)
  // After the walk, which may take seconds: what went wrong meanwhile is on the map.
  const { ranges, omitted } = paintRanges(canvas, sources)
  return {
    export: sources.name,
    size: sources.size,
    from: canvas.from,
    to: canvas.to,
    cellBytes: canvas.cellBytes,
    cells: [...canvas.cells],
    data: [...canvas.data],
    exact,
    ...(outcome !== DONE && { error: errnoName(errnoOf(outcome)) }),
    ranges,
    rangesOmitted: omitted,
  }
}

/** What is wrong with a window, as a sentence that names the parameter; undefined when nothing is. */
export function windowFault({ from, to, cells }: MapWindow, size: number): string | undefined {
  if (!Number.isSafeInteger(from) || from < 0 || (from >= size && size > 0)) {
    return `from has to be a byte of the export, 0 to ${Math.max(0, size - 1)}`
  }
  if (!Number.isSafeInteger(to) || to > size || (to <= from && size > 0)) {
    return `to has to be a whole number above from, and at most ${size}`
  }
  if (Number.isInteger(cells) && cells >= 1 && cells <= MAP_CELLS_MAX) return undefined
  return `cells has to be a whole number from 1 to ${MAP_CELLS_MAX}`
}
