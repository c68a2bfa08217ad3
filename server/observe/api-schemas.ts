// The JSON that the HTTP side answers, as JSON schemas: the single source. Fastify writes answers by them, /api/schema
// serves them, and the tests hold live answers against them.
import { HEALTHS } from './overview.js'
import { SEVERITIES } from './problem.js'

export type Schema = Readonly<Record<string, unknown>>

const text = { type: 'string' }
const time = { type: 'string', format: 'date-time' }
const count = { type: 'integer', minimum: 0 }
const number = { type: 'number', minimum: 0 }
const yesNo = { type: 'boolean' }

function list(items: Schema): Schema {
  return { type: 'array', items }
}

/** An object of which everything is required but what `optional` names. */
function object(properties: Readonly<Record<string, Schema>>, ...optional: readonly string[]): Schema {
  const required = Object.keys(properties).filter((name) => !optional.includes(name))
  return { type: 'object', properties, required, additionalProperties: false }
}

const rates = object({
  readBytes: number,
  writtenBytes: number,
  requests: number,
  errors: number,
  readLatency: number,
  writeLatency: number,
  flushLatency: number,
})

const errorCount = object({
  command: text,
  errno: text,
  total: count,
  recent: object({ count, since: time, last: time }),
})

const exportView = object(
  {
    name: text,
    size: count,
    readOnly: yesNo,
    path: text,
    health: { type: 'string', enum: HEALTHS },
    reason: text,
    state: text,
    stateSince: time,
    stateErrno: text,
    releasedSince: time,
    recordFailed: yesNo,
    ledgerLost: count,
    uncleanEnd: yesNo,
    suspectBytes: count,
    held: count,
    heldSince: time,
    inFlight: count,
    oldestRequestSeconds: number,
    injectionRules: count,
    device: text,
    allocated: count,
    reserve: count,
    readBytes: count,
    writtenBytes: count,
    rates,
    errors: list(errorCount),
  },
  'reason',
  'stateSince',
  'stateErrno',
  'releasedSince',
  'heldSince',
  'device',
)

const backing = object(
  {
    device: text,
    mount: text,
    size: count,
    free: count,
    allocated: count,
    mayTake: count,
    overcommit: { type: 'integer' },
    reserve: count,
    secondsUntilFull: number,
    fillingSince: time,
    looked: time,
    exports: count,
  },
  'secondsUntilFull',
  'fillingSince',
)

const problem = object(
  {
    severity: { type: 'string', enum: SEVERITIES },
    export: text,
    title: text,
    since: time,
    last: time,
    detail: text,
    remedy: text,
    command: text,
    help: text,
  },
  'export',
  'since',
  'last',
  'command',
)

const ledgerEntry = object({ time, client: text, command: text, offset: count, length: count, errno: text, count })

const mapRange = object(
  {
    kind: { type: 'string', enum: ['failed', 'held', 'suspect'] },
    offset: count,
    length: count,
    time,
    command: text,
    errno: text,
    client: text,
    count,
  },
  'time',
  'command',
  'errno',
  'client',
  'count',
)

const map = object(
  {
    export: text,
    size: count,
    from: count,
    to: count,
    cellBytes: count,
    cells: list(count),
    data: list(count),
    exact: yesNo,
    error: text,
    ranges: list(mapRange),
    rangesOmitted: count,
  },
  'error',
)

const session = object(
  { id: count, peer: text, subject: text, tls: yesNo, export: text, since: time, ageSeconds: number, inFlight: count },
  'subject',
  'export',
  'inFlight',
)

const series = object({
  times: list(count),
  readBytes: list(number),
  writtenBytes: list(number),
  requests: list(number),
  readLatency: list(number),
  writeLatency: list(number),
  flushLatency: list(number),
  errors: { type: 'object', additionalProperties: list(number) },
})

const rows = { exports: list(exportView), first: count, matching: count, total: count }

const summary = object(
  {
    time,
    version: text,
    totals: object({ exports: count, sessions: count, inFlight: count, held: count, suspectBytes: count, rates }),
    healths: { type: 'object', additionalProperties: count },
    problems: list(problem),
    problemsOmitted: count,
    backings: list(backing),
    backingsOmitted: count,
    ...rows,
    selected: exportView,
  },
  'selected',
)

const readiness = object({
  ready: yesNo,
  exports: list(object({ name: text, health: { type: 'string', enum: HEALTHS } })),
  reasons: list(text),
})

/** By the name that docs/api.md uses. */
export const SCHEMAS = {
  error: object({ error: text }),
  health: object({ status: text, reason: text }, 'reason'),
  readiness,
  exports: object(rows),
  export: exportView,
  errors: object({ export: text, entries: list(ledgerEntry) }),
  map,
  history: series,
  backings: object({ backings: list(backing) }),
  sessions: object({ sessions: list(session) }),
  problems: object({ problems: list(problem) }),
  summary,
} as const satisfies Readonly<Record<string, Schema>>

/** Which schema each path answers with. */
export const API: Readonly<Record<string, keyof typeof SCHEMAS>> = {
  '/healthz': 'health',
  '/readyz': 'readiness',
  '/api/exports': 'exports',
  '/api/exports/{name}': 'export',
  '/api/exports/{name}/errors': 'errors',
  '/api/exports/{name}/map': 'map',
  '/api/exports/{name}/history': 'history',
  '/api/history': 'history',
  '/api/backings': 'backings',
  '/api/sessions': 'sessions',
  '/api/problems': 'problems',
  '/api/events': 'summary',
}
