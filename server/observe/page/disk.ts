// One export, as close as one likes: what it is, how it fares, how much space it takes, its map and its charts.
import type { DiskMap } from '../../exports/disk-map.js'
import type { ExportView } from '../overview.js'
import type { BackingView } from '../space-view.js'
import { Charts } from './charts.js'
import { healthWords } from './exports.js'
import type { Summary } from './feed.js'
import { MapView } from './map-view.js'
import { mountWords } from './space.js'
import { ago, byId, bytes, clock, grouped, plural, say, sayTerms, sectors, span } from './words.js'

/** How often the map may be asked for anew while something changes. */
const MAP_EVERY_MS = 2000
/** The same while there is none. */
const MAP_AGAIN_MS = 10_000

export class Disk {
  readonly #charts = new Charts()
  readonly #map: MapView
  #name: string | undefined
  #drawnFor = ''
  #drawnAt = 0

  /** `located` is told where on an export something is wrong, in words. */
  constructor(located: (name: string, words: string) => void) {
    this.#map = new MapView((map) => located(map.export, whereWords(map)))
  }

  update(view: ExportView, { time, backings }: Summary): void {
    if (view.name !== this.#name) this.#open(view)
    say(byId('disk-state', HTMLElement), healthWords(view))
    byId('disk-state', HTMLElement).className = `state ${view.health}`
    sayTerms(byId('facts', HTMLElement), facts(view))
    sayTaken(
      view,
      backings.find(({ device }) => device === view.device),
    )
    this.#charts.push(view, time)
    const { writtenBytes, held, suspectBytes, releasedSince, errors } = view
    const changes = [writtenBytes, held, suspectBytes, releasedSince, ...errors.map(({ total }) => total)].join()
    const age = Date.now() - this.#drawnAt
    const isDue = changes !== this.#drawnFor ? age >= MAP_EVERY_MS : this.#map.failed && age >= MAP_AGAIN_MS
    if (!isDue) return
    this.#drawnFor = changes
    this.#drawnAt = Date.now()
    void this.#map.load()
  }

  #open(view: ExportView): void {
    this.#name = view.name
    this.#drawnAt = Date.now()
    say(byId('disk-heading', HTMLElement), view.name)
    this.#map.show(view.name, view.size)
    this.#charts.show(view.name).catch(() => undefined)
  }
}

/** How much of the image takes space, beside what its file system has left. */
function sayTaken({ device, allocated, size, reserve }: ExportView, backing: BackingView | undefined): void {
  byId('taken', HTMLElement).hidden = device === undefined
  byId('taken-bar', HTMLElement).style.width = `${Math.min(100, size === 0 ? 0 : (allocated / size) * 100).toFixed(2)}%`
  const rest = Math.max(0, size - allocated)
  const host = backing === undefined ? '' : `; ${mountWords(backing)} has ${bytes(backing.free)} free`
  const kept = reserve === 0 ? '' : `, of which it leaves ${bytes(reserve)} (--reserve)`
  const words = `The image takes ${bytes(allocated)} of its ${bytes(size)} on the host. The guest may still fill ${bytes(rest)}${host}${kept}.`
  say(byId('taken-words', HTMLElement), words)
}

/** Where the marked ranges lie, from the first to the last. */
function whereWords({ ranges, rangesOmitted }: DiskMap): string {
  const [first] = ranges
  if (first === undefined) return ''
  const end = ranges.reduce((latest, { offset, length }) => Math.max(latest, offset + length), 0)
  const count = ranges.length + rangesOmitted
  const where = `${sectors(first.offset, end - first.offset)} (${bytes(first.offset)} to ${bytes(end)})`
  return count === 1 ? `Where: ${where}.` : `Where: ${plural(count, 'range')} within ${where}.`
}

function errorWords({ errors }: ExportView): string {
  if (errors.length === 0) return 'none since the server started'
  const words = errors.map(({ command, errno, total }) =>
    errno === 'reserve' ? `${grouped(total)} by the reserve` : `${grouped(total)} ${command} ${errno}`,
  )
  const last =
    errors
      .map(({ recent }) => recent.last)
      .sort()
      .at(-1) ?? ''
  return `${words.join(', ')}; last ${ago(last)}`
}

function facts(view: ExportView): [string, string][] {
  const { size, path, inFlight, oldestRequestSeconds, held, heldSince, suspectBytes } = view
  const oldest = inFlight === 0 || oldestRequestSeconds < 1 ? '' : `, the oldest for ${span(oldestRequestSeconds)}`
  const since = heldSince === undefined ? '' : ` since ${clock(heldSince)}`
  return [
    ['Image', path],
    ['Size', `${bytes(size)}, ${plural(Math.ceil(size / 512), 'sector')}`],
    ['With storage now', `${plural(inFlight, 'request')}${oldest}`],
    ['Waiting for space', held === 0 ? 'none' : `${plural(held, 'write')}${since}`],
    ['Suspect', suspectBytes === 0 ? 'nothing' : bytes(suspectBytes)],
    ['Read and written', `${bytes(view.readBytes)}, ${bytes(view.writtenBytes)}`],
    ['Failed requests', errorWords(view)],
  ]
}
