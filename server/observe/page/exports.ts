// The list of exports: a page of it at a time, those in trouble first, and only that page is kept up to date.
import type { ExportView } from '../overview.js'
import type { Summary, Wish } from './feed.js'
import { byId, bytes, element, grouped, rate, say } from './words.js'

export const ROWS = 25
const TYPING_MS = 250
/** That hold numbers. */
const COLUMNS = 5

const HEALTH_WORDS: Readonly<Record<string, string>> = {
  ok: 'ok',
  suspect: 'ok, but some of it may be lost',
  held: 'writes wait for space',
  failing: 'requests fail',
  hanging: 'storage does not answer',
  released: 'released: requests wait',
  degraded: 'degraded: FLUSH fails',
  failed: 'failed: not served',
  detached: 'detached: image removed',
}

export function healthWords({ health, readOnly, injectionRules, releasedSince }: ExportView): string {
  const more = [
    readOnly ? ', read-only' : '',
    injectionRules > 0 ? ', faults on purpose' : '',
    health !== 'released' && releasedSince !== undefined ? ', released' : '',
  ]
  return `${HEALTH_WORDS[health] ?? health}${more.join('')}`
}

/** Where nobody can say what an image takes (block devices), nothing is said. */
function takenWords({ device, allocated }: ExportView): string {
  return device === undefined ? '–' : bytes(allocated)
}

interface Row {
  readonly root: HTMLTableRowElement
  readonly name: HTMLButtonElement
  readonly state: HTMLElement
  readonly numbers: readonly HTMLElement[]
}

export class Exports {
  readonly #wish: Wish
  readonly #changed: () => void
  readonly #rows: Row[] = []
  readonly #body = byId('exports', HTMLTableElement).tBodies[0]
  #matching = 0

  /** `changed` is called when the reader wants to see other exports, which `wish` then tells. */
  constructor(wish: Wish, changed: () => void) {
    this.#wish = wish
    this.#changed = changed
    let timer: number | undefined
    byId('search', HTMLInputElement).addEventListener('input', ({ target }) => {
      clearTimeout(timer)
      timer = setTimeout(() => this.#look((target as HTMLInputElement).value, 0), TYPING_MS)
    })
    byId('previous', HTMLButtonElement).addEventListener('click', () => this.#turn(-ROWS))
    byId('next', HTMLButtonElement).addEventListener('click', () => this.#turn(ROWS))
  }

  #turn(by: number): void {
    this.#look(this.#wish.text, Math.max(0, this.#wish.first + by))
  }

  #look(text: string, first: number): void {
    Object.assign(this.#wish, { text, first })
    this.#changed()
  }

  update({ exports, first, matching, total }: Summary): void {
    this.#matching = matching
    while (this.#rows.length < exports.length) this.#addRow()
    for (const [index, row] of this.#rows.entries()) {
      const view = exports[index]
      row.root.hidden = view === undefined
      if (view !== undefined) this.#fill(row, view)
    }
    const last = first + exports.length
    const words = matching === 0 ? 'none' : `${grouped(first + 1)} to ${grouped(last)} of ${grouped(matching)}`
    say(byId('pager-words', HTMLElement), matching === total ? words : `${words} that match; ${grouped(total)} in all`)
    byId('previous', HTMLButtonElement).disabled = first === 0
    byId('next', HTMLButtonElement).disabled = last >= this.#matching
    const pager = byId('pager-words', HTMLElement).parentElement
    if (pager !== null) pager.hidden = total <= ROWS && matching === total
  }

  #addRow(): void {
    const name = element('button', { type: 'button' })
    const state = element('span')
    const numbers = Array.from({ length: COLUMNS }, () => element('td', { class: 'number' }))
    const root = element('tr', {}, element('td', { class: 'name' }, name), element('td', {}, state), ...numbers)
    name.addEventListener('click', () => {
      this.#wish.selected = name.textContent ?? ''
      this.#changed()
    })
    this.#rows.push({ root, name, state, numbers })
    this.#body?.append(root)
  }

  #fill({ root, name, state, numbers }: Row, view: ExportView): void {
    say(name, view.name)
    say(state, healthWords(view))
    state.className = `state ${view.health}`
    const errors = view.errors.reduce((sum, { total }) => sum + total, 0)
    const texts = [
      bytes(view.size),
      takenWords(view),
      rate(view.rates.readBytes),
      rate(view.rates.writtenBytes),
      grouped(errors),
    ]
    for (const [index, text] of texts.entries()) {
      const cell = numbers[index]
      if (cell !== undefined) say(cell, text)
    }
    if (view.name === this.#wish.selected) root.setAttribute('aria-current', 'true')
    else root.removeAttribute('aria-current')
  }
}
