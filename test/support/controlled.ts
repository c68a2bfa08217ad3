// A real server with its operator: `candor ctl` as people type it, and the same questions asked directly where a test has
// to wait for something. All of it is gone with the scope.
import assert from 'node:assert/strict'
import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { askServer } from '../../server/cli/ask-server.js'
import type { ControlReply, ControlRequest } from '../../server/control/export-actions.js'
import type { ExportSummary } from '../../server/control/export-summary.js'
import type { Session } from '../../server/nbd/guest.js'
import { type RunningCandor, type StartOptions, temporaryFolder } from './candor.js'
import { type CommandEnd, command, lastFirst, MIB, type Scope, serve } from './faults.js'

const POLL_MS = 20
const PATIENCE_MS = 20_000

export interface Controlled {
  readonly folder: string
  readonly state: string
  readonly candor: RunningCandor
  path(name: string): string
  uri(name: string): string
  /** `candor ctl WORDS`. */
  ctl(...words: readonly string[]): Promise<CommandEnd>
  /** The same, which has to succeed; returns its --json. */
  told<Result>(...words: readonly string[]): Promise<Result>
  ask(request: ControlRequest): Promise<ControlReply>
  summaries(): Promise<ExportSummary[]>
  summary(name: string): Promise<ExportSummary | undefined>
  sessions(): Promise<Session[]>
  /** The same server once more, after its end. */
  again(): Promise<Controlled>
}

export interface ControlledOptions extends StartOptions {
  /** Default: /metrics and /api on any port. */
  readonly words?: readonly string[]
  readonly listen?: string
}

/** A sparse file of so many bytes; returns its path. */
export function imageAt(path: string, size: number): string {
  writeFileSync(path, '')
  truncateSync(path, size)
  return path
}

/** Asks until the answer is as wanted. Fails when it never becomes so. */
export async function until<Value>(
  what: string,
  ask: () => Promise<Value>,
  wanted: (value: Value) => boolean,
): Promise<Value> {
  const deadline = Date.now() + PATIENCE_MS
  for (;;) {
    const value = await ask()
    if (wanted(value)) return value
    assert.ok(Date.now() < deadline, `${what}: still ${JSON.stringify(value)}`)
    await sleep(POLL_MS)
  }
}

/** A folder of a test, gone with its scope. */
export function folderOf(scope: Scope): string {
  const { path, remove } = temporaryFolder()
  scope.after(remove)
  return path
}

/** `candor serve WORDS` on a Unix socket in `folder`, with its state there too. */
export async function control(scope: Scope, folder: string, options: ControlledOptions): Promise<Controlled> {
  const state = join(folder, 'state')
  const listen = options.listen ?? `unix:${join(folder, 'nbd')}`
  const words = [...(options.words ?? []), '--state-dir', state]
  const own = words.includes('--config') ? [] : ['--listen', listen]
  const candor = await serve(scope, [...words, ...own], options)
  const ctl = (...asked: readonly string[]) => command(['ctl', ...asked, '--state-dir', state])
  const ask = async (request: ControlRequest): Promise<ControlReply> => {
    const reply = await askServer(state, request)
    assert.ok(reply !== undefined, 'no server answers')
    return reply
  }
  const result = async <Result>(request: ControlRequest): Promise<Result> => {
    const reply = await ask(request)
    assert.ok(reply.ok, JSON.stringify(reply))
    return reply.result as Result
  }
  const summaries = () => result<ExportSummary[]>({ command: 'exports' })
  return {
    folder,
    state,
    candor,
    path: (name) => join(folder, name),
    uri: (name) => `nbd+unix:///${encodeURIComponent(name)}?socket=${join(folder, 'nbd')}`,
    ctl,
    told: async (...asked) => {
      const { code, stdout, stderr } = await ctl(...asked, '--json')
      assert.equal(code, 0, `ctl ${asked.join(' ')}: ${stderr}`)
      return JSON.parse(stdout)
    },
    ask,
    summaries,
    summary: async (name) => (await summaries()).find((each) => each.name === name),
    sessions: () => result<Session[]>({ command: 'sessions' }),
    again: () => control(scope, folder, options),
  }
}

/** A server of two exports of 4 MiB, `a` and `b`. */
export async function twoExports(t: TestContext, ...words: readonly string[]): Promise<Controlled> {
  const scope = lastFirst(t)
  const folder = folderOf(scope)
  const images = ['a', 'b'].map((name) => `${name}=${imageAt(join(folder, name), 4 * MIB)}`)
  return control(scope, folder, { words: [...images, ...words] })
}
