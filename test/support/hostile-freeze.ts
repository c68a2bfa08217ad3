// Storage that does not answer for a while: a frozen file system. Law: it thaws when the test is over, also when the
// test's process is killed, since the freezing shell then reads the end of its standard input.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { STAND_BACK_MS } from '../../backends/sparse-file/stand-back.js'
import type { Scope } from './faults.js'

// The descriptor outlives a lazy unmount, which a path would not.
const SCRIPT =
  'exec 9<"$1" && fsfreeze --freeze /proc/self/fd/9 && echo frozen && read -r _; fsfreeze --unfreeze /proc/self/fd/9'

/** Freezes the file system that is mounted there; the result thaws it, and may be called again. What is written next meets it in the thread. */
export async function freeze(scope: Scope, folder: string): Promise<() => Promise<void>> {
  const shell = spawn('sh', ['-c', SCRIPT, 'sh', folder], { stdio: ['pipe', 'pipe', 'inherit'], detached: true })
  const ended = once(shell, 'close')
  const thaw = async (): Promise<void> => {
    shell.stdin.end()
    await ended
  }
  scope.after(thaw)
  const [said] = (await once(shell.stdout, 'data')) as [Buffer]
  assert.equal(said.toString(), 'frozen\n')
  // A write before that was slow, on a busy machine, sends those that follow it to the pool: they would hold no thread.
  await sleep(STAND_BACK_MS + 50)
  return thaw
}
