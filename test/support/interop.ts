// What the tests with other people's clients share. Law: a case is written once and run over TCP and over a Unix
// socket, each time with a server of its own, which has to be alive and to end cleanly when the case is over.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { type RunningCandor, type StartOptions, startCandor, temporaryFolder } from './candor.js'
import { needs } from './requirements.js'

export const MIB = 2 ** 20

export type Attachment = 'tcp' | 'unix'

const IN_WORDS: Readonly<Record<Attachment, string>> = { tcp: 'over TCP', unix: 'over a Unix socket' }
/** A reply that never comes must fail a test, not hang it. */
const TOOL_TIMEOUT_MS = 30_000
const TOOL_OUTPUT_BYTES_MAX = 64 * MIB

export interface ToolRun {
  /** null when the tool was killed at the time-out. */
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs a client to its end, whatever that is. */
export function runTool(program: string, args: readonly string[]): Promise<ToolRun> {
  const options = { timeout: TOOL_TIMEOUT_MS, killSignal: 'SIGKILL', maxBuffer: TOOL_OUTPUT_BYTES_MAX } as const
  return new Promise((resolve) => {
    const child = execFile(program, args, options, (error, stdout, stderr) => {
      const note = error === null || typeof error.code === 'number' ? '' : `\n${error.message}`
      resolve({ code: child.exitCode, stdout, stderr: `${stderr}${note}` })
    })
  })
}

/** Runs a client that has to succeed; returns its standard output. */
export async function useTool(program: string, args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await runTool(program, args)
  assert.equal(code, 0, `${program} ${args.join(' ')}\n${stdout}${stderr}`)
  return stdout
}

/** A server on one attachment, whose exports are asked for by name. */
export class Served {
  readonly candor: RunningCandor
  readonly #attachment: Attachment
  #stopped = false

  constructor(candor: RunningCandor, attachment: Attachment) {
    this.candor = candor
    this.#attachment = attachment
  }

  /** The URI as candor printed it. */
  uri(name: string): string {
    const found = this.candor.uris.find((uri) => new URL(uri).pathname === `/${name}`)
    assert.ok(found !== undefined, `candor printed no URI for '${name}': ${this.candor.uris.join(' ')}`)
    assert.match(found, this.#attachment === 'unix' ? /^nbd\+unix:\/\// : /^nbd:\/\/127\.0\.0\.1:[1-9]/)
    return found
  }

  /** The URI of a name that candor printed none for: the empty one, or an unknown one. */
  uriBeside(known: string, name: string): string {
    const uri = new URL(this.uri(known))
    uri.pathname = `/${name}`
    return uri.href
  }

  /** SIGTERM, and the end. Fails unless the exit code is 0: all that was written could be synced. */
  async stop(expectedCode = 0): Promise<void> {
    if (this.#stopped) return
    this.#stopped = true
    const { code, stderr } = await this.candor.stop()
    assert.equal(code, expectedCode, `candor ended with ${code}\n${stderr}`)
  }
}

/** What a case gets: a folder, and servers on the attachment that it runs on. */
export class InteropCase {
  readonly folder: string
  readonly #attachment: Attachment
  readonly #served: Served[] = []

  constructor(folder: string, attachment: Attachment) {
    this.folder = folder
    this.#attachment = attachment
  }

  path(name: string): string {
    return join(this.folder, name)
  }

  /** `candor serve WORDS`, on the attachment. Without HTTP, which few cases need, unless `--http` is among the words. */
  async serve(words: readonly string[], options?: StartOptions): Promise<Served> {
    const socket = this.path(`socket${this.#served.length}`)
    const listen = this.#attachment === 'unix' ? `unix:${socket}` : 'tcp:127.0.0.1:0'
    const http = words.includes('--http') ? [] : ['--http', 'off']
    const served = new Served(
      await startCandor(['serve', ...words, '--listen', listen, ...http], options),
      this.#attachment,
    )
    this.#served.push(served)
    return served
  }

  /** Ends every server; returns what was wrong with their ends. */
  async stop(): Promise<unknown[]> {
    const ends = await Promise.allSettled(this.#served.map((served) => served.stop()))
    return ends.flatMap((end) => (end.status === 'rejected' ? [end.reason] : []))
  }
}

async function runCase(attachment: Attachment, body: (scope: InteropCase) => Promise<void>): Promise<void> {
  const folder = temporaryFolder()
  const scope = new InteropCase(folder.path, attachment)
  const faults: unknown[] = []
  await body(scope).catch((fault: unknown) => faults.push(fault))
  faults.push(...(await scope.stop()))
  folder.remove()
  if (faults.length > 1) throw new AggregateError(faults, faults.map(String).join('\n'))
  if (faults.length === 1) throw faults[0]
}

export const eachAttachment = {
  /** A sentence without its full stop, the programs that the case needs, and the case. */
  test(title: string, programs: readonly string[], body: (scope: InteropCase) => Promise<void>): void {
    const skip = needs(...programs)
    for (const attachment of ['tcp', 'unix'] as const) {
      test(`${title}, ${IN_WORDS[attachment]}`, { skip }, () => runCase(attachment, body))
    }
  },
}
