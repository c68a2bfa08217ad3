// The last five minutes as lines that move: throughput, requests, and errors by errno. Lines differ in their dashes too,
// and each chart says its latest values in words.
import type uPlot from 'uplot'
import type { ExportView } from '../overview.js'
import type { Series } from '../watch.js'
import { ask } from './feed.js'
import { byId, bytes, element, grouped, say } from './words.js'

// uplot.js puts its class there.
declare const window: Window & { readonly uPlot: typeof uPlot }

const SECONDS = 300
/** A server that has just started shows this much, most of it empty. */
const SECONDS_MIN = 60
const HEIGHT = 150
const DASHES: readonly number[][] = [[], [7, 4], [2, 3], [10, 3, 2, 3]]
const KEY_CLASSES = ['', 'dashed', 'dotted', 'dashed']
const COLOURS = ['read', 'written', 'failed', 'suspect', 'ok', 'waiting', 'held', 'accent', 'ink']

const BINARY_STEPS = Array.from({ length: 45 }, (_, power) => 2 ** power)
const DECIMAL_STEPS = Array.from({ length: 10 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat()

const TIME_STEPS = Array.from({ length: 10 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** (power - 6))).flat()

/** 250 µs, 3.1 ms, 2 s. */
function duration(seconds: number): string {
  if (seconds === 0) return '0'
  if (seconds < 1e-3) return `${Math.round(seconds * 1e6)} µs`
  return seconds < 1 ? `${Number((seconds * 1e3).toPrecision(3))} ms` : `${Number(seconds.toPrecision(3))} s`
}

interface Line {
  readonly label: string
  readonly values: number[]
}

function css(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()
}

/** One chart in a figure; made anew when its lines or the colours change. */
class Chart {
  readonly root: HTMLElement
  readonly #title: string
  readonly #format: (value: number) => string
  readonly #firstColour: number
  readonly #steps: number[]
  readonly #caption = element('figcaption')
  readonly #place = element('div', { 'aria-hidden': 'true' })
  #plot: uPlot | undefined
  #shape = ''

  /** `steps` are what the marks of the upright axis may lie apart. */
  constructor(title: string, format: (value: number) => string, steps: number[], firstColour = 0) {
    this.#steps = steps
    this.#title = title
    this.#format = format
    this.#firstColour = firstColour
    this.root = element('figure', {}, this.#caption, this.#place)
  }

  update(times: number[], lines: readonly Line[]): void {
    const shape = [this.#place.clientWidth, css('ink'), ...lines.map(({ label }) => label)].join()
    const data = [times, ...lines.map(({ values }) => values)] as uPlot.AlignedData
    if (shape === this.#shape) this.#plot?.setData(data)
    else {
      this.#shape = shape
      this.#plot?.destroy()
      this.#plot = new window.uPlot(this.#options(lines), data, this.#place)
    }
    this.#say(lines)
  }

  #colour(index: number): string {
    return css(COLOURS[(this.#firstColour + index) % COLOURS.length] ?? 'ink')
  }

  #options(lines: readonly Line[]): uPlot.Options {
    const grid = { stroke: css('line'), width: 1 }
    const axis = { stroke: css('soft'), font: '12px system-ui, sans-serif', grid, ticks: grid }
    const format = this.#format
    return {
      width: this.#place.clientWidth || 320,
      height: HEIGHT,
      padding: [null, 30, null, null],
      legend: { show: false },
      cursor: { show: false },
      scales: {
        x: { range: (_plot, min, max) => [Math.min(min, max - SECONDS_MIN), max] },
        y: { range: (_plot, _min, max) => [0, max > 0 ? max * 1.1 : 1] },
      },
      axes: [
        {
          ...axis,
          size: 26,
          space: 64,
          incrs: [15, 30, 60],
          values: [[15, '{HH}:{mm}:{ss}', null, null, null, null, null, null, 1]],
        },
        { ...axis, size: 84, space: 32, incrs: this.#steps, values: (_plot, splits) => splits.map(format) },
      ],
      series: [
        {},
        ...lines.map(({ label }, index) => ({
          label,
          stroke: this.#colour(index),
          width: 2,
          dash: DASHES[index % DASHES.length] ?? [],
          points: { show: false },
        })),
      ],
    }
  }

  #say(lines: readonly Line[]): void {
    const wanted = 1 + Math.max(1, lines.length)
    if (this.#caption.children.length !== wanted || this.#caption.dataset['shape'] !== this.#shape) {
      this.#caption.dataset['shape'] = this.#shape
      const keys = lines.map((_line, index) => {
        const key = element('span', { class: `key ${KEY_CLASSES[index % KEY_CLASSES.length]}` })
        key.style.setProperty('--key', this.#colour(index))
        return key
      })
      this.#caption.replaceChildren(element('b', {}, this.#title), ...(keys.length > 0 ? keys : [element('span')]))
    }
    for (const [index, { label, values }] of lines.entries()) {
      const key = this.#caption.children[index + 1]
      if (key instanceof HTMLElement) say(key, `${label} ${this.#format(values.at(-1) ?? 0)}`)
    }
    const [, first] = this.#caption.children
    if (lines.length === 0 && first instanceof HTMLElement) say(first, 'none')
  }
}

function whole(value: number): string {
  return Number.isInteger(value) ? grouped(value) : ''
}

/** The charts of one export. */
export class Charts {
  readonly #throughput = new Chart('Throughput', (value) => `${bytes(value)}/s`, BINARY_STEPS)
  readonly #latency = new Chart('Time for a request, in the mean', duration, TIME_STEPS)
  readonly #requests = new Chart('Requests each second', whole, DECIMAL_STEPS, 7)
  readonly #errors = new Chart('Errors each second', whole, DECIMAL_STEPS, 2)
  #name: string | undefined
  #series: Series | undefined
  #totals = new Map<string, number>()

  constructor() {
    byId('charts', HTMLElement).append(
      ...[this.#throughput, this.#latency, this.#requests, this.#errors].map(({ root }) => root),
    )
  }

  async show(name: string): Promise<void> {
    this.#name = name
    this.#series = undefined
    const series = await ask<Series>(`/api/exports/${encodeURIComponent(name)}/history`)
    if (this.#name === name) this.#series = series
  }

  /** One more second. */
  push(view: ExportView, time: string): void {
    const totals = errnoTotals(view)
    const series = this.#series
    if (series !== undefined && view.name === this.#name) {
      append(series.times, Math.floor(Date.parse(time) / 1000))
      append(series.readBytes, view.rates.readBytes)
      append(series.writtenBytes, view.rates.writtenBytes)
      append(series.requests, view.rates.requests)
      for (const key of ['readLatency', 'writeLatency', 'flushLatency'] as const) append(series[key], view.rates[key])
      const errors = series.errors as Record<string, number[]>
      for (const errno of totals.keys()) errors[errno] ??= Array(series.times.length - 1).fill(0)
      for (const [errno, values] of Object.entries(errors)) {
        append(values, (totals.get(errno) ?? 0) - (this.#totals.get(errno) ?? totals.get(errno) ?? 0))
      }
      this.#draw(series)
    }
    this.#totals = totals
  }

  #draw({ times, readBytes, writtenBytes, requests, errors, ...rest }: Series): void {
    this.#latency.update(times, [
      { label: 'read', values: rest.readLatency },
      { label: 'write', values: rest.writeLatency },
      { label: 'flush', values: rest.flushLatency },
    ])
    this.#throughput.update(times, [
      { label: 'read', values: readBytes },
      { label: 'written', values: writtenBytes },
    ])
    this.#requests.update(times, [{ label: 'requests', values: requests }])
    const lines = Object.entries(errors).filter(([, values]) => values.some((value) => value > 0))
    this.#errors.update(
      times,
      lines.map(([label, values]) => ({ label, values })),
    )
  }
}

function append(values: number[], value: number): void {
  values.push(value)
  if (values.length > SECONDS) values.shift()
}

function errnoTotals({ errors }: ExportView): Map<string, number> {
  const totals = new Map<string, number>()
  for (const { errno, total } of errors) totals.set(errno, (totals.get(errno) ?? 0) + total)
  return totals
}
