// The status page's feed: one server-sent event a second, with the sums of all exports and details of those alone that the
// client looks at. Law: watchers are bounded, and one that does not read is let go.
import type { ServerResponse } from 'node:http'
import type { FastifyInstance } from 'fastify'
import { CONNECTIONS_AT } from './counters.js'
import { type ApiSources, exportNamed, HEARTBEAT_LATE_MS, heartbeatAge, rowsWanted } from './http-api.js'
import { type Query, word } from './http-query.js'
import { allViews, type ExportView, HEALTHS } from './overview.js'
import { type Problem, ranked } from './problem.js'
import { allProblems, stalled } from './problems.js'
import { NoAnswer } from './questions.js'
import { type Matching, matching } from './rows.js'
import { type BackingView, backingViews } from './space-view.js'

/** Problems that an event tells of; the others are counted. */
const PROBLEMS_MAX = 20
/** File systems that an event tells of, besides that of the chosen export. */
const BACKINGS_MAX = 6
/** Bytes that a watcher may leave unread. */
const BACKLOG_BYTES_MAX = 1 << 20
const NAME_LENGTH_MAX = 4096

interface Watcher {
  readonly response: ServerResponse
  readonly rows: Matching
  readonly selected: string | undefined
}

/** What all watchers are told alike. */
interface Shared {
  readonly views: readonly ExportView[]
  readonly backings: readonly BackingView[]
  readonly head: object
}

function sumOf(views: readonly ExportView[], key: 'inFlight' | 'held' | 'suspectBytes'): number {
  return views.reduce((sum, view) => sum + view[key], 0)
}

function sharedPart({ observed, watch }: ApiSources): Shared {
  const now = Date.now()
  const { exports, server, version } = observed()
  const backings = backingViews(observed(), watch.fillings)
  const views = allViews(exports, watch, now)
  const late = heartbeatAge(observed())
  const own: Problem[] = late < HEARTBEAT_LATE_MS ? [] : [stalled(late)]
  const problems = ranked([...own, ...allProblems(views, backings, now)])
  const healths = HEALTHS.map((health) => [health, views.filter((view) => view.health === health).length] as const)
  const totals = {
    exports: views.length,
    sessions: server[CONNECTIONS_AT] ?? 0,
    inFlight: sumOf(views, 'inFlight'),
    held: sumOf(views, 'held'),
    suspectBytes: sumOf(views, 'suspectBytes'),
    rates: watch.rates,
  }
  const head = {
    time: new Date(now).toISOString(),
    version,
    totals,
    healths: Object.fromEntries(healths),
    problems: problems.slice(0, PROBLEMS_MAX),
    problemsOmitted: Math.max(0, problems.length - PROBLEMS_MAX),
  }
  return { views, backings, head }
}

export class Events {
  readonly #sources: ApiSources
  readonly #watchersMax: number
  readonly #watchers = new Set<Watcher>()

  constructor(sources: ApiSources, watchersMax: number) {
    this.#sources = sources
    this.#watchersMax = watchersMax
  }

  route(app: FastifyInstance): void {
    app.get<{ Querystring: Query }>('/api/events', { exposeHeadRoute: false }, async ({ query }, reply) => {
      const rows = rowsWanted(query)
      const selected = word(query, 'export', NAME_LENGTH_MAX)
      if (selected !== undefined) exportNamed(this.#sources.observed(), selected)
      if (this.#watchers.size >= this.#watchersMax) {
        throw new NoAnswer(
          503,
          `${this.#watchersMax} status pages are open already: close one, or raise --http-watchers-max`,
        )
      }
      reply.hijack()
      const headers = { ...reply.getHeaders(), 'content-type': 'text/event-stream; charset=utf-8' }
      reply.raw.writeHead(200, headers as Record<string, string>)
      const watcher = { response: reply.raw, rows, selected }
      this.#watchers.add(watcher)
      reply.raw.on('close', () => this.#watchers.delete(watcher))
      this.#send(watcher, sharedPart(this.#sources))
    })
  }

  /** Called once a second. */
  tick(): void {
    if (this.#watchers.size === 0) return
    const shared = sharedPart(this.#sources)
    for (const watcher of this.#watchers) this.#send(watcher, shared)
  }

  #send({ response, rows, selected }: Watcher, { views, backings, head }: Shared): void {
    if (response.writableLength > BACKLOG_BYTES_MAX) {
      response.destroy()
      return
    }
    const own = selected === undefined ? undefined : views.find(({ name }) => name === selected)
    const shown = backings.filter(({ device }, index) => index < BACKINGS_MAX || device === own?.device)
    const space = { backings: shown, backingsOmitted: backings.length - shown.length }
    const data = { ...head, ...space, ...matching(views, rows), ...(own !== undefined && { selected: own }) }
    response.write(`event: summary\ndata: ${JSON.stringify(data)}\n\n`)
  }
}
