// A server that is upgraded, and its successors: which process serves, until the last of them has ended. Law: none of them
// outlives the scope.
import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import type { UpgradeResult } from '../../server/upgrade/upgrading.js'
import type { Ended } from './candor.js'
import { type Controlled, control, folderOf } from './controlled.js'
import type { Scope } from './faults.js'

const POLL_MS = 5
const PATIENCE_MS = 20_000

export interface Lineage extends Controlled {
  /** The process that serves. */
  readonly pid: number
  /** Everything moves to a new process; resolves when the old one is gone. */
  upgrade(): Promise<UpgradeResult>
  /** Asks for an upgrade that comes to nothing; returns why. */
  refused(): Promise<string>
  signal(signal: NodeJS.Signals): void
  /** SIGTERM to the process that serves, and the end of all of them. */
  stop(): Promise<Ended>
}

/** Whether a process is there, its remains not counted. */
export function lives(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

export async function untilGone(pid: number): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS
  while (lives(pid)) {
    assert.ok(performance.now() < deadline, `process ${pid} does not end`)
    await pause(POLL_MS)
  }
}

export function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch {
    // It has ended.
  }
}

/** A server in a folder of its own, as `control` starts it. */
export async function startLineage(
  scope: Scope,
  makeWords: (folder: string) => readonly string[],
  options: { readonly wrapper?: (folder: string) => readonly string[] } = {},
): Promise<Lineage> {
  const folder = folderOf(scope)
  const words = makeWords(folder)
  const wrapper = options.wrapper?.(folder)
  const controlled = await control(scope, folder, { words, ...(wrapper && { wrapper }) })
  const { candor } = controlled
  let pid = candor.pid
  scope.after(() => {
    for (const each of pidsOf(candor.stderr())) kill(each, 'SIGKILL')
    kill(pid, 'SIGKILL')
  })
  return {
    ...controlled,
    get pid() {
      return pid
    },
    upgrade: async () => {
      const reply = await controlled.ask({ command: 'upgrade' })
      assert.ok(reply.ok, JSON.stringify(reply))
      const before = pid
      pid = (reply.result as UpgradeResult).pid
      await untilGone(before)
      return reply.result as UpgradeResult
    },
    refused: async () => {
      const reply = await controlled.ask({ command: 'upgrade' })
      assert.ok(!reply.ok, JSON.stringify(reply))
      return reply.error
    },
    signal: (signal) => kill(pid, signal),
    stop: () => {
      kill(pid, 'SIGTERM')
      return candor.ended
    },
  }
}

/** Every process that the log speaks of. */
export function pidsOf(stderr: string): number[] {
  return [...stderr.matchAll(/"pid":(\d+)/g)].map(([, pid]) => Number(pid))
}
