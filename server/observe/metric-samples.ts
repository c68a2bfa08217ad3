// Where the numbers of the metrics are read: in the counters of the server and of each export. Law: what was never
// counted makes no series.
import { COMMANDS, commandName } from 'nbd-protocol'
import { ERRNOS, errnoName } from '../../backends/index.js'
import {
  type Counters,
  DEFERRED_AT,
  errorAt,
  HEARTBEAT_AT,
  LOG_LOST_AT,
  latencyAt,
  OBSERVED_STATES,
  OLDEST_SINCE_AT,
  PROTOCOL_ERRORS,
  PROTOCOL_ERRORS_AT,
  PULSE_AT,
  RELEASED_SINCE_AT,
  REPEATED_AT,
  STATE_AT,
} from './counters.js'
import { type Collect, FRONT_ENDS, isUsed, type Observed, perExport, requestsOf, type Sample } from './family.js'
import { LATENCY_LABELS, LATENCY_SUM_AT, OUTCOMES } from './latency-buckets.js'

const MS_PER_SECOND = 1000

/** One number of the server. */
export function single(at: number): Collect {
  return ({ server }) => [{ labels: {}, value: server[at] ?? 0 }]
}

/** A row of numbers of the server, one for each reason. */
export function byReason(reasons: readonly string[], at: number): Collect {
  return function* ({ server }) {
    for (const [index, reason] of reasons.entries()) yield { labels: { reason }, value: server[at + index] ?? 0 }
  }
}

export function* sizes({ exports }: Observed): Iterable<Sample> {
  for (const { name, size } of exports) yield { labels: { export: name }, value: size }
}

export function* states({ exports }: Observed): Iterable<Sample> {
  for (const { name, counters } of exports) {
    const now = counters[STATE_AT] ?? 0
    for (const [index, state] of OBSERVED_STATES.entries()) {
      yield { labels: { export: name, state }, value: index === now ? 1 : 0 }
    }
  }
}

export function* ages({ exports }: Observed): Iterable<Sample> {
  for (const { name, counters } of exports) {
    const since = counters[OLDEST_SINCE_AT] ?? 0
    if (since === 0 && !isUsed(counters)) continue
    yield { labels: { export: name }, value: since === 0 ? 0 : secondsSince(since) }
  }
}

export function* pulses({ exports }: Observed): Iterable<Sample> {
  for (const { name, pulse } of exports) yield { labels: { export: name }, value: secondsSince(pulse[PULSE_AT] ?? 0) }
}

export function heartbeatAge({ server }: Observed): Iterable<Sample> {
  return [{ labels: {}, value: secondsSince(server[HEARTBEAT_AT] ?? 0) }]
}

function secondsSince(ms: number): number {
  return Math.max(0, Date.now() - ms) / MS_PER_SECOND
}

export function* requests({ exports }: Observed): Iterable<Sample> {
  for (const { name, counters } of exports) {
    for (let command = 0; command < COMMANDS; command++) {
      for (const [frontend, at] of Object.entries(FRONT_ENDS)) {
        const value = counters[at + command] ?? 0
        if (value > 0) yield { labels: { export: name, frontend, command: commandName(command) }, value }
      }
    }
  }
}

export function* deferred({ exports }: Observed): Iterable<Sample> {
  for (const { name, counters } of exports) {
    for (let command = 0; command < COMMANDS; command++) {
      if (requestsOf(counters, command) === 0) continue
      yield { labels: { export: name, command: commandName(command) }, value: counters[DEFERRED_AT + command] ?? 0 }
    }
  }
}

export function* errors({ exports }: Observed): Iterable<Sample> {
  for (const { name, counters } of exports) {
    for (let command = 0; command < COMMANDS; command++) {
      if (requestsOf(counters, command) === 0) continue
      for (let errno = 0; errno < ERRNOS; errno++) {
        const value = counters[errorAt(command, errno)] ?? 0
        if (value === 0) continue
        yield { labels: { export: name, command: commandName(command), errno: errnoName(errno) }, value }
      }
    }
  }
}

export const DURATION = 'candor_request_duration_seconds'

export function* durations({ exports }: Observed): Iterable<Sample> {
  for (const { name, counters } of exports) {
    for (let command = 0; command < COMMANDS; command++) {
      if (requestsOf(counters, command) === 0) continue
      for (const [index, outcome] of OUTCOMES.entries()) {
        const labels = { export: name, command: commandName(command), outcome }
        yield* histogram(counters, latencyAt(command * OUTCOMES.length + index), labels)
      }
    }
  }
}

const BUCKETS = LATENCY_LABELS.map((le) => ({ le }))
const NO_LABELS = {}

// The count is the sum of what was read of the buckets: whatever is added meanwhile, the parts of a histogram agree.
function* histogram(counters: Counters, at: number, sharedLabels: Sample['labels']): Iterable<Sample> {
  const counts = counters.slice(at, at + LATENCY_SUM_AT)
  if (counts.every((value) => value === 0)) return
  let below = 0
  for (const [index, labels] of BUCKETS.entries()) {
    below += counts[index] ?? 0
    yield { metricName: `${DURATION}_bucket`, labels, sharedLabels, value: below }
  }
  const sum = counters[at + LATENCY_SUM_AT] ?? 0
  yield { metricName: `${DURATION}_sum`, labels: NO_LABELS, sharedLabels, value: sum }
  yield { metricName: `${DURATION}_count`, labels: NO_LABELS, sharedLabels, value: below }
}

/** A number that each thread counts for itself. Exports of one thread have one pulse. */
function overThreads({ pulse, threads, exports }: Observed, at: number): number {
  const pulses = new Set([pulse, ...(threads ?? exports.map((one) => one.pulse))])
  return [...pulses].reduce((sum, one) => sum + (one[at] ?? 0), 0)
}

export function* protocolErrors(observed: Observed): Iterable<Sample> {
  for (const [index, reason] of PROTOCOL_ERRORS.entries()) {
    yield { labels: { reason }, value: overThreads(observed, PROTOCOL_ERRORS_AT + index) }
  }
}

/** `repeated`: summed up instead of told; `backlog`: lost, because whoever reads stderr was too slow. */
export function logLines(observed: Observed): Iterable<Sample> {
  const { server } = observed
  const repeated = overThreads(observed, REPEATED_AT)
  return [
    { labels: { reason: 'repeated' }, value: repeated },
    { labels: { reason: 'backlog' }, value: server[LOG_LOST_AT] ?? 0 },
  ]
}

export function buildInfo({ version }: Observed): Iterable<Sample> {
  return [{ labels: { version, node: process.versions.node }, value: 1 }]
}

/** Whether an image is let go of; since when is the page's. */
export function* released(observed: Observed): Iterable<Sample> {
  for (const { labels, value } of perExport(observed, RELEASED_SINCE_AT)) yield { labels, value: value > 0 ? 1 : 0 }
}
