// What the file systems under the exports have left: a bar for each, and the same in words, which need no bar.
import type { BackingView } from '../space-view.js'
import type { Summary } from './feed.js'
import { byId, bytes, clock, element, plural, say, span } from './words.js'

/** Further off than this nothing is told as if it were known. */
const FAR_SECONDS = 60 * 86_400
const LOW_SHARE = 0.05
/** Older numbers are called old. */
const STALE_MS = 10_000

export function mountWords({ device, mount }: BackingView): string {
  return mount === '' ? `device ${device}` : mount
}

function untilWords({ secondsUntilFull, free, looked }: BackingView, now: number): string {
  if (now - Date.parse(looked) > STALE_MS) return `So it was at ${clock(looked)}: the host tells nothing new.`
  if (free === 0) return ''
  if (secondsUntilFull === undefined) return 'Free space does not fall at present.'
  if (secondsUntilFull > FAR_SECONDS) return 'At the present rate it lasts for months.'
  return `At the rate of the last minute it is full in ${span(secondsUntilFull)}.`
}

function reserveWords({ reserve, free }: BackingView): string {
  if (reserve === 0) return ''
  const state = free <= reserve ? 'reached' : `${bytes(free - reserve)} above it`
  return ` A reserve of ${bytes(reserve)} is kept from the guests: ${state}.`
}

function takeWords({ exports, mayTake, overcommit, free }: BackingView): string {
  const one = exports === 1
  const images = one ? 'The image on it' : `The ${exports} images on it`
  if (mayTake === 0) return `${images} ${one ? 'takes' : 'take'} no more.`
  const left = free === 0 ? 'nothing is free' : `${bytes(free)} are free`
  const verdict = overcommit > 0 ? left : `there is room for ${one ? 'it' : 'them'}`
  return `${images} may still take ${bytes(mayTake)}; ${verdict}.`
}

/** What is said beside the bar, most pressing first. */
function sentences(view: BackingView, now: number): string {
  return `${takeWords(view)}${reserveWords(view)} ${untilWords(view, now)}`
}

/** Parts of the file system in hundredths, which make up the bar; what is left is free. */
function shares({ size, free, allocated, reserve }: BackingView) {
  const percent = (count: number) => Math.min(100, Math.max(0, (count / size) * 100))
  const used = size - free
  // Images that share extents with each other take less than the sum of what each takes.
  const images = Math.min(allocated, used)
  return { images: percent(images), others: percent(used - images), reserve: percent(reserve) }
}

interface Row {
  readonly root: HTMLElement
  readonly name: HTMLElement
  readonly amount: HTMLElement
  readonly images: HTMLElement
  readonly others: HTMLElement
  readonly reserve: HTMLElement
  readonly words: HTMLElement
}

function newRow(): Row {
  const part = (name: string) => element('div', { class: name })
  const [images, others, reserve] = [part('images'), part('others'), part('reserve')]
  const [name, amount, words] = [element('h3'), element('p', { class: 'amount' }), element('p', { class: 'words' })]
  const bar = element('div', { class: 'space-bar', 'aria-hidden': 'true' }, images, others, reserve)
  const root = element('div', { class: 'backing' }, element('div', { class: 'heading' }, name, amount), bar, words)
  return { root, name, amount, images, others, reserve, words }
}

function fill({ root, name, amount, images, others, reserve, words }: Row, view: BackingView, now: number): void {
  const { free, size, overcommit } = view
  const part = shares(view)
  say(name, mountWords(view))
  say(amount, `${bytes(free)} free of ${bytes(size)}`)
  images.style.width = `${part.images}%`
  others.style.width = `${part.others}%`
  reserve.style.width = `${part.reserve}%`
  reserve.hidden = part.reserve === 0
  root.classList.toggle('short', overcommit > 0 && (free / size < LOW_SHARE || free <= view.reserve))
  say(words, sentences(view, now))
}

export class Space {
  readonly #rows: Row[] = []

  update({ time, backings, backingsOmitted }: Summary): void {
    const place = byId('backings', HTMLElement)
    byId('space', HTMLElement).hidden = backings.length === 0
    while (this.#rows.length < backings.length) {
      const row = newRow()
      this.#rows.push(row)
      place.append(row.root)
    }
    for (const [index, row] of this.#rows.entries()) {
      const view = backings[index]
      row.root.hidden = view === undefined
      if (view !== undefined) fill(row, view, Date.parse(time))
    }
    const isReserved = backings.some(({ reserve }) => reserve > 0)
    byId('reserve-key', HTMLElement).hidden = !isReserved
    const more =
      backingsOmitted === 0 ? '' : `and ${plural(backingsOmitted, 'file system')} with more room: /api/backings`
    say(byId('backings-omitted', HTMLElement), more)
  }
}
