// The map with its tools: which part of the disk is shown, which cell is looked at, and when the picture is drawn anew.
import type { DiskMap, MapRange } from '../../exports/disk-map.js'
import { ask } from './feed.js'
import { columnsFor, LOOKS, type Look, legendSquare, lookOf, MapCanvas } from './map-canvas.js'
import { cellRange, cellWords, rangesHidden, rangeTable } from './map-words.js'
import { byId, bytes, element, plural, SECTOR_BYTES, say } from './words.js'

const ROWS = 16
const ZOOM = 16

interface Span {
  readonly from: number
  readonly to: number
}

export class MapView {
  readonly #picture = new MapCanvas(byId('map', HTMLCanvasElement))
  readonly #loaded: (map: DiskMap) => void
  #name: string | undefined
  #size = 0
  #window: Span | undefined
  #map: DiskMap | undefined
  #cell: number | undefined
  #hovered: number | undefined
  #allRanges = false
  #asked = 0
  #failure = ''

  /** `loaded` is told of every map of the whole disk. */
  constructor(loaded: (map: DiskMap) => void) {
    this.#loaded = loaded
    this.#listen()
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#draw())
    let width = 0
    new ResizeObserver(([entry]) => {
      // A map that is hidden has no width.
      if (entry === undefined || [0, width].includes(entry.contentRect.width)) return
      width = entry.contentRect.width
      void this.load()
    }).observe(this.#picture.canvas)
  }

  /** The last answer was none. */
  get failed(): boolean {
    return this.#failure !== ''
  }

  /** Shows another export, whole. */
  show(name: string, size: number): void {
    this.#name = name
    this.#size = size
    this.#window = undefined
    this.#map = undefined
    this.#failure = ''
    this.#cell = undefined
    this.#picture.canvas.setAttribute('aria-label', `Map of ${name}`)
    void this.load()
  }

  get #span(): Span {
    return this.#window ?? { from: 0, to: this.#size }
  }

  /** Asks for the picture anew. */
  async load(): Promise<void> {
    const name = this.#name
    if (name === undefined || this.#size === 0) return
    this.#asked += 1
    const asked = this.#asked
    const { from, to } = this.#span
    const columns = columnsFor(this.#picture.canvas.clientWidth)
    const query = `from=${from}&to=${to}&cells=${columns * ROWS}`
    try {
      const map = await ask<DiskMap>(`/api/exports/${encodeURIComponent(name)}/map?${query}`)
      if (asked !== this.#asked) return
      this.#map = map
      this.#failure = ''
      if (this.#window === undefined) this.#loaded(map)
      this.#draw()
      this.#sayRanges(map)
    } catch (error) {
      if (asked !== this.#asked) return
      this.#failure = (error as Error).message
      this.#draw()
    }
  }

  #draw(): void {
    const map = this.#map
    byId('map-body', HTMLElement).hidden = map === undefined
    byId('map-buttons', HTMLElement).hidden = map === undefined
    if (map === undefined) return this.#sayNone()
    this.#picture.draw(map, columnsFor(this.#picture.canvas.clientWidth), this.#hovered ?? this.#cell)
    const { from, to, cellBytes } = map
    const whole = this.#window === undefined ? 'The whole disk' : `${bytes(from)} to ${bytes(to)}`
    const scale = `${whole}, ${cellBytes === SECTOR_BYTES ? 'a sector' : bytes(cellBytes)} a square`
    const old = this.#failure === '' ? '' : `; not of now: ${this.#failure}`
    say(byId('map-window', HTMLElement), `${scale}${old}`)
    byId('zoom-in', HTMLButtonElement).disabled = cellBytes === SECTOR_BYTES
    byId('zoom-out', HTMLButtonElement).disabled = this.#window === undefined
    byId('zoom-all', HTMLButtonElement).disabled = this.#window === undefined
    byId('map-earlier', HTMLButtonElement).disabled = from === 0
    byId('map-later', HTMLButtonElement).disabled = to >= this.#size
    this.#sayCell()
    this.#sayLegend(map)
  }

  /** Nothing is known of this disk yet. */
  #sayNone(): void {
    say(byId('map-window', HTMLElement), this.#failure === '' ? 'Asking …' : `No map now: ${this.#failure}.`)
    const words = this.#failure === '' ? '' : 'Not known now.'
    byId('ranges', HTMLElement).replaceChildren(element('p', { class: 'hint' }, words))
    byId('ranges', HTMLElement).dataset['told'] = ''
  }

  #sayCell(): void {
    const index = this.#hovered ?? this.#cell
    const readout = byId('readout', HTMLElement)
    if (this.#map === undefined || index === undefined || index >= this.#map.cells.length) {
      return say(readout, 'Point at a square to see its offset, its sectors, and what happened there.')
    }
    const [head = '', ...lines] = cellWords(this.#map, index)
    const text = [head, ...lines].join('')
    if (readout.textContent === text) return
    readout.replaceChildren(element('strong', {}, head), ...lines.map((line) => element('div', {}, line)))
  }

  #sayLegend({ cells }: DiskMap): void {
    const present = new Set<Look>(cells.map(lookOf))
    const looks = (Object.keys(LOOKS) as Look[]).filter((look) => present.has(look))
    const items = looks.map((look) => element('li', {}, legendSquare(look), LOOKS[look]))
    byId('legend', HTMLUListElement).replaceChildren(...items)
  }

  #sayRanges(map: DiskMap): void {
    const place = byId('ranges', HTMLElement)
    const told = JSON.stringify([map.ranges, this.#allRanges])
    if (place.dataset['told'] === told) return
    place.dataset['told'] = told
    if (map.ranges.length === 0) {
      return place.replaceChildren(
        element(
          'p',
          { class: 'hint' },
          'Nothing: on these sectors no request failed, none waits, and nothing is suspect.',
        ),
      )
    }
    place.replaceChildren(rangeTable(map, this.#allRanges, (range) => this.#goTo(range)))
    const hidden = rangesHidden(map)
    if (hidden === 0 || this.#allRanges) return
    const button = element('button', { type: 'button' }, `Show ${plural(hidden, 'more range')}`)
    button.addEventListener('click', () => {
      this.#allRanges = true
      this.#sayRanges(map)
    })
    place.append(element('p', { class: 'pager' }, button))
  }

  /** A part of the disk around a place, no finer than sectors, no larger than the disk. */
  #look(centre: number, span: number): void {
    const cells = this.#picture.columns * ROWS
    const wanted = Math.max(span, cells * SECTOR_BYTES)
    if (wanted >= this.#size) this.#window = undefined
    else {
      const unit = Math.ceil(wanted / cells / SECTOR_BYTES) * SECTOR_BYTES * this.#picture.columns
      const latest = Math.max(0, this.#size - wanted)
      const from = Math.floor(Math.min(latest, Math.max(0, centre - wanted / 2)) / unit) * unit
      this.#window = { from, to: Math.min(this.#size, from + wanted) }
    }
    void this.load().then(() => this.#focus(Math.floor((centre - this.#span.from) / (this.#map?.cellBytes ?? 1))))
  }

  #goTo({ offset, length }: MapRange): void {
    this.#look(offset + length / 2, length * 2)
    this.#picture.canvas.focus()
  }

  #zoom(factor: number): void {
    const { from, to } = this.#span
    const index = this.#cell ?? Math.floor((this.#map?.cells.length ?? 0) / 2)
    const centre = this.#map === undefined ? (from + to) / 2 : cellRange(this.#map, index).offset
    this.#look(centre, (to - from) * factor)
  }

  #shift(direction: number): void {
    const { from, to } = this.#span
    const centre = (from + to) / 2 + (direction * (to - from)) / 2
    this.#look(Math.min(this.#size - 1, Math.max(0, centre)), to - from)
  }

  #focus(index: number): void {
    const last = (this.#map?.cells.length ?? 1) - 1
    this.#cell = Math.min(last, Math.max(0, index))
    this.#hovered = undefined
    this.#draw()
  }

  #key(key: string): boolean {
    const moves: Readonly<Record<string, number>> = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -this.#picture.columns,
      ArrowDown: this.#picture.columns,
    }
    const by = moves[key]
    if (by !== undefined) this.#focus((this.#cell ?? -Math.min(0, by)) + (this.#cell === undefined ? 0 : by))
    else if (key === 'Enter' || key === '+') this.#zoom(1 / ZOOM)
    else if (key === 'Escape' || key === '-') this.#zoom(ZOOM)
    else if (key === 'PageUp' || key === 'PageDown') this.#shift(key === 'PageUp' ? -1 : 1)
    else if (key === 'Home') this.#look(0, this.#size)
    else return false
    return true
  }

  #listen(): void {
    const { canvas } = this.#picture
    const on = (id: string, act: () => void) => byId(id, HTMLButtonElement).addEventListener('click', act)
    on('zoom-in', () => this.#zoom(1 / ZOOM))
    on('zoom-out', () => this.#zoom(ZOOM))
    on('zoom-all', () => this.#look(0, this.#size))
    on('map-earlier', () => this.#shift(-1))
    on('map-later', () => this.#shift(1))
    canvas.addEventListener('keydown', (event) => {
      if (!event.ctrlKey && !event.altKey && !event.metaKey && this.#key(event.key)) event.preventDefault()
    })
    const hover = (index: number | undefined) => {
      if (index === this.#hovered) return
      this.#hovered = index
      this.#draw()
    }
    canvas.addEventListener('pointermove', ({ clientX, clientY }) => hover(this.#picture.cellAt(clientX, clientY)))
    canvas.addEventListener('pointerleave', () => hover(undefined))
    canvas.addEventListener('focus', () => {
      if (this.#cell === undefined) this.#focus(0)
    })
    canvas.addEventListener('click', ({ clientX, clientY }) => {
      const index = this.#picture.cellAt(clientX, clientY)
      if (index === undefined) return
      this.#focus(index)
      if (this.#map?.cellBytes !== SECTOR_BYTES) this.#zoom(1 / ZOOM)
    })
  }
}
