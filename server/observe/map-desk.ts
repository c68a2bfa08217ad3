// Maps for whoever asks over HTTP. Law: one walk over an export's extents at a time, however many ask, and none again for
// what was drawn a moment ago: looking must not cost the disk.
import type { DiskMap, MapWindow } from '../exports/disk-map.js'
import { NoAnswer, type Questions } from './questions.js'

/** How old a map may be that is given out again. */
const FRESH_MS = 1000
/** Maps of one export that may wait for their turn. */
const WAITING_MAX = 8

interface Desk {
  readonly drawn: Map<string, Promise<DiskMap>>
  last: Promise<unknown>
  waiting: number
}

export class MapDesk {
  readonly #questions: Questions
  readonly #desks = new Map<string, Desk>()

  constructor(questions: Questions) {
    this.#questions = questions
  }

  /** @throws NoAnswer */
  draw(name: string, window: MapWindow): Promise<DiskMap> {
    const desk = this.#desks.get(name) ?? { drawn: new Map(), last: Promise.resolve(), waiting: 0 }
    this.#desks.set(name, desk)
    const key = `${window.from}-${window.to}/${window.cells}`
    const known = desk.drawn.get(key)
    if (known !== undefined) return known
    if (desk.waiting >= WAITING_MAX) throw new NoAnswer(503, `too many maps of export '${name}' are being drawn`)
    desk.waiting += 1
    const drawing = desk.last.then(() => this.#ask(name, window))
    desk.drawn.set(key, drawing)
    const forget = (afterMs: number) => {
      desk.waiting -= 1
      setTimeout(() => desk.drawn.delete(key), afterMs).unref()
    }
    desk.last = drawing.then(
      () => forget(FRESH_MS),
      () => forget(0),
    )
    return drawing
  }

  async #ask(name: string, { from, to, cells }: MapWindow): Promise<DiskMap> {
    const reply = await this.#questions.ask({ command: 'map', name, words: [from, to, cells].map(String) })
    if (reply.ok) return reply.result as DiskMap
    throw new NoAnswer(504, reply.error)
  }
}
