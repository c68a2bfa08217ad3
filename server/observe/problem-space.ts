// File systems that run out, in words, before a guest hears of it. Law: what a guest has heard of already is told there,
// and sparse images that could outgrow their file system are no problem while it has room.
import type { ExportView } from './overview.js'
import { bytes, FULL_HELP, type Problem } from './problem.js'
import { isFresh } from './problem-failures.js'
import type { BackingView } from './space-view.js'
import { RESERVE } from './watch.js'

/** What falls for so long is no burst of writes. */
const TREND_MS = 60_000
/** Of what was seen longer ago nothing is said. */
const STALE_MS = 10_000
/** As the alert CandorSpaceLow has it. */
const LOW_SHARE = 0.05
const FOR_WANT_OF_SPACE: ReadonlySet<string> = new Set(['ENOSPC', RESERVE])

function isToldOf({ state, held, errors }: ExportView, now: number): boolean {
  if (state !== 'ok') return false
  const short = errors.filter(({ errno }) => FOR_WANT_OF_SPACE.has(errno))
  return held > 0 || (short.length > 0 && isFresh(short, now))
}

/** About 12 minutes for 745 seconds. */
function about(seconds: number): string {
  if (seconds < 100) return `${Math.max(1, Math.round(seconds))} s`
  if (seconds < 100 * 60) return `${Math.round(seconds / 60)} minutes`
  return `${Math.round(seconds / 3600)} hours`
}

function titleOf(backing: BackingView, now: number): string | undefined {
  const { device, mount, free, size, secondsUntilFull, fillingSince } = backing
  const name = mount === '' ? `the file system on device ${device}` : mount
  if (free === 0) return `${name} is full`
  const isTrend = fillingSince !== undefined && now - Date.parse(fillingSince) >= TREND_MS
  if (isTrend) return `${name} is filling: full in about ${about(secondsUntilFull ?? 0)} at this rate`
  return free / size < LOW_SHARE ? `${name} has only ${bytes(free)} left of ${bytes(size)}` : undefined
}

function spaceProblem(backing: BackingView, now: number): Problem | undefined {
  const { free, mayTake, overcommit, exports, fillingSince, looked } = backing
  const isKnown = now - Date.parse(looked) < STALE_MS
  const title = isKnown && overcommit > 0 ? titleOf(backing, now) : undefined
  if (title === undefined) return undefined
  const images = exports === 1 ? 'The image on it' : `The ${exports} images on it`
  return {
    severity: 'warning',
    title,
    ...(fillingSince !== undefined && { since: fillingSince }),
    detail: `${images} may still take ${bytes(mayTake)}; ${bytes(free)} are free. When nothing is left, writes to new places fail, or wait if --on-enospc says so.`,
    remedy: 'Enlarge the file system, move an image away, or let the guests trim (fstrim), which frees space here.',
    help: FULL_HELP,
  }
}

/** What may soon be wrong with the file systems. */
export function spaceProblems(backings: readonly BackingView[], views: readonly ExportView[], now: number): Problem[] {
  const told = new Set(views.filter((view) => isToldOf(view, now)).map(({ device }) => device))
  return backings.flatMap((backing) => (told.has(backing.device) ? [] : (spaceProblem(backing, now) ?? [])))
}
