// The picture of a disk on a canvas: a square for each cell, with a pattern besides the colour, so that nobody needs to
// tell colours apart.
import type { DiskMap } from '../../exports/disk-map.js'

/** The bits of disk-map.ts, which runs on the server. */
const DATA = 1
const HOLE = 2
const FAILED = 4
const HELD = 8
const SUSPECT = 16

export type Look = 'suspect' | 'failed' | 'held' | 'data' | 'partly' | 'hole' | 'unknown'

/** In the order of the legend. */
export const LOOKS: Readonly<Record<Look, string>> = {
  data: 'data',
  partly: 'partly data',
  hole: 'hole: takes no space',
  failed: 'requests failed here',
  held: 'writes wait here',
  suspect: 'may be lost: reads as errors',
  unknown: 'not known',
}

/** What is worst in a cell is what the cell shows. */
export function lookOf(bits: number): Look {
  if ((bits & SUSPECT) !== 0) return 'suspect'
  if ((bits & FAILED) !== 0) return 'failed'
  if ((bits & HELD) !== 0) return 'held'
  if ((bits & DATA) === 0) return (bits & HOLE) === 0 ? 'unknown' : 'hole'
  return (bits & HOLE) === 0 ? 'data' : 'partly'
}

function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()
}

type Palette = Readonly<Record<'data' | 'hole' | 'failed' | 'held' | 'suspect' | 'unknown' | 'mark' | 'ink', string>>

function palette(): Palette {
  const names = ['data', 'hole', 'failed', 'held', 'suspect', 'unknown', 'mark', 'ink'] as const
  return Object.fromEntries(names.map((name) => [name, colour(name)])) as Palette
}

function stroke(pen: CanvasRenderingContext2D, style: string, lines: readonly (readonly number[])[]): void {
  pen.strokeStyle = style
  pen.lineWidth = 1.4
  pen.beginPath()
  for (const [x1 = 0, y1 = 0, x2 = 0, y2 = 0] of lines) {
    pen.moveTo(x1, y1)
    pen.lineTo(x2, y2)
  }
  pen.stroke()
}

/** One square; `share` is how much of it is data. */
function square(
  pen: CanvasRenderingContext2D,
  p: Palette,
  look: Look,
  x: number,
  y: number,
  size: number,
  share: number,
) {
  const [right, bottom, middle] = [x + size, y + size, size / 2]
  pen.fillStyle = look === 'partly' ? p.hole : p[look]
  pen.fillRect(x, y, size, size)
  if (look === 'partly') {
    const height = Math.max(1.5, size * share)
    pen.fillStyle = p.data
    pen.fillRect(x, bottom - height, size, height)
  }
  if (look === 'failed') stroke(pen, p.mark, [[x, bottom, right, y]])
  if (look === 'held') stroke(pen, p.mark, [[x, y + middle, right, y + middle]])
  if (look === 'suspect') {
    stroke(pen, p.mark, [
      [x, y, right, bottom],
      [x, bottom, right, y],
    ])
  }
  if (look === 'unknown') stroke(pen, p.ink, [[x + middle - 1, y + middle, x + middle + 1, y + middle]])
}

const LEGEND_PIXELS = 16

function prepared(canvas: HTMLCanvasElement, width: number, height: number): CanvasRenderingContext2D {
  const scale = window.devicePixelRatio || 1
  canvas.width = Math.round(width * scale)
  canvas.height = Math.round(height * scale)
  const pen = canvas.getContext('2d')
  if (pen === null) throw new TypeError('this browser has no canvas')
  pen.scale(scale, scale)
  return pen
}

/** The square of the legend. */
export function legendSquare(look: Look): HTMLCanvasElement {
  const canvas = document.createElement('canvas')
  canvas.setAttribute('aria-hidden', 'true')
  square(prepared(canvas, LEGEND_PIXELS, LEGEND_PIXELS), palette(), look, 0, 0, LEGEND_PIXELS, 0.5)
  return canvas
}

/** How many cells stand in a row of this width: a power of two, so that rows begin at round offsets. */
export function columnsFor(width: number): number {
  return width >= 460 ? 64 : 32
}

export class MapCanvas {
  readonly canvas: HTMLCanvasElement
  #columns = 1
  #cell = 1
  #cells = 0

  constructor(canvas: HTMLCanvasElement) {
    this.canvas = canvas
  }

  get columns(): number {
    return this.#columns
  }

  /** `focused` is framed. */
  draw({ cells, data, cellBytes }: DiskMap, columns: number, focused: number | undefined): void {
    const width = this.canvas.clientWidth
    this.#columns = columns
    this.#cells = cells.length
    this.#cell = width / columns
    const rows = Math.max(1, Math.ceil(cells.length / columns))
    const height = rows * this.#cell
    this.canvas.style.height = `${height}px`
    const pen = prepared(this.canvas, width, height)
    const p = palette()
    const gap = this.#cell >= 5 ? 1 : 0
    for (const [index, bits] of cells.entries()) {
      const { x, y } = this.#place(index)
      square(pen, p, lookOf(bits), x, y, this.#cell - gap, (data[index] ?? 0) / cellBytes)
    }
    if (focused === undefined || focused >= cells.length) return
    const { x, y } = this.#place(focused)
    pen.strokeStyle = p.ink
    pen.lineWidth = 2
    pen.strokeRect(x - 1, y - 1, this.#cell + 1, this.#cell + 1)
  }

  #place(index: number): { x: number; y: number } {
    return { x: (index % this.#columns) * this.#cell, y: Math.floor(index / this.#columns) * this.#cell }
  }

  /** Which cell lies at a place of the page, if any. */
  cellAt(clientX: number, clientY: number): number | undefined {
    const { left, top } = this.canvas.getBoundingClientRect()
    const column = Math.floor((clientX - left) / this.#cell)
    const index = Math.floor((clientY - top) / this.#cell) * this.#columns + column
    return column >= 0 && column < this.#columns && index >= 0 && index < this.#cells ? index : undefined
  }
}
