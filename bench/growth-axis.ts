// What an axis of growth is, and how its figures become a table: each with the power of the size by which it grew since the
// size before, which is 1 for what grows in proportion.
import type { Panel, Plot } from './plot.js'

export interface Axis {
  readonly name: string
  /** What grows, as the head of the table's first column and under the plot. */
  readonly sizesName: string
  readonly sizes: readonly number[]
  readonly sizeOf: (size: number) => string
  /** Larger sizes are left out where the file system discards what it frees, extent by extent: a million took ten minutes. */
  readonly discardedMax?: number
  /** A sentence on how it was measured. */
  readonly how: string
  readonly columns: readonly Column[]
  /** Figures in the order of the columns. */
  measure(size: number, folder: string): Promise<number[]>
}

export interface Column {
  readonly title: string
  readonly unit: 'ms' | 'µs' | 'MiB'
}

/** One axis, measured: figures[i] are those of sizes[i]. */
export interface Growth {
  readonly axis: Axis
  readonly sizes: readonly number[]
  readonly figures: readonly (readonly number[])[]
}

const DIGITS = 3

/** By which power of the size a figure grew between two sizes. */
export function exponent(size: number, value: number, sizeBefore: number, valueBefore: number): number {
  return Math.log(value / valueBefore) / Math.log(size / sizeBefore)
}

/** The power that n log n has between two sizes. */
export function exponentOfSorting(size: number, sizeBefore: number): number {
  const work = (n: number) => n * Math.max(1, Math.log2(n))
  return exponent(size, work(size), sizeBefore, work(sizeBefore))
}

export function growthTable({ axis, sizes, figures }: Growth): string {
  const head = [axis.sizesName, ...axis.columns.map(({ title, unit }) => `${title}, ${unit}`)]
  const rows = sizes.map((size, row) => [
    axis.sizeOf(size),
    ...axis.columns.map((_, column) => cellOf(sizes, figures, row, column)),
  ])
  return [head, head.map(() => '---:'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}

function cellOf(sizes: readonly number[], figures: Growth['figures'], row: number, column: number): string {
  const value = figures[row]?.[column] ?? Number.NaN
  const [size = 1, sizeBefore, valueBefore] = [sizes[row], sizes[row - 1], figures[row - 1]?.[column]]
  const shown = Number(value.toPrecision(DIGITS)).toLocaleString('en-US', { maximumSignificantDigits: DIGITS })
  if (sizeBefore === undefined || valueBefore === undefined) return shown
  return `${shown} (${exponent(size, value, sizeBefore, valueBefore).toFixed(2)})`
}

/** What grew most over the last two steps, where constant costs hide it least, in a sentence that owns up to more than n log n. */
export function steepest({ axis, sizes, figures }: Growth): string {
  const [size = 1, before = 1] = [sizes.at(-1), sizes.at(-3)]
  const powers = axis.columns.map(({ title }, column) => {
    const power = exponent(size, figures.at(-1)?.[column] ?? 1, before, figures.at(-3)?.[column] ?? 1)
    return { title, power, isMore: power > exponentOfSorting(size, before) }
  })
  const tell = ({ title, power }: (typeof powers)[number]) => `${title}, ${power.toFixed(2)}`
  const [most] = [...powers].sort((a, b) => b.power - a.power)
  const more = powers.filter(({ isMore }) => isMore)
  const range = `From ${axis.sizeOf(before)} to ${axis.sizeOf(size)}`
  if (more.length > 0) return `${range} **more than n log n**: ${more.map(tell).join('; ')}.`
  return `${range} nothing grows by more than n log n; steepest: ${most === undefined ? '' : tell(most)}.`
}

export function plotOf({ axis, sizes, figures }: Growth): Plot {
  const panelOf = (title: string, belongs: (unit: string) => boolean): Panel => ({
    title,
    series: axis.columns.flatMap(({ title: name, unit }, column) => {
      const points = sizes.map((size, row): [number, number] => [size, inPanel(figures[row]?.[column] ?? 1, unit)])
      return belongs(unit) ? [{ name, points }] : []
    }),
  })
  const panels = [panelOf('milliseconds', (unit) => unit !== 'MiB'), panelOf('MiB of memory', (unit) => unit === 'MiB')]
  const { sizesName, sizeOf } = axis
  // Units stay; plain numbers are too long for a tick.
  const tickOf = (size: number) =>
    sizeOf(size).includes(' ') ? sizeOf(size) : size.toLocaleString('en-US', { notation: 'compact' })
  const title = `How the cost grows with ${sizesName}`
  return {
    title,
    sizes: sizesName,
    panels: panels.filter(({ series }) => series.length > 0),
    tickOf,
    ticks: sizes,
  }
}

function inPanel(value: number, unit: string): number {
  return Math.max(unit === 'µs' ? value / 1000 : value, 1e-6)
}
