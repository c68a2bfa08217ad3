// Numbers and times as people read them, and the elements that hold them. Law: text goes into the page as text alone.

const UNITS = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const
export const SECTOR_BYTES = 512

/** 400 MiB for 419430400. */
export function bytes(count: number): string {
  let value = count
  let unit = 'B'
  for (const larger of UNITS) {
    if (value < 1024) break
    value /= 1024
    unit = larger
  }
  return `${Number(value.toFixed(value < 10 ? 2 : 1))} ${unit}`
}

export function rate(perSecond: number): string {
  return `${bytes(perSecond)}/s`
}

export function grouped(count: number): string {
  return count.toLocaleString('en')
}

export function plural(count: number, one: string): string {
  return `${grouped(count)} ${one}${count === 1 ? '' : 's'}`
}

/** Sectors as the guest's kernel numbers them. */
export function sectors(offset: number, length: number): string {
  const first = Math.floor(offset / SECTOR_BYTES)
  const last = Math.ceil((offset + length) / SECTOR_BYTES) - 1
  return first === last ? `sector ${first}` : `sectors ${first}–${last}`
}

/** 14:03:07 where the reader is; with the day where it is not today's. */
export function clock(iso: string): string {
  const time = new Date(iso)
  const words = time.toLocaleTimeString('en-GB')
  return time.toDateString() === new Date().toDateString() ? words : `${time.toLocaleDateString('en-GB')} ${words}`
}

/** 4 min for 245 seconds. */
export function span(seconds: number): string {
  if (seconds < 100) return `${Math.max(0, Math.round(seconds))} s`
  if (seconds < 100 * 60) return `${Math.round(seconds / 60)} min`
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`
  return `${Math.round(seconds / 86_400)} days`
}

export function ago(iso: string): string {
  return `${span((Date.now() - Date.parse(iso)) / 1000)} ago`
}

type Child = Node | string | undefined

/** An element with attributes and children; `undefined` among these is left out. */
export function element<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Readonly<Record<string, string>> = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[Name] {
  const made = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  made.append(...children.filter((child) => child !== undefined))
  return made
}

/** What the page's own HTML has. @throws when the HTML and the code do not belong together */
export function byId<Kind extends HTMLElement>(id: string, kind: new () => Kind): Kind {
  const found = document.getElementById(id)
  if (found instanceof kind) return found
  throw new TypeError(`index.html has no ${kind.name} '${id}'`)
}

/** Changes the text only where it differs: what is selected or read aloud stays so. */
export function say(target: HTMLElement, text: string): void {
  if (target.textContent !== text) target.textContent = text
}

/** Terms and what they come to; the list is made once and then only changed. */
export function sayTerms(list: HTMLElement, terms: readonly (readonly [term: string, text: string])[]): void {
  if (list.children.length !== terms.length) {
    list.replaceChildren(...terms.map(([term]) => element('div', {}, element('dt', {}, term), element('dd'))))
  }
  for (const [index, [, text]] of terms.entries()) {
    const place = list.children[index]?.lastElementChild
    if (place instanceof HTMLElement) say(place, text)
  }
}
