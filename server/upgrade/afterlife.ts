// The end of a process whose successor serves. Law: whoever speaks to this process means the service, so that signals go on
// to the process that serves; and who waits for this one learns how the service ended.
import { processDoor } from '../../backends/index.js'
import type { Successor } from './successor.js'
import type { Upgrading } from './upgrading.js'

const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR2'] as const
const LIVES = -1
const EXIT_UNKNOWN = 1
/** Where the end of a process that is no child is not told, it is looked for this often. */
const POLL_MS = 1000

/** The process that serves now, which may have its own successors. */
class Served {
  readonly #successor: Successor
  #pid: number

  constructor(successor: Successor) {
    this.#successor = successor
    this.#pid = successor.pid
    successor.channel.hear((message) => {
      if (message.kind !== 'successor') return
      this.#pid = message.pid
      successor.channel.mention({ kind: 'noted' })
    })
  }

  signal(signal: NodeJS.Signals): void {
    try {
      process.kill(this.#pid, signal)
    } catch {
      // It has ended, which whoever waits for it hears.
    }
  }

  /** Its exit code, or 128 and a signal's number. */
  async ended(): Promise<number> {
    for (;;) {
      await this.#successor.ended
      if (this.#pid === this.#successor.pid) return this.#successor.exitCode ?? EXIT_UNKNOWN
      const pid = this.#pid
      const code = await untilEnded(pid)
      if (pid === this.#pid) return code
    }
  }
}

/** A process that was started by one which has ended is a child of this one, which adopts orphans. */
async function untilEnded(pid: number): Promise<number> {
  for (;;) {
    const code = processDoor.waitChild(pid)
    if (code >= 0) return code
    if (code !== LIVES && !exists(pid)) return EXIT_UNKNOWN
    await new Promise<void>((resolve) => {
      const timer = setTimeout(done, POLL_MS)
      function done() {
        clearTimeout(timer)
        process.off('SIGCHLD', done)
        resolve()
      }
      process.on('SIGCHLD', done)
    })
  }
}

function exists(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

/** Resolves with the exit code of this process. `signal` came when the successor served already. */
export async function succeededBy(
  successor: Successor,
  upgrading: Upgrading,
  signal?: NodeJS.Signals,
): Promise<number> {
  // A successor's successor is told of to its parent alone, and its parent will have ended.
  if (upgrading.stays) processDoor.adoptOrphans()
  const served = new Served(successor)
  if (signal !== undefined) served.signal(signal)
  for (const each of FORWARDED) process.removeAllListeners(each).on(each, () => served.signal(each))
  const code = upgrading.stays ? await served.ended() : 0
  await upgrading.left
  return code
}
