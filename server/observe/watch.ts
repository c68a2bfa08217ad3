// What happened lately, from the shared counters: once a second their differences are kept for the charts, and for each
// kind of error when it began and when it was seen last. Runs in the HTTP thread; memory is bounded by export.
import { COMMANDS, commandIndex, commandName, NBD_CMD_FLUSH, NBD_CMD_READ, NBD_CMD_WRITE } from 'nbd-protocol'
import { ERRNOS, errnoName } from '../../backends/index.js'
import {
  type Counters,
  ERRORS_AT,
  latencyAt,
  READ_BYTES_AT,
  REFUSED_BY_RESERVE_AT,
  WRITTEN_BYTES_AT,
} from './counters.js'
import { type Observed, type ObservedExport, requestsOf } from './family.js'
import { LATENCY_SUM_AT, OUTCOMES } from './latency-buckets.js'
import { Fillings } from './space-view.js'

/** Seconds that the charts go back. */
export const HISTORY_SECONDS = 300
/** Errors that come after a longer silence are a new episode. */
const EPISODE_GAP_MS = 10 * 60_000
/** Kinds of errors, by errno, that are told apart in the charts; more share "other". */
const ERRNOS_CHARTED_MAX = 8
const OTHER = 'other'
/** What the ledger, the log and the page say in the place of an errno where the operator's reserve refused a request. */
export const RESERVE = 'reserve'
const KINDS = COMMANDS * ERRNOS

/** How often it happened, which is one number for each command and errno, and one for the reserve. */
function countOf(counters: Counters, kind: number): number {
  return counters[kind === KINDS ? REFUSED_BY_RESERVE_AT : ERRORS_AT + kind] ?? 0
}

function namesOf(kind: number): Pick<ErrorEpisode, 'command' | 'errno'> {
  if (kind === KINDS) return { command: 'any', errno: RESERVE }
  return { command: commandName(Math.floor(kind / ERRNOS)), errno: errnoName(kind % ERRNOS) }
}

/** Of one second, or of a sum of exports in it. */
export interface Rates {
  readonly readBytes: number
  readonly writtenBytes: number
  readonly requests: number
  readonly errors: number
  /** Seconds that a request took in the mean; 0 where there was none. */
  readonly readLatency: number
  readonly writeLatency: number
  readonly flushLatency: number
}

const NO_RATES: Rates = {
  readBytes: 0,
  writtenBytes: 0,
  requests: 0,
  errors: 0,
  readLatency: 0,
  writeLatency: 0,
  flushLatency: 0,
}

/** Commands whose durations are shown, and what Rates calls them. */
const TIMED = [
  ['readLatency', NBD_CMD_READ],
  ['writeLatency', NBD_CMD_WRITE],
  ['flushLatency', NBD_CMD_FLUSH],
] as const

/** Bytes read and written, requests, then requests and seconds of each of TIMED: all only ever grow. */
const SUMS = 3 + 2 * TIMED.length

function sumsOf(counters: Counters): number[] {
  const sums = [counters[READ_BYTES_AT] ?? 0, counters[WRITTEN_BYTES_AT] ?? 0, 0]
  for (let command = 0; command < COMMANDS; command++) sums[2] = (sums[2] ?? 0) + requestsOf(counters, command)
  for (const [, command] of TIMED) sums.push(...timed(counters, command))
  return sums
}

/** How many requests were timed, and their seconds, whatever they came to. */
function timed(counters: Counters, command: number): [requests: number, seconds: number] {
  let [requests, seconds] = [0, 0]
  for (let outcome = 0; outcome < OUTCOMES.length; outcome++) {
    const at = latencyAt(commandIndex(command) * OUTCOMES.length + outcome)
    for (let bucket = 0; bucket < LATENCY_SUM_AT; bucket++) requests += counters[at + bucket] ?? 0
    seconds += counters[at + LATENCY_SUM_AT] ?? 0
  }
  return [requests, seconds]
}

/** What a second brought, from the differences of the sums. */
function ratesOf(brought: readonly number[], errors: ReadonlyMap<string, number>): Rates {
  const [readBytes = 0, writtenBytes = 0, requests = 0, ...durations] = brought
  const latencies = TIMED.map(([name], index) => {
    const [count = 0, seconds = 0] = durations.slice(2 * index)
    return [name, count > 0 ? Math.max(0, seconds) / count : 0] as const
  })
  const failed = [...errors.values()].reduce((sum, number) => sum + number, 0)
  return { ...NO_RATES, ...Object.fromEntries(latencies), readBytes, writtenBytes, requests, errors: failed }
}

/** Errors of one kind on one export. */
export interface ErrorEpisode {
  readonly command: string
  readonly errno: string
  /** Since the server began. */
  total: number
  /** In this episode, which began at `since` and was last added to at `last`: ms since the epoch. */
  count: number
  since: number
  last: number
}

/** Second for second, oldest first; times are seconds since the epoch. */
export interface Series {
  readonly times: number[]
  readonly readBytes: number[]
  readonly writtenBytes: number[]
  readonly requests: number[]
  readonly readLatency: number[]
  readonly writeLatency: number[]
  readonly flushLatency: number[]
  /** Errors by errno. */
  readonly errors: Readonly<Record<string, number[]>>
}

class Track {
  readonly #seconds: Rates[] = []
  readonly #errorSeconds = new Map<string, number[]>()
  readonly episodes = new Map<number, ErrorEpisode>()
  #before: readonly number[] | undefined
  latest: Rates = NO_RATES

  /** One more second of these sums, and errors by errno. */
  push(rates: Rates, errors: ReadonlyMap<string, number>): void {
    this.latest = rates
    this.#seconds.push(rates)
    if (this.#seconds.length > HISTORY_SECONDS) this.#seconds.shift()
    for (const errno of errors.keys()) this.#chart(errno)
    for (const [errno, counts] of this.#errorSeconds) {
      counts.push(errno === OTHER ? this.#others(errors) : (errors.get(errno) ?? 0))
      if (counts.length > HISTORY_SECONDS) counts.shift()
      if (counts.every((count) => count === 0)) this.#errorSeconds.delete(errno)
    }
  }

  #chart(errno: string): void {
    if (this.#errorSeconds.has(errno)) return
    const name = this.#errorSeconds.size >= ERRNOS_CHARTED_MAX ? OTHER : errno
    if (!this.#errorSeconds.has(name)) this.#errorSeconds.set(name, Array(this.#seconds.length - 1).fill(0))
  }

  #others(errors: ReadonlyMap<string, number>): number {
    let sum = 0
    for (const [errno, count] of errors) if (!this.#errorSeconds.has(errno)) sum += count
    return sum
  }

  /** Looks at an export's counters; returns what the second brought. */
  sample(counters: Counters, now: number): { brought: readonly number[]; errors: ReadonlyMap<string, number> } {
    const sums = sumsOf(counters)
    const isAnother = this.#before?.some((sum, index) => sum > (sums[index] ?? 0)) ?? false
    // One that was removed came back under its name, and counts from the start.
    if (isAnother) this.episodes.clear()
    const before = isAnother ? sums : (this.#before ?? sums)
    this.#before = sums
    const errors = this.#sampleErrors(counters, now)
    const brought = sums.map((sum, index) => sum - (before[index] ?? 0))
    this.push(ratesOf(brought, errors), errors)
    return { brought, errors }
  }

  #sampleErrors(counters: Counters, now: number): ReadonlyMap<string, number> {
    const errors = new Map<string, number>()
    for (let kind = 0; kind <= KINDS; kind++) {
      const total = countOf(counters, kind)
      if (total === 0) continue
      const known = this.episodes.get(kind)
      const more = total - (known?.total ?? 0)
      if (more === 0) continue
      const { command, errno } = namesOf(kind)
      errors.set(errno, (errors.get(errno) ?? 0) + more)
      const goesOn = known !== undefined && now - known.last < EPISODE_GAP_MS
      const { since, count } = goesOn ? known : { since: now, count: 0 }
      this.episodes.set(kind, { command, errno, total, count: count + more, since, last: now })
    }
    return errors
  }

  series(now: number): Series {
    const last = Math.floor(now / 1000)
    const of = (key: keyof Rates) => this.#seconds.map((rates) => rates[key])
    return {
      times: this.#seconds.map((_, index) => last - this.#seconds.length + 1 + index),
      readBytes: of('readBytes'),
      writtenBytes: of('writtenBytes'),
      requests: of('requests'),
      readLatency: of('readLatency'),
      writeLatency: of('writeLatency'),
      flushLatency: of('flushLatency'),
      errors: Object.fromEntries(this.#errorSeconds),
    }
  }
}

export class Watch {
  readonly fillings = new Fillings()
  readonly #all = new Track()
  #tracks = new Map<string, Track>()
  #sampledAt = Date.now()

  /** Called once a second. */
  sample(observed: Observed, now = Date.now()): void {
    this.fillings.sample(observed, now)
    this.#sampledAt = now
    const tracks = new Map<string, Track>()
    const sums: number[] = Array(SUMS).fill(0)
    const allErrors = new Map<string, number>()
    for (const { name, counters } of observed.exports) {
      const track = this.#tracks.get(name) ?? new Track()
      tracks.set(name, track)
      const { brought, errors } = track.sample(counters, now)
      for (const [index, number] of brought.entries()) sums[index] = (sums[index] ?? 0) + number
      for (const [errno, count] of errors) allErrors.set(errno, (allErrors.get(errno) ?? 0) + count)
    }
    this.#tracks = tracks
    this.#all.push(ratesOf(sums, allErrors), allErrors)
  }

  get rates(): Rates {
    return this.#all.latest
  }

  ratesOf({ name }: ObservedExport): Rates {
    return this.#tracks.get(name)?.latest ?? NO_RATES
  }

  /** Errors since the server began, by command and errno. */
  errorsOf({ name }: ObservedExport): readonly ErrorEpisode[] {
    return [...(this.#tracks.get(name)?.episodes.values() ?? [])]
  }

  /** Of one export, or of all together; undefined for an export that is not there. */
  series(name?: string): Series | undefined {
    return name === undefined ? this.#all.series(this.#sampledAt) : this.#tracks.get(name)?.series(this.#sampledAt)
  }
}
