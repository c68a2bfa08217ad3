// Requests that failed, in words: one problem for each errno of the host, one for the operator's reserve.
import { type ErrorView, type ExportView, FRESH_MS, REFUSED } from './overview.js'
import { bytes, FULL_HELP, HELP, type Problem, plural } from './problem.js'
import { RESERVE } from './watch.js'

interface Cause {
  readonly title: string
  readonly remedy: (path: string) => string
  readonly help: string
}

const TABLE_HELP = `${HELP}#what-each-error-means-what-the-guest-sees-and-what-to-do`

const AGAIN = 'Later writes succeed by themselves; those that failed are lost to the guest unless it repeats them.'

/** By the host's errno; whatever else there is has the last row. */
const CAUSES: Readonly<Record<string, Cause>> = {
  ENOSPC: {
    title: "the host's disk is full",
    remedy: (path) => `Free space on the file system of ${path}, or enlarge it. ${AGAIN}`,
    help: FULL_HELP,
  },
  [RESERVE]: {
    title: 'free space is down to the reserve',
    remedy: (path) =>
      `Free space on the file system of ${path}, enlarge it, or start candor with a smaller --reserve. ${AGAIN}`,
    help: FULL_HELP,
  },
  EDQUOT: {
    title: "the host's quota is used up",
    remedy: (path) => `Raise the quota for ${path}. ${AGAIN}`,
    help: FULL_HELP,
  },
  EFBIG: {
    title: 'the image may not grow that far',
    remedy: (path) =>
      `Raise the limit on file sizes for candor (ulimit -f), or move ${path} to a file system that takes it.`,
    help: TABLE_HELP,
  },
  EROFS: {
    title: "the host's file system has become read-only",
    remedy: (path) =>
      `Look at the host's kernel log. Then let candor go of ${path} (the command below), repair its file system, mount it again, and say resume.`,
    help: `${HELP}#degraded-step-by-step`,
  },
}
const ANY_CAUSE: Cause = {
  title: 'the host cannot read or write it',
  remedy: (path) =>
    `Look at the host's kernel log (dmesg) for errors of the device under ${path}; replace it if it fails.`,
  help: TABLE_HELP,
}
const REQUEST_CAUSE: Cause = {
  title: 'a client asked for what it may not have',
  remedy: () => 'Look at the client: these requests were refused before storage was asked.',
  help: TABLE_HELP,
}

function earliest(errors: readonly ErrorView[]): string {
  return errors.map(({ recent }) => recent.since).sort()[0] ?? ''
}

function latest(errors: readonly ErrorView[]): string {
  return (
    errors
      .map(({ recent }) => recent.last)
      .sort()
      .at(-1) ?? ''
  )
}

/** Whether the last of them came within a minute. */
export function isFresh(errors: readonly ErrorView[], now: number): boolean {
  return now - Date.parse(latest(errors)) < FRESH_MS
}

function counted(errno: string, errors: readonly ErrorView[], { reserve }: ExportView): string {
  if (errno !== RESERVE) {
    const parts = errors.map(({ command, recent }) => plural(recent.count, command.replace('_', ' ')))
    return `${parts.join(' and ')} failed with ${errno}.`
  }
  const count = errors.reduce((sum, { recent }) => sum + recent.count, 0)
  const were = count === 1 ? 'that needed new space was' : 'that needed new space were'
  return `${plural(count, 'write')} ${were} refused with ENOSPC, because the export leaves ${bytes(reserve)} of its file system free (--reserve). Reads and overwrites go on.`
}

function detailOf(view: ExportView, errno: string, errors: readonly ErrorView[]): string {
  const words = [counted(errno, errors, view)]
  if (!REFUSED.has(errno)) words.push('The guest was told. The map and the list of failed requests show where.')
  return words.join(' ')
}

/** Nobody can tell a fault that is made up from one of storage: end the former, and see. */
function perhapsMadeUp(cause: Cause): Cause {
  return {
    ...cause,
    title: `${cause.title}, or fault injection makes it so`,
    remedy: (path) => `End the fault injection, as below. If requests go on failing: ${cause.remedy(path)}`,
  }
}

function commandFor({ name, injectionRules }: ExportView, errno: string, isOngoing: boolean): string {
  if (injectionRules > 0 && isOngoing) return `candor ctl inject ${name} off`
  return errno === 'EROFS' && isOngoing ? `candor ctl release ${name}` : `candor errors ${name}`
}

function failed(view: ExportView, errno: string, errors: readonly ErrorView[], now: number): Problem {
  const refused = REFUSED.has(errno)
  const fresh = isFresh(errors, now)
  const own = refused ? REQUEST_CAUSE : (CAUSES[errno] ?? ANY_CAUSE)
  const cause = view.injectionRules > 0 && fresh && !refused ? perhapsMadeUp(own) : own
  const isOngoing = fresh || refused
  return {
    severity: refused || !fresh ? 'notice' : 'broken',
    export: view.name,
    title: isOngoing ? cause.title : `${cause.title.replace(' is ', ' was ')}, earlier`,
    since: earliest(errors),
    last: latest(errors),
    detail: detailOf(view, errno, errors),
    remedy: isOngoing
      ? cause.remedy(view.path)
      : "No request has failed for a minute. Check the guest's file system: what failed was not written.",
    ...(!refused && { command: commandFor(view, errno, isOngoing) }),
    help: cause.help,
  }
}

/** FLUSHes, FUA and reads that a state, a lost range or a record that cannot be written refuses are no news of storage. */
function isOfState({ state, stateErrno, suspectBytes, recordFailed }: ExportView, error: ErrorView): boolean {
  const { command, errno } = error
  if (errno === 'EIO' && (suspectBytes > 0 || recordFailed)) return true
  return state !== 'ok' && (command === 'flush' || errno === 'EIO' || errno === stateErrno)
}

/** What failed of one export, but for what its state tells already. */
export function failures(view: ExportView, now: number): Problem[] {
  const byErrno = new Map<string, ErrorView[]>()
  for (const error of view.errors)
    if (!isOfState(view, error)) byErrno.set(error.errno, [...(byErrno.get(error.errno) ?? []), error])
  return [...byErrno].map(([errno, errors]) => failed(view, errno, errors, now))
}
