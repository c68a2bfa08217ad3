// Everything that must not outlive the benchmark: child processes and temporary folders. Whatever way the process
// ends, the exit handler kills the ones and removes the others; a signal is turned into an exit.

import type { ChildProcess } from 'node:child_process'
import { rmSync } from 'node:fs'
import { constants } from 'node:os'

const children = new Set<ChildProcess>()
const folders = new Set<string>()

export function watchExit(): void {
  process.on('exit', clear)
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => process.exit(128 + constants.signals[signal]))
  }
}

export function keepChild(child: ChildProcess): void {
  children.add(child)
  child.once('close', () => children.delete(child))
}

export function keepFolder(folder: string): void {
  folders.add(folder)
}

function clear(): void {
  for (const child of children) child.kill('SIGKILL')
  // A child that is just dying may still create a file: rmSync tries again when a folder is not empty after all.
  for (const folder of folders) rmSync(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 })
}
