// What is wrong, in words that somebody who has never seen candor can act on: what, where, since when, and what to do.
// Law: nothing is said that the numbers do not tell.
import { dirname } from 'node:path'
import { type ErrorView, type ExportView, FRESH_MS, REFUSED } from './overview.js'

/** broken: data or durability is at stake now; waiting: guests stand still; warning: look at it; notice: it was so. */
export const SEVERITIES = ['broken', 'waiting', 'warning', 'notice'] as const
export type Severity = (typeof SEVERITIES)[number]

export interface Problem {
  readonly severity: Severity
  /** Absent where it is the server's own. */
  readonly export?: string
  /** What is wrong, in a few words. */
  readonly title: string
  readonly since?: string
  /** When it was seen last, where it comes and goes. */
  readonly last?: string
  /** Sentences: what it means for the guest. */
  readonly detail: string
  /** Sentences: what to do. */
  readonly remedy: string
  /** What to type, where that helps. */
  readonly command?: string
  /** Where it is explained, as a path of this server. */
  readonly help: string
}

interface Cause {
  readonly title: string
  readonly remedy: (path: string) => string
  readonly help: string
}

const HELP = '/docs/errors'
const FULL_HELP = `${HELP}#out-of-space`
const TABLE_HELP = `${HELP}#what-each-error-means-what-the-guest-sees-and-what-to-do`

const freeSpace = (path: string) =>
  `Free space on the file system of ${path}, or enlarge it. Later writes succeed by themselves; those that failed are lost to the guest unless it repeats them.`

/** By the host's errno; whatever else there is has the last row. */
const CAUSES: Readonly<Record<string, Cause>> = {
  ENOSPC: { title: "the host's disk is full", remedy: freeSpace, help: FULL_HELP },
  EDQUOT: {
    title: "the host's quota is used up",
    remedy: (path) => `Raise the quota for ${path}. Later writes succeed by themselves.`,
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
    remedy: (path) => `Look at the host's kernel log, repair the file system of ${path} and mount it again.`,
    help: TABLE_HELP,
  },
}
const ANY_CAUSE: Cause = {
  title: 'the host cannot read or write it',
  remedy: (path) =>
    `Look at the host's kernel log (dmesg) for errors of the device under ${path}; replace it if it fails.`,
  help: TABLE_HELP,
}
function plural(count: number, one: string): string {
  return `${count.toLocaleString('en')} ${one}${count === 1 ? '' : 's'}`
}

const UNITS = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const

function bytes(count: number): string {
  let value = count
  let unit = 'bytes'
  for (const larger of UNITS) {
    if (value < 1024) break
    value /= 1024
    unit = larger
  }
  return `${Number(value.toFixed(1))} ${unit}`
}

function detached({ name, path, stateSince }: ExportView): Problem {
  return {
    severity: 'broken',
    export: name,
    title: 'its image was removed or replaced on the host',
    ...(stateSince !== undefined && { since: stateSince }),
    detail: `candor still holds the old file open, but ${path} is another one now, or none. FLUSH fails, and what is written is gone when candor ends.`,
    remedy: 'Do not stop candor yet. Copy the disk through it to a safe place first, then serve the copy.',
    command: `nbdcopy nbd://…/${name} rescued.img`,
    help: `${HELP}#states-of-an-export`,
  }
}

function degraded({ name, path, stateSince, stateErrno, suspectBytes }: ExportView): Problem {
  const lost =
    suspectBytes === 0
      ? ''
      : ` ${bytes(suspectBytes)} may be lost: they read as errors until the guest writes them again.`
  return {
    severity: 'broken',
    export: name,
    title: `writes that were acknowledged may be lost${stateErrno === undefined ? '' : ` (${stateErrno})`}`,
    ...(stateSince !== undefined && { since: stateSince }),
    detail: `The host took writes and could not keep them, or somebody cut the image short: the log says which.${lost} FLUSH fails on every connection until an operator resumes.`,
    remedy: `Mend the storage under ${path} (the kernel log tells what failed). Then type the command below; it syncs, and ends this state if that succeeds. Check the guest's file system.`,
    command: `candor ctl resume ${name}`,
    help: `${HELP}#states-of-an-export`,
  }
}

function held({ name, path, held: count, heldSince }: ExportView): Problem {
  return {
    severity: 'waiting',
    export: name,
    title: `the host's disk is full; ${plural(count, 'write')} ${count === 1 ? 'waits' : 'wait'} for space`,
    ...(heldSince !== undefined && { since: heldSince }),
    detail:
      'The guest stands still where it writes to new places. Reads and overwrites go on. Nothing is lost so far; a write that waits too long fails with ENOSPC.',
    remedy: `Free space on the file system of ${path}, or enlarge it: the writes then go on by themselves. To let them fail instead, type the command below.`,
    command: `candor ctl hold-fail ${name}`,
    help: FULL_HELP,
  }
}

function hanging({ name, path, oldestRequestSeconds, inFlight }: ExportView, now: number): Problem {
  return {
    severity: 'waiting',
    export: name,
    title: 'its storage does not answer',
    since: new Date(now - oldestRequestSeconds * 1000).toISOString(),
    detail: `${inFlight > 1 ? `The oldest of ${inFlight} requests` : 'A request'} has been with the host for ${Math.round(oldestRequestSeconds)} s. The guest waits; other disks go on.`,
    remedy: `Look at the device, network or server under ${dirname(path)}: a frozen file system (fsfreeze), a dead NFS server, a failing disk.`,
    help: `${HELP}#storage-that-does-not-answer`,
  }
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

function counted(errors: readonly ErrorView[], errno: string): string {
  const parts = errors.map(({ command, recent }) => plural(recent.count, command.replace('_', ' ')))
  return `${parts.join(' and ')} failed with ${errno}`
}

function failed({ name, path }: ExportView, errno: string, errors: readonly ErrorView[], now: number): Problem {
  const last = latest(errors)
  const fresh = now - Date.parse(last) < FRESH_MS
  const refused = REFUSED.has(errno)
  const cause = refused
    ? {
        title: 'a client asked for what it may not have',
        help: TABLE_HELP,
        remedy: () => 'Look at the client: these requests were refused before storage was asked.',
      }
    : (CAUSES[errno] ?? ANY_CAUSE)
  const title = fresh || refused ? cause.title : `${cause.title.replace(' is ', ' was ')}, earlier`
  const told = refused ? '' : ' The guest was told. The map and the list of failed requests show where.'
  return {
    severity: refused ? 'notice' : fresh ? 'broken' : 'notice',
    export: name,
    title,
    since: earliest(errors),
    last,
    detail: `${counted(errors, errno)}.${told}`,
    remedy:
      fresh || refused
        ? cause.remedy(path)
        : "No request has failed for a minute. Check the guest's file system: what failed was not written.",
    ...(!refused && { command: `candor errors ${name}` }),
    help: cause.help,
  }
}

function failures(view: ExportView, now: number): Problem[] {
  const byErrno = new Map<string, ErrorView[]>()
  for (const error of view.errors) byErrno.set(error.errno, [...(byErrno.get(error.errno) ?? []), error])
  // A degraded or detached export refuses FLUSHes and reads because of what is told already.
  if (view.state !== 'ok') byErrno.delete('EIO')
  return [...byErrno].map(([errno, errors]) => failed(view, errno, errors, now))
}

function warnings({ name, injectionRules, uncleanEnd, state }: ExportView): Problem[] {
  const found: Problem[] = []
  if (injectionRules > 0) {
    found.push({
      severity: 'warning',
      export: name,
      title: 'errors are made up here: fault injection is on',
      detail: `${plural(injectionRules, 'rule')} ${injectionRules === 1 ? 'makes' : 'make'} requests fail on purpose, for tests of the guest.`,
      remedy: 'If nobody tests now, end it.',
      command: `candor ctl inject ${name} off`,
      help: `${HELP}#faults-on-purpose`,
    })
  }
  if (uncleanEnd && state === 'ok') {
    found.push({
      severity: 'notice',
      export: name,
      title: 'the last server of this image was killed, or its host went down',
      detail: 'What was left unsynced was synced at start, and that succeeded.',
      remedy: 'Nothing, unless the host itself went down: then check the guest’s file system.',
      help: `${HELP}#over-a-restart`,
    })
  }
  return found
}

/** What is wrong with one export. */
export function problemsOf(view: ExportView, now: number): Problem[] {
  const state = view.state === 'detached' ? [detached(view)] : view.state === 'degraded' ? [degraded(view)] : []
  const waiting = view.held > 0 ? [held(view)] : view.health === 'hanging' ? [hanging(view, now)] : []
  return [...state, ...waiting, ...failures(view, now), ...warnings(view)]
}

/** The server itself does not answer. */
export function stalled(lateMs: number): Problem {
  return {
    severity: 'waiting',
    title: 'candor itself stands still',
    since: new Date(Date.now() - lateMs).toISOString(),
    detail: `Its main thread has not run for ${Math.round(lateMs / 1000)} s; most likely it waits for storage that hangs.`,
    remedy: 'Look at the storage under the images: a frozen file system (fsfreeze), a dead NFS server, a failing disk.',
    help: `${HELP}#storage-that-does-not-answer`,
  }
}

/** Worst first; among equals what began first. */
export function ranked(problems: readonly Problem[]): Problem[] {
  const rank = ({ severity }: Problem) => SEVERITIES.indexOf(severity)
  return [...problems].sort((a, b) => rank(a) - rank(b) || (a.since ?? '').localeCompare(b.since ?? ''))
}
