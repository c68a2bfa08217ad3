// The top of the page: what is wrong, where, since when, and what to do, in words.
import type { Problem } from '../problem.js'
import type { Summary } from './feed.js'
import { ago, byId, clock, element, plural, say } from './words.js'

const KINDS: Readonly<Record<Problem['severity'], string>> = {
  broken: 'Broken now',
  waiting: 'Guests wait',
  warning: 'Look at it',
  notice: 'Earlier',
}

interface Card {
  readonly root: HTMLElement
  readonly title: HTMLElement
  readonly since: HTMLElement
  readonly where: HTMLElement
  told: string
}

/** What of a problem stays the same from second to second. */
function keyOf({ severity, export: name, title }: Problem): string {
  return `${severity} ${name ?? ''} ${title.replaceAll(/[\d,]+/g, '#')}`
}

function titleOf({ export: name, title }: Problem): string {
  return name === undefined ? title : `${name}: ${title}`
}

function sinceWords({ severity, since, last }: Problem): string {
  if (since === undefined) return severity === 'broken' ? 'Since before this server started' : ''
  const parts = [`Since ${clock(since)}`, ago(since)]
  if (last !== undefined) parts.push(`last ${ago(last)}`)
  return parts.join(' · ')
}

/** Flags and commands stand in one piece, as they are typed. */
function worded(text: string, name = ''): (HTMLElement | string)[] {
  const literally = name.replaceAll(/[^\w\s]/g, '\\$&')
  return text
    .split(new RegExp(`(--[a-z][a-z-]*|candor ctl (?:release|resume) ${literally})`))
    .map((part, index) => (index % 2 === 1 ? element('code', { class: 'flag' }, part) : part))
}

function actions(problem: Problem, show: (name: string) => void): HTMLElement {
  const { export: name, help } = problem
  const row = element('div', { class: 'actions' })
  if (name !== undefined) {
    const button = element('button', { type: 'button' }, 'Show the disk')
    button.addEventListener('click', () => show(name))
    row.append(button)
  }
  row.append(element('a', { href: help }, 'What this means'))
  return row
}

function fill(card: Card, problem: Problem, show: (name: string) => void): void {
  const { severity, detail, remedy, command } = problem
  card.root.className = `problem ${severity}`
  card.root.replaceChildren(
    element('p', { class: 'kind' }, KINDS[severity]),
    card.title,
    card.since,
    element(
      'div',
      { class: 'body' },
      element(
        'div',
        {},
        element('p', { class: 'label' }, 'What happened'),
        element('p', {}, ...worded(detail, problem.export)),
        card.where,
      ),
      element(
        'div',
        {},
        element('p', { class: 'label' }, 'What to do'),
        element('p', {}, ...worded(remedy, problem.export)),
        command === undefined ? undefined : element('pre', {}, element('code', {}, command)),
      ),
    ),
    actions(problem, show),
  )
}

export class Problems {
  readonly #show: (name: string) => void
  readonly #cards = new Map<string, Card>()
  #where: { readonly name: string; readonly words: string } | undefined

  /** `show` brings the reader to an export. */
  constructor(show: (name: string) => void) {
    this.#show = show
  }

  /** The map tells where on an export something is wrong; the next update shows it. */
  locate(name: string, words: string): void {
    this.#where = { name, words }
  }

  update({ problems, problemsOmitted, totals, healths }: Summary): void {
    const present = problems.filter(({ severity }) => severity !== 'notice')
    const past = problems.filter(({ severity }) => severity === 'notice')
    this.#fill(byId('problems', HTMLElement), present, present.length === 1)
    this.#fill(byId('earlier-problems', HTMLElement), past, false)
    const keys = new Set(problems.map(keyOf))
    for (const key of this.#cards.keys()) if (!keys.has(key)) this.#cards.delete(key)
    const more = problemsOmitted === 0 ? '' : `, and ${problemsOmitted} more that are not shown`
    byId('earlier', HTMLDetailsElement).hidden = past.length === 0
    say(byId('earlier-summary', HTMLElement), `Earlier, or of little weight: ${plural(past.length, 'notice')}${more}`)
    const verdict = verdictOf(present, totals.exports, healths['ok'] ?? 0)
    say(byId('verdict', HTMLElement), verdict)
    document.title = present.length === 0 ? 'candor: all is well' : `▲ ${verdict} – candor`
  }

  #fill(place: HTMLElement, problems: readonly Problem[], isOnly: boolean): void {
    const cards = problems.map((problem) => this.#card(problem, isOnly))
    const isSame =
      cards.length === place.children.length && cards.every((card, index) => place.children[index] === card)
    if (!isSame) place.replaceChildren(...cards)
  }

  #card(problem: Problem, isOnly: boolean): HTMLElement {
    const key = keyOf(problem)
    const known = this.#cards.get(key)
    const card: Card = known ?? {
      root: element('article'),
      title: element('h2'),
      since: element('p', { class: 'since' }),
      where: element('p', { class: 'where' }),
      told: '',
    }
    this.#cards.set(key, card)
    const { since: _since, last: _last, ...words } = problem
    const told = JSON.stringify(words)
    if (told !== card.told) fill(card, problem, this.#show)
    card.told = told
    say(card.title, titleOf(problem))
    // The headline of the page says it already.
    card.title.hidden = isOnly
    say(card.since, sinceWords(problem))
    const isHere =
      problem.export !== undefined && problem.severity !== 'warning' && problem.export === this.#where?.name
    say(card.where, isHere ? (this.#where?.words ?? '') : '')
    return card.root
  }
}

function verdictOf(problems: readonly Problem[], exports: number, ok: number): string {
  const [worst] = problems
  if (worst === undefined) return exports === 1 ? 'All is well' : `All is well: ${plural(exports, 'export')} served`
  if (problems.length === 1) return titleOf(worst)
  const others = new Set(problems.flatMap(({ export: name }) => (name === worst.export ? [] : (name ?? []))))
  const where = others.size === 0 ? '' : ` with ${plural(others.size, 'other export')}`
  const well = others.size === 0 || ok === 0 ? '' : `; ${plural(ok, 'export')} ${ok === 1 ? 'is' : 'are'} well`
  return `${titleOf(worst)} – and ${plural(problems.length - 1, 'more problem')}${where}${well}`
}
