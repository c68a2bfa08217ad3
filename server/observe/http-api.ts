// The JSON side: what the status page shows, for programs. Everything that is a number comes from shared counters; what
// has to be asked of an export has a time-out, so that hung storage gives 504 for it and nothing else.
import type { FastifyInstance, FastifyReply } from 'fastify'
import { MAP_CELLS_DEFAULT, MAP_CELLS_MAX, type MapWindow, windowFault } from '../exports/disk-map.js'
import { API, SCHEMAS } from './api-schemas.js'
import { HEARTBEAT_AT } from './counters.js'
import type { Observed, ObservedExport } from './family.js'
import { type Query, RequestFault, whole, word } from './http-query.js'
import { MapDesk } from './map-desk.js'
import { allViews, exportView, type Health } from './overview.js'
import { allProblems } from './problems.js'
import { NoAnswer, type Questions } from './questions.js'
import { type Matching, matching, ROWS_DEFAULT, ROWS_MAX } from './rows.js'
import { backingViews } from './space-view.js'
import type { Watch } from './watch.js'

/** The NBD thread beats once a second; a heart that stood still for this long is reported. */
export const HEARTBEAT_LATE_MS = 10_000
/** An export that gives its clients the host's errors, or those of lost ranges, at once does what it is there for. */
const READY: ReadonlySet<Health> = new Set<Health>(['ok', 'failing', 'suspect'])
/** What `candor serve` takes as an export's name. */
const NAME_LENGTH_MAX = 4096

export interface ApiSources {
  observed(): Observed
  readonly watch: Watch
  readonly questions: Questions
}

type Named = { Params: { name: string }; Querystring: Query }

/** ms since the NBD thread was last seen alive. */
export function heartbeatAge({ server }: Observed): number {
  return Date.now() - (server[HEARTBEAT_AT] ?? 0)
}

/** What a client wants to see of the list. @throws RequestFault */
export function rowsWanted(query: Query): Matching {
  return {
    text: word(query, 'q', NAME_LENGTH_MAX) ?? '',
    first: whole(query, 'first', 0, 0, Number.MAX_SAFE_INTEGER),
    count: whole(query, 'count', ROWS_DEFAULT, 1, ROWS_MAX),
  }
}

/** @throws RequestFault with 404 */
export function exportNamed({ exports }: Observed, name: string): ObservedExport {
  const found = exports.find((entry) => entry.name === name)
  if (found !== undefined) return found
  throw new RequestFault(404, `there is no export '${name}': /api/exports lists them`)
}

function answering(name: keyof typeof SCHEMAS): object {
  return { schema: { response: { 200: SCHEMAS[name], 503: SCHEMAS[name], '4xx': SCHEMAS.error } } }
}

function health(observed: Observed, reply: FastifyReply): object {
  const late = heartbeatAge(observed)
  if (late < HEARTBEAT_LATE_MS) return { status: 'ok' }
  reply.code(503)
  return { status: 'stalled', reason: `the NBD thread has not answered for ${late} ms` }
}

function readiness({ observed, watch }: ApiSources, reply: FastifyReply): object {
  const views = allViews(observed().exports, watch)
  const exports = views.map((view) => ({ name: view.name, health: view.health }))
  const reasons = exports.filter(({ health }) => !READY.has(health)).map((entry) => `${entry.name} is ${entry.health}`)
  const late = heartbeatAge(observed())
  if (late >= HEARTBEAT_LATE_MS) reasons.unshift(`the NBD thread has not answered for ${late} ms`)
  if (reasons.length > 0) reply.code(503)
  return { ready: reasons.length === 0, exports, reasons }
}

function windowOf(query: Query, size: number): MapWindow {
  const window = {
    from: whole(query, 'from', 0, 0, Number.MAX_SAFE_INTEGER),
    to: whole(query, 'to', size, 0, Number.MAX_SAFE_INTEGER),
    cells: whole(query, 'cells', MAP_CELLS_DEFAULT, 1, MAP_CELLS_MAX),
  }
  const fault = windowFault(window, size)
  if (fault === undefined) return window
  throw new RequestFault(400, fault)
}

/** The result of a question. @throws NoAnswer, also where those who were asked know that storage keeps them waiting */
async function asked(questions: Questions, command: string, name?: string): Promise<unknown> {
  const reply = await questions.ask({ command, ...(name !== undefined && { name }) })
  if (reply.ok) return reply.result
  throw new NoAnswer(504, reply.error)
}

function serverRoutes(app: FastifyInstance, sources: ApiSources): void {
  const { observed, watch, questions } = sources
  app.get('/healthz', answering('health'), async (_request, reply) => health(observed(), reply))
  app.get('/readyz', answering('readiness'), async (_request, reply) => readiness(sources, reply))
  app.get('/api/schema', async () => ({ paths: API, schemas: SCHEMAS }))
  app.get('/api/history', answering('history'), async () => watch.series())
  app.get('/api/backings', answering('backings'), async () => ({ backings: backingViews(observed(), watch.fillings) }))
  app.get('/api/sessions', answering('sessions'), async () => ({ sessions: await asked(questions, 'sessions') }))
  app.get('/api/problems', answering('problems'), async () => {
    const now = Date.now()
    const views = allViews(observed().exports, watch, now)
    return { problems: allProblems(views, backingViews(observed(), watch.fillings), now) }
  })
}

/** Registers every route that answers JSON; SCHEMAS tells what comes out. */
export function routeApi(app: FastifyInstance, sources: ApiSources): void {
  const { observed, watch, questions } = sources
  const maps = new MapDesk(questions)
  serverRoutes(app, sources)
  app.get<Named>('/api/exports', answering('exports'), async ({ query }) =>
    matching(allViews(observed().exports, watch), rowsWanted(query)),
  )
  app.get<Named>('/api/exports/:name', answering('export'), async ({ params }) =>
    exportView(exportNamed(observed(), params.name), watch),
  )
  app.get<Named>('/api/exports/:name/history', answering('history'), async ({ params }) =>
    watch.series(exportNamed(observed(), params.name).name),
  )
  app.get<Named>('/api/exports/:name/errors', answering('errors'), async ({ params }) => {
    const { name } = exportNamed(observed(), params.name)
    return { export: name, entries: await asked(questions, 'errors', name) }
  })
  app.get<Named>('/api/exports/:name/map', answering('map'), async ({ params, query }) => {
    const { name, size } = exportNamed(observed(), params.name)
    return maps.draw(name, windowOf(query, size))
  })
}
