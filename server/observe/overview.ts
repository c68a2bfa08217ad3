// Each export as the API and the status page show it, read from the shared counters: no thread is asked, so that it is
// there also while storage hangs.
import { errnoName } from '../../backends/index.js'
import { STALLED_MS } from '../io/directory.js'
import {
  ALLOCATED_AT,
  type Counters,
  HELD_AT,
  HELD_SINCE_AT,
  IN_FLIGHT_AT,
  INJECTING_AT,
  LEDGER_LOST_AT,
  OBSERVED_STATES,
  OLDEST_SINCE_AT,
  READ_BYTES_AT,
  RECORD_FAILED_AT,
  RELEASED_SINCE_AT,
  RESERVE_AT,
  STATE_AT,
  STATE_ERRNO_AT,
  STATE_SINCE_AT,
  SUSPECT_BYTES_AT,
  UNCLEAN_AT,
  WRITTEN_BYTES_AT,
} from './counters.js'
import type { ObservedExport } from './family.js'
import type { ErrorEpisode, Rates, Watch } from './watch.js'

/** Storage that keeps a request for longer than this hangs. */
export const HUNG_MS = 10_000

/**
 * Worst first. `failed`: its image cannot be served; `released`: an operator has let go of the image, and requests wait for him; `hanging`: storage does not
 * answer; `held`: writes wait for space; `failing`: requests have failed within the last minute, because of storage or of
 * the reserve; `suspect`: something may be lost of an export that goes on.
 */
export const HEALTHS = [
  'failed',
  'detached',
  'degraded',
  'released',
  'hanging',
  'held',
  'failing',
  'suspect',
  'ok',
] as const
export type Health = (typeof HEALTHS)[number]

export interface ErrorView {
  readonly command: string
  readonly errno: string
  readonly total: number
  readonly recent: { readonly count: number; readonly since: string; readonly last: string }
}

export interface ExportView {
  readonly name: string
  readonly size: number
  readonly readOnly: boolean
  readonly path: string
  readonly health: Health
  /** Why it is not served; absent where it is. */
  readonly reason?: string
  /** The state alone, as `candor_export_state` tells it, with when it began and the errno that began it. */
  readonly state: string
  readonly stateSince?: string
  readonly stateErrno?: string
  /** Since when its image is let go of; absent while it is held. */
  readonly releasedSince?: string
  /** Its record cannot be written, so that every command is answered with EIO. */
  readonly recordFailed: boolean
  /** Failed requests whose places could not be written down. */
  readonly ledgerLost: number
  readonly uncleanEnd: boolean
  readonly suspectBytes: number
  readonly held: number
  readonly heldSince?: string
  readonly inFlight: number
  readonly oldestRequestSeconds: number
  readonly injectionRules: number
  /** The file system of the image; absent where nobody can say. */
  readonly device?: string
  /** Bytes of it that the image takes, and that the export leaves free. */
  readonly allocated: number
  readonly reserve: number
  readonly readBytes: number
  readonly writtenBytes: number
  readonly rates: Rates
  readonly errors: readonly ErrorView[]
}

function timeOf(ms: number): string {
  return new Date(ms).toISOString()
}

function errorView({ command, errno, total, count, since, last }: ErrorEpisode): ErrorView {
  return { command, errno, total, recent: { count, since: timeOf(since), last: timeOf(last) } }
}

function oldestMs(counters: Counters, now: number): number {
  const since = counters[OLDEST_SINCE_AT] ?? 0
  return since === 0 ? 0 : Math.max(0, now - since)
}

/** Errors that came later than this are going on. */
export const FRESH_MS = 60_000
/** Requests that were at fault themselves, and were refused before storage was asked. */
export const REFUSED: ReadonlySet<string> = new Set(['EINVAL', 'EPERM', 'ESHUTDOWN', 'ENOTSUP', 'EOPNOTSUPP'])

function pulseAge(pulse: Counters, now: number): number {
  return now - (pulse[0] ?? 0)
}

/** How long storage has kept the oldest request; a thread that stands still waits with the one it was about to hand on. */
function waitingMs({ counters, pulse }: ObservedExport, now: number): number {
  const stalled = pulseAge(pulse, now)
  return Math.max(oldestMs(counters, now), stalled > STALLED_MS ? stalled : 0)
}

function healthOf({ counters, pulse }: ObservedExport, errors: readonly ErrorEpisode[], now: number): Health {
  const state = OBSERVED_STATES[counters[STATE_AT] ?? 0] ?? 'ok'
  if (state !== 'ok') return HEALTHS.find((health) => health === state) ?? 'degraded'
  if ((counters[RELEASED_SINCE_AT] ?? 0) > 0) return 'released'
  if ((counters[HELD_AT] ?? 0) > 0) return 'held'
  if (oldestMs(counters, now) > HUNG_MS || pulseAge(pulse, now) > STALLED_MS) return 'hanging'
  const fails = (counters[RECORD_FAILED_AT] ?? 0) > 0
  if (fails || errors.some(({ errno, last }) => !REFUSED.has(errno) && now - last < FRESH_MS)) return 'failing'
  return (counters[SUSPECT_BYTES_AT] ?? 0) > 0 ? 'suspect' : 'ok'
}

/** One export, at this moment. */
export function exportView(observed: ObservedExport, watch: Watch, now = Date.now()): ExportView {
  const { name, size, readOnly, path, device, counters } = observed
  const at = (place: number) => counters[place] ?? 0
  const errors = watch.errorsOf(observed)
  const health = healthOf(observed, errors, now)
  const state = OBSERVED_STATES[at(STATE_AT)] ?? 'ok'
  return {
    name,
    size,
    readOnly,
    path,
    health,
    ...(observed.reason !== undefined && { reason: observed.reason }),
    state,
    ...(state !== 'ok' && at(STATE_SINCE_AT) > 0 && { stateSince: timeOf(at(STATE_SINCE_AT)) }),
    ...(state !== 'ok' && at(STATE_ERRNO_AT) > 0 && { stateErrno: errnoName(at(STATE_ERRNO_AT)) }),
    ...(at(RELEASED_SINCE_AT) > 0 && { releasedSince: timeOf(at(RELEASED_SINCE_AT)) }),
    recordFailed: at(RECORD_FAILED_AT) > 0,
    ledgerLost: at(LEDGER_LOST_AT),
    uncleanEnd: at(UNCLEAN_AT) > 0,
    suspectBytes: at(SUSPECT_BYTES_AT),
    held: at(HELD_AT),
    ...(at(HELD_AT) > 0 && at(HELD_SINCE_AT) > 0 && { heldSince: timeOf(at(HELD_SINCE_AT)) }),
    inFlight: at(IN_FLIGHT_AT),
    oldestRequestSeconds: waitingMs(observed, now) / 1000,
    injectionRules: at(INJECTING_AT),
    ...(device !== undefined && { device }),
    allocated: at(ALLOCATED_AT),
    reserve: at(RESERVE_AT),
    readBytes: at(READ_BYTES_AT),
    writtenBytes: at(WRITTEN_BYTES_AT),
    rates: watch.ratesOf(observed),
    errors: errors.map(errorView),
  }
}

/** All of them, those in trouble first and the others as they were given. */
export function allViews(exports: readonly ObservedExport[], watch: Watch, now = Date.now()): ExportView[] {
  const views = exports.map((observed) => exportView(observed, watch, now))
  return views.sort((a, b) => HEALTHS.indexOf(a.health) - HEALTHS.indexOf(b.health))
}
