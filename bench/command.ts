// Runs one short-lived program to its end and hands back what it said. It never rejects: a program that is missing,
// fails or takes too long is a value.

import { execFile } from 'node:child_process'
import { keepChild } from './leftovers.js'

export interface Finished {
  readonly ok: boolean
  readonly missing: boolean
  readonly timedOut: boolean
  readonly stdout: string
  readonly stderr: string
  readonly seconds: number
}

type Environment = Readonly<Record<string, string>>

/** `environment` is added to that of this process. */
export function run(
  file: string,
  args: readonly string[],
  cwd: string,
  timeoutMs = 10_000,
  environment: Environment = {},
): Promise<Finished> {
  return new Promise((resolve) => {
    const started = performance.now()
    const env = { ...process.env, ...environment }
    const settings = { cwd, env, timeout: timeoutMs, killSignal: 'SIGKILL', maxBuffer: 16 * 1024 ** 2 } as const
    const child = execFile(file, [...args], settings, (error, stdout, stderr) => {
      const missing = error?.code === 'ENOENT'
      const timedOut = error?.killed === true
      const seconds = (performance.now() - started) / 1000
      resolve({ ok: error === null, missing, timedOut, stdout, stderr, seconds })
    })
    keepChild(child)
  })
}

/** For one-line reports of a failure: the first line that speaks of an error, or else the last one. */
export function tellingLine(text: string): string {
  const lines = text.trim().split('\n')
  return (lines.find((line) => /error/i.test(line)) ?? lines.at(-1) ?? '').trim()
}
