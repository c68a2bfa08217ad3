// What is wrong, in words that somebody who has never seen candor can act on: what, where, since when, and what to do.
// Law: nothing is said that the numbers do not tell.
import { dirname } from 'node:path'
import type { ExportView } from './overview.js'
import { bytes, FULL_HELP, HELP, type Problem, plural, ranked } from './problem.js'
import { failures } from './problem-failures.js'
import { spaceProblems } from './problem-space.js'
import type { BackingView } from './space-view.js'

const STATES_HELP = `${HELP}#states-of-an-export`
const STEPS_HELP = `${HELP}#degraded-step-by-step`
const RECORD_HELP = `${HELP}#candorrecordfailed`

function since(time: string | undefined): { readonly since?: string } {
  return time === undefined ? {} : { since: time }
}

function notServed({ name, path, reason, stateSince }: ExportView): Problem {
  return {
    severity: 'broken',
    export: name,
    title: 'its image cannot be served',
    ...since(stateSince),
    detail: `The configuration names ${path}, and candor could not open it: ${reason}. Nobody can attach; the other exports go on.`,
    remedy:
      'Mend what the sentence names, then type the command below. To do without it, take it out of the file first.',
    command: 'candor ctl reload',
    help: STATES_HELP,
  }
}

function detached({ name, path, stateSince }: ExportView): Problem {
  return {
    severity: 'broken',
    export: name,
    title: 'its image was removed or replaced on the host',
    ...since(stateSince),
    detail: `candor still holds the image open, but ${path} leads to another file now, or to none. FLUSH fails, and what is written is gone when candor ends.`,
    remedy: `Do not stop candor. Was the image moved? Put it back under its path (the file itself, not a copy) and say: candor ctl resume ${name}. Was it removed? Copy the disk through candor first, as below, then serve the copy.`,
    command: `nbdcopy nbd://…/${name} rescued.img`,
    help: STATES_HELP,
  }
}

const LOST = 'they read as errors until the guest writes them again.'

function degraded({ name, path, stateSince, stateErrno, suspectBytes, releasedSince }: ExportView): Problem {
  const lost = suspectBytes === 0 ? '' : ` ${bytes(suspectBytes)} may be lost: ${LOST}`
  const pool = stateErrno === 'ENOSPC' ? ' No space was left below its file system, such as in a thin pool.' : ''
  const readOnly = `If its file system became read-only or shut down, say candor ctl release ${name} first, and mount it anew.`
  return {
    severity: 'broken',
    export: name,
    title: `writes that were acknowledged may be lost${stateErrno === undefined ? '' : ` (${stateErrno})`}`,
    ...since(stateSince),
    detail: `The host took writes and could not keep them, or somebody cut the image short: the log says which.${lost} FLUSH fails on every connection until an operator resumes.`,
    remedy: `Mend the storage under ${path}: the host's kernel log tells what failed.${pool} ${releasedSince === undefined ? readOnly : 'It is released: mount its file system again.'} Then type the command below: it syncs, and ends this state if that succeeds. Check the guest's file system.`,
    command: `candor ctl resume ${name}`,
    help: STEPS_HELP,
  }
}

function released({ name, path, releasedSince, inFlight }: ExportView): Problem {
  const waiting = inFlight === 0 ? 'No request waits yet.' : `${plural(inFlight, 'request')} wait.`
  return {
    severity: 'waiting',
    export: name,
    title: 'an operator has let go of the image; requests wait',
    ...since(releasedSince),
    detail: `candor has closed ${path}, so that its file system can be unmounted and mended. Guests stand still, and nothing fails meanwhile. ${waiting} No time-out ends this.`,
    remedy:
      'When the file system is mounted again, type the command below. It opens the same image, and what waits goes on.',
    command: `candor ctl resume ${name}`,
    help: STEPS_HELP,
  }
}

function held({ name, path, held: count, heldSince, reserve }: ExportView): Problem {
  const why = reserve > 0 ? 'free space is down to the reserve' : "the host's disk is full"
  const lower = reserve > 0 ? `The export leaves ${bytes(reserve)} free (--reserve). ` : ''
  return {
    severity: 'waiting',
    export: name,
    title: `${why}; ${plural(count, 'write')} ${count === 1 ? 'waits' : 'wait'} for space`,
    ...since(heldSince),
    detail: `${lower}The guest stands still where it writes to new places. Reads and overwrites go on. Nothing is lost so far; a write that waits too long fails with ENOSPC.`,
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
    detail: `${inFlight > 1 ? `The oldest of ${inFlight} requests` : 'A request'} has been with the host for ${Math.round(oldestRequestSeconds)} s. The guest waits; exports on other devices go on.`,
    remedy: `Look at the device, network or server under ${dirname(path)}: a frozen file system (fsfreeze), a dead NFS server, a failing disk.`,
    help: `${HELP}#storage-that-does-not-answer`,
  }
}

function recordFailed({ name }: ExportView): Problem {
  return {
    severity: 'broken',
    export: name,
    title: 'its record in the state directory cannot be written',
    detail: 'candor could not keep its word over a restart, so every request is answered with EIO.',
    remedy: 'Mend the file system of the state directory (--state-dir), then start candor again.',
    help: RECORD_HELP,
  }
}

/** Of an export that is not degraded any more: its state tells it otherwise. */
function suspect({ name, suspectBytes }: ExportView): Problem {
  return {
    severity: 'warning',
    export: name,
    title: `${bytes(suspectBytes)} may be lost`,
    detail: `A sync had failed; an operator has resumed since. What the guest has not rewritten is on the map, and reads as errors until it does.`,
    remedy:
      'Let the guest check and repair its file system. If you restored the image from a backup instead, type the command below.',
    command: `candor ctl forget ${name}`,
    help: STEPS_HELP,
  }
}

function injecting({ name, injectionRules }: ExportView): Problem {
  return {
    severity: 'warning',
    export: name,
    title: 'errors are made up here: fault injection is on',
    detail: `${plural(injectionRules, 'rule')} ${injectionRules === 1 ? 'makes' : 'make'} requests fail or wait on purpose, for tests of the guest.`,
    remedy: 'If nobody tests now, end it.',
    command: `candor ctl inject ${name} off`,
    help: `${HELP}#faults-on-purpose`,
  }
}

function ledgerLost({ name, ledgerLost: count }: ExportView): Problem {
  return {
    severity: 'warning',
    export: name,
    title: 'where requests fail cannot be written down',
    detail: `The places of ${plural(count, 'failed request')} are not in the ledger, because the state directory cannot be written. They are counted all the same.`,
    remedy: 'Make room in the state directory (--state-dir).',
    help: `${HELP}#candorledgerfailed`,
  }
}

function uncleanEnd({ name }: ExportView): Problem {
  return {
    severity: 'notice',
    export: name,
    title: 'the last server of this image was killed, or its host went down',
    detail: 'What was left unsynced was synced at start, and that succeeded.',
    remedy: 'Nothing, unless the host itself went down: then check the guest’s file system.',
    help: `${HELP}#over-a-restart`,
  }
}

/** What is wrong with one export. */
export function problemsOf(view: ExportView, now: number): Problem[] {
  const found: Problem[] = []
  const say = (isSo: boolean, problem: (view: ExportView, now: number) => Problem) => {
    if (isSo) found.push(problem(view, now))
  }
  say(view.state === 'failed', notServed)
  say(view.state === 'detached', detached)
  say(view.state === 'degraded', degraded)
  say(view.recordFailed, recordFailed)
  say(view.releasedSince !== undefined, released)
  say(view.held > 0, held)
  say(view.health === 'hanging', hanging)
  found.push(...failures(view, now))
  say(view.suspectBytes > 0 && view.state !== 'degraded', suspect)
  say(view.injectionRules > 0, injecting)
  say(view.ledgerLost > 0, ledgerLost)
  say(view.uncleanEnd && view.state === 'ok', uncleanEnd)
  return found
}

/** All that is wrong, worst first. */
export function allProblems(views: readonly ExportView[], backings: readonly BackingView[], now: number): Problem[] {
  return ranked([...views.flatMap((view) => problemsOf(view, now)), ...spaceProblems(backings, views, now)])
}

/** The server itself does not answer. */
export function stalled(lateMs: number): Problem {
  return {
    severity: 'waiting',
    title: "candor's main thread stands still",
    since: new Date(Date.now() - lateMs).toISOString(),
    detail: `It has not run for ${Math.round(lateMs / 1000)} s: nobody can attach, and candor ctl does not answer. Guests that are attached go on.`,
    remedy: 'Look at the load of the host, and at what the process waits for: cat /proc/PID/task/*/stack.',
    help: `${HELP}#candorstalled`,
  }
}
