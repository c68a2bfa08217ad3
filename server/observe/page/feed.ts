// Where the numbers come from: one event a second, and the questions that are asked besides. Law: a feed that is silent is
// said to be silent; old numbers are never shown as if they were new.
import type { ExportView } from '../overview.js'
import type { Problem } from '../problem.js'
import type { BackingView } from '../space-view.js'
import type { Rates } from '../watch.js'

export interface Summary {
  readonly time: string
  readonly version: string
  readonly totals: {
    readonly exports: number
    readonly sessions: number
    readonly inFlight: number
    readonly held: number
    readonly suspectBytes: number
    readonly rates: Rates
  }
  readonly healths: Readonly<Record<string, number>>
  readonly problems: readonly Problem[]
  readonly problemsOmitted: number
  /** Worst first, and that of `selected`. */
  readonly backings: readonly BackingView[]
  readonly backingsOmitted: number
  readonly exports: readonly ExportView[]
  readonly first: number
  readonly matching: number
  readonly total: number
  readonly selected?: ExportView
}

/** What the page looks at. */
export interface Wish {
  text: string
  first: number
  count: number
  selected: string | undefined
}

export interface FeedEvents {
  summary(summary: Summary): void
  /** Nothing has come since `at`, in ms since the epoch; undefined: nothing ever did. */
  silent(at: number | undefined, why: string): void
}

const SILENT_MS = 4000
const AGAIN_MS = 2000

/** JSON of this server. @throws Error with the server's sentence */
export async function ask<Answer>(path: string): Promise<Answer> {
  const response = await fetch(path)
  const answer: unknown = await response.json()
  if (response.ok) return answer as Answer
  throw new Error((answer as { error?: string }).error ?? `the server answered ${response.status}`)
}

export class Feed {
  readonly #events: FeedEvents
  #source: EventSource | undefined
  #path = ''
  #last: number | undefined
  #timer: number | undefined

  constructor(events: FeedEvents) {
    this.#events = events
    setInterval(() => {
      if (Date.now() - (this.#last ?? 0) > SILENT_MS) this.#events.silent(this.#last, 'candor does not answer')
    }, 1000)
  }

  /** Looks at something else from now on. */
  look({ text, first, count, selected }: Wish): void {
    const query = new URLSearchParams({ first: String(first), count: String(count) })
    if (text !== '') query.set('q', text)
    if (selected !== undefined) query.set('export', selected)
    const path = `/api/events?${query}`
    if (path === this.#path) return
    this.#path = path
    this.#open()
  }

  #open(): void {
    clearTimeout(this.#timer)
    this.#source?.close()
    const source = new EventSource(this.#path)
    this.#source = source
    source.addEventListener('summary', (event) => {
      this.#last = Date.now()
      this.#events.summary(JSON.parse(event.data) as Summary)
    })
    // A browser gives up for good after an answer that is no stream, such as 503: then it is tried again from here.
    source.addEventListener('error', () => {
      if (source.readyState !== EventSource.CLOSED || source !== this.#source) return
      this.#events.silent(this.#last, 'candor sends nothing; too many status pages may be open')
      this.#timer = setTimeout(() => this.#open(), AGAIN_MS)
    })
  }
}
