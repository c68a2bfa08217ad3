// The status page: brings the feed to its parts. It only shows; nothing on it changes anything.
import { Disk } from './disk.js'
import { Exports, ROWS } from './exports.js'
import { Feed, type Summary, type Wish } from './feed.js'
import { Problems } from './problems.js'
import { watchSessions } from './sessions.js'
import { Space } from './space.js'
import { byId, bytes, clock, grouped, rate, say, sayTerms } from './words.js'

/** The place of an export in the address, so that it can be sent to a colleague. */
const HASH = '#disk='

function chosenInAddress(): string | undefined {
  return location.hash.startsWith(HASH) ? decodeURIComponent(location.hash.slice(HASH.length)) : undefined
}

const wish: Wish = { text: '', first: 0, count: ROWS, selected: chosenInAddress() }
const exports = new Exports(wish, lookElsewhere)
const problems = new Problems((name) => {
  wish.selected = name
  lookElsewhere()
  const section = byId('disk', HTMLElement)
  section.scrollIntoView()
  section.focus({ preventScroll: true })
})
const disk = new Disk((name, words) => problems.locate(name, words))
const space = new Space()
const feed = new Feed({ summary: show, silent })

function lookElsewhere(): void {
  if (wish.selected !== undefined) history.replaceState(undefined, '', `${HASH}${encodeURIComponent(wish.selected)}`)
  feed.look(wish)
}

function show(summary: Summary): void {
  const { time, version, totals, selected } = summary
  byId('live', HTMLElement).classList.remove('lost')
  say(byId('live-words', HTMLElement), `live, ${clock(time)}`)
  say(byId('version', HTMLElement), version)
  problems.update(summary)
  exports.update(summary)
  space.update(summary)
  sayTerms(byId('totals', HTMLElement), [
    ['Exports', grouped(totals.exports)],
    ['Sessions', grouped(totals.sessions)],
    ['Read', rate(totals.rates.readBytes)],
    ['Written', rate(totals.rates.writtenBytes)],
    ['Errors', `${grouped(totals.rates.errors)}/s`],
    ['Writes waiting', grouped(totals.held)],
    ['Suspect', totals.suspectBytes === 0 ? 'nothing' : bytes(totals.suspectBytes)],
  ])
  if (selected !== undefined) disk.update(selected, summary)
  else choose(summary)
}

/** Nobody has chosen: the export that is worst off, which stands first. */
function choose({ problems: found, exports: rows }: Summary): void {
  const name = found.find((problem) => problem.export !== undefined)?.export ?? rows[0]?.name
  if (name === undefined || wish.selected !== undefined) return
  wish.selected = name
  feed.look(wish)
}

function silent(at: number | undefined, why: string): void {
  byId('live', HTMLElement).classList.add('lost')
  const since = at === undefined ? '' : `; what you see is of ${clock(new Date(at).toISOString())}`
  say(byId('live-words', HTMLElement), `${why}${since}`)
}

addEventListener('hashchange', () => {
  wish.selected = chosenInAddress() ?? wish.selected
  feed.look(wish)
})
feed.look(wish)
watchSessions()
