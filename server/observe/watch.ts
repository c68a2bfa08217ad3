// What happened lately, from the shared counters: once a second their differences are kept for the charts, and for each
// kind of error when it began and when it was seen last. Runs in the HTTP thread; memory is bounded by export.
import { COMMANDS, commandName } from 'nbd-protocol'
import { ERRNOS, errnoName } from '../../backends/index.js'
import { type Counters, ERRORS_AT, READ_BYTES_AT, REQUESTS_AT, WRITTEN_BYTES_AT } from './counters.js'
import type { Observed, ObservedExport } from './family.js'

/** Seconds that the charts go back. */
export const HISTORY_SECONDS = 300
/** Errors that come after a longer silence are a new episode. */
const EPISODE_GAP_MS = 10 * 60_000
/** Kinds of errors, by errno, that are told apart in the charts; more share "other". */
const ERRNOS_CHARTED_MAX = 8
const OTHER = 'other'

/** Of one second, or of a sum of exports in it. */
export interface Rates {
  readonly readBytes: number
  readonly writtenBytes: number
  readonly requests: number
  readonly errors: number
}

const NO_RATES: Rates = { readBytes: 0, writtenBytes: 0, requests: 0, errors: 0 }

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
  sample(counters: Counters, now: number): { rates: Rates; errors: ReadonlyMap<string, number> } {
    const sums = [READ_BYTES_AT, WRITTEN_BYTES_AT].map((at) => counters[at] ?? 0)
    let requests = 0
    for (let at = REQUESTS_AT; at < REQUESTS_AT + COMMANDS; at++) requests += counters[at] ?? 0
    const before = this.#before ?? [...sums, requests]
    this.#before = [...sums, requests]
    const errors = this.#sampleErrors(counters, now)
    const [readBytes = 0, writtenBytes = 0, count = 0] = this.#before.map((sum, index) => sum - (before[index] ?? 0))
    const failed = [...errors.values()].reduce((sum, number) => sum + number, 0)
    const rates = { readBytes, writtenBytes, requests: count, errors: failed }
    this.push(rates, errors)
    return { rates, errors }
  }

  #sampleErrors(counters: Counters, now: number): ReadonlyMap<string, number> {
    const errors = new Map<string, number>()
    for (let at = 0; at < COMMANDS * ERRNOS; at++) {
      const total = counters[ERRORS_AT + at] ?? 0
      if (total === 0) continue
      const known = this.episodes.get(at)
      const more = total - (known?.total ?? 0)
      if (more === 0) continue
      const errno = errnoName(at % ERRNOS)
      errors.set(errno, (errors.get(errno) ?? 0) + more)
      const goesOn = known !== undefined && now - known.last < EPISODE_GAP_MS
      const command = commandName(Math.floor(at / ERRNOS))
      const { since, count } = goesOn ? known : { since: now, count: 0 }
      this.episodes.set(at, { command, errno, total, count: count + more, since, last: now })
    }
    return errors
  }

  series(now: number): Series {
    const last = Math.floor(now / 1000)
    return {
      times: this.#seconds.map((_, index) => last - this.#seconds.length + 1 + index),
      readBytes: this.#seconds.map(({ readBytes }) => readBytes),
      writtenBytes: this.#seconds.map(({ writtenBytes }) => writtenBytes),
      requests: this.#seconds.map(({ requests }) => requests),
      errors: Object.fromEntries(this.#errorSeconds),
    }
  }
}

export class Watch {
  readonly #all = new Track()
  #tracks = new Map<string, Track>()
  #sampledAt = Date.now()

  /** Called once a second. */
  sample({ exports }: Observed, now = Date.now()): void {
    this.#sampledAt = now
    const tracks = new Map<string, Track>()
    const sum = { ...NO_RATES } as { -readonly [Key in keyof Rates]: number }
    const allErrors = new Map<string, number>()
    for (const { name, counters } of exports) {
      const track = this.#tracks.get(name) ?? new Track()
      tracks.set(name, track)
      const { rates, errors } = track.sample(counters, now)
      for (const key of Object.keys(sum) as (keyof Rates)[]) sum[key] += rates[key]
      for (const [errno, count] of errors) allErrors.set(errno, (allErrors.get(errno) ?? 0) + count)
    }
    this.#tracks = tracks
    this.#all.push(sum, allErrors)
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
