// A log-log plot as SVG: panels side by side, ticks at powers of ten, a line with its own mark for each series. Law: it can be
// read on light and on dark ground, and without colours.

export interface Series {
  readonly name: string
  /** [size, value], both above 0, in order of the size. */
  readonly points: readonly (readonly [number, number])[]
}

export interface Panel {
  readonly title: string
  readonly series: readonly Series[]
}

export interface Plot {
  readonly title: string
  /** What grows. */
  readonly sizes: string
  readonly panels: readonly Panel[]
  /** How a size is written at its tick. */
  readonly tickOf: (size: number) => string
  /** Sizes that have a tick. */
  readonly ticks: readonly number[]
}

const WIDTH = 440
const BOX = { left: 74, right: 18, top: 36, height: 250 }
const LEGEND_LINE = 18
const DECADE = 10

/** Told apart on white and on near-black, also by most who do not tell red from green. */
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#b58900']
const STYLE = `text { font: 12px system-ui, sans-serif; fill: #24292f }
.ground { fill: #fff } .title { font-weight: 600; font-size: 13px } .grid { stroke: #d0d7de } .frame { fill: none; stroke: #8c959f }
.n { stroke: #8c959f; stroke-dasharray: 4 4 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .ground { fill: #0d1117 } .grid { stroke: #30363d } .frame, .n { stroke: #6e7681 }
}`

/** Where each value of a decade's range lies between two edges. */
interface Scale {
  readonly from: number
  readonly to: number
  at(value: number): number
}

function scaleOf(low: number, high: number, start: number, end: number): Scale {
  const [from, to] = [Math.log10(low), Math.log10(high)]
  const span = to - from || 1
  return { from: low, to: high, at: (value) => start + ((Math.log10(value) - from) / span) * (end - start) }
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}

const px = (value: number) => String(Math.round(value * 10) / 10)

function textAt(x: number, y: number, words: string, anchor = 'start', kind = ''): string {
  const type = kind === '' ? '' : ` class="${kind}"`
  return `<text x="${px(x)}" y="${px(y)}" text-anchor="${anchor}"${type}>${escaped(words)}</text>`
}

function lineOf(x1: number, y1: number, x2: number, y2: number, kind: string): string {
  return `<line x1="${px(x1)}" y1="${px(y1)}" x2="${px(x2)}" y2="${px(y2)}" class="${kind}"/>`
}

function markAt(x: number, y: number, index: number): string {
  const colour = COLOURS[index % COLOURS.length]
  const [dx, dy] = [px(x), px(y)]
  if (index % 4 === 0) return `<circle cx="${dx}" cy="${dy}" r="4" fill="${colour}"/>`
  const shape = ['', 'M-4-4h8v8h-8z', 'M0-5L5 4H-5z', 'M0-5L5 0L0 5L-5 0z'][index % 4]
  return `<path transform="translate(${dx} ${dy})" d="${shape}" fill="${colour}"/>`
}

function drawSeries({ points }: Series, index: number, x: Scale, y: Scale): string[] {
  const places = points.map(([size, value]): [number, number] => [x.at(size), y.at(value)])
  const way = places.map(([at, height]) => `${px(at)},${px(height)}`).join(' ')
  const line = `<polyline points="${way}" fill="none" stroke="${COLOURS[index % COLOURS.length]}" stroke-width="2"/>`
  return [line, ...places.map(([at, height]) => markAt(at, height, index))]
}

/** The range of a panel's values, in whole decades: at least two, so that what does not grow looks flat. */
function decadesOf(series: readonly Series[]): [number, number] {
  const values = series.flatMap(({ points }) => points.map(([, value]) => value))
  const low = Math.floor(Math.log10(Math.min(...values)))
  const high = Math.ceil(Math.log10(Math.max(...values)))
  return [low, Math.max(high, low + 2)]
}

/** A dashed line that rises as the size does, from the lower left corner on: whatever is steeper grows faster than n. */
function proportion(x: Scale, y: Scale): string[] {
  const steps = Math.min(x.to / x.from, y.to / y.from)
  const [endX, endY] = [x.at(x.from * steps), y.at(y.from * steps)]
  return [lineOf(x.at(x.from), y.at(y.from), endX, endY, 'n'), textAt(endX - 8, endY + 14, '∝ n', 'end')]
}

function numberAt(power: number): string {
  return power < 0 ? (DECADE ** power).toFixed(-power) : (DECADE ** power).toLocaleString('en-US')
}

function drawPanel(panel: Panel, plot: Plot, left: number): string[] {
  const { title, series } = panel
  const [low, high] = decadesOf(series)
  const [bottom, right] = [BOX.top + BOX.height, left + WIDTH - BOX.right]
  const sizes = [Math.min(...plot.ticks), Math.max(...plot.ticks)] as const
  const x = scaleOf(sizes[0], sizes[1], left + BOX.left, right - 10)
  const y = scaleOf(DECADE ** low, DECADE ** high, bottom, BOX.top)
  const drawn = [textAt(left + BOX.left, BOX.top - 12, title, 'start', 'title')]
  for (let power = low; power <= high; power++) {
    const at = y.at(DECADE ** power)
    drawn.push(lineOf(left + BOX.left, at, right, at, 'grid'))
    drawn.push(textAt(left + BOX.left - 8, at + 4, numberAt(power), 'end'))
  }
  for (const size of plot.ticks) {
    drawn.push(lineOf(x.at(size), BOX.top, x.at(size), bottom, 'grid'))
    drawn.push(textAt(x.at(size), bottom + 18, plot.tickOf(size), 'middle'))
  }
  const frame = `x="${px(left + BOX.left)}" y="${BOX.top}" width="${px(right - left - BOX.left)}" height="${BOX.height}"`
  drawn.push(`<rect ${frame} class="frame"/>`, ...proportion(x, y))
  drawn.push(textAt((left + BOX.left + right) / 2, bottom + 38, plot.sizes, 'middle'))
  series.forEach((each, index) => {
    const height = bottom + 60 + index * LEGEND_LINE
    drawn.push(...drawSeries(each, index, x, y))
    drawn.push(markAt(left + BOX.left + 6, height - 4, index), textAt(left + BOX.left + 18, height, each.name))
  })
  return drawn
}

export function svgOf(plot: Plot): string {
  const width = WIDTH * plot.panels.length
  const lines = Math.max(...plot.panels.map(({ series }) => series.length))
  const height = BOX.top + BOX.height + 60 + lines * LEGEND_LINE
  const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">`
  const drawn = plot.panels.flatMap((panel, index) => drawPanel(panel, plot, index * WIDTH))
  const ground = `<rect width="${width}" height="${height}" class="ground"/>`
  return [
    head,
    `<title>${escaped(plot.title)}</title>`,
    `<style>${STYLE}</style>`,
    ground,
    ...drawn,
    '</svg>',
    '',
  ].join('\n')
}
