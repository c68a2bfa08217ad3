// What the suites about failing storage share: clean-up in the right order, a served image with clients, its counters.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import type { TestContext } from 'node:test'
import { type Client, connectClient, type NegotiationWishes, RequestError } from 'nbd-protocol'
import { openStream, parseUri } from '../../server/cli/connect.js'
import { CANDOR_MAIN, type RunningCandor, type StartOptions, startCandor } from './candor.js'

export const KIB = 2 ** 10
export const MIB = 2 ** 20
const READ_BYTES = 4 * MIB

/** Something that ends, and cleans up then. */
export interface Scope {
  after(cleanUp: () => unknown): void
}

/** What came last goes first: a server before the file system under it. Every clean-up runs, whatever the others do. */
export function lastFirst(t: TestContext): Scope {
  const cleanUps: (() => unknown)[] = []
  t.after(async () => {
    const errors: unknown[] = []
    for (const cleanUp of cleanUps.reverse()) {
      try {
        await cleanUp()
      } catch (error) {
        errors.push(error)
      }
    }
    if (errors.length > 0) throw new AggregateError(errors, `clean-up failed: ${errors.map(String).join('; ')}`)
  })
  return { after: (cleanUp) => cleanUps.push(cleanUp) }
}

/** Not even a test process that is killed leaves a server behind, which would keep the file system under it. */
const DIE_TOGETHER = ['setpriv', '--pdeathsig', 'KILL', '--']

/** A running candor, gone with the scope however it ended. */
export async function serve(scope: Scope, args: readonly string[], options: StartOptions = {}): Promise<RunningCandor> {
  const wrapper = [...DIE_TOGETHER, ...(options.wrapper ?? [])]
  const candor = await startCandor(['serve', ...args, ...defaultListener(args)], { ...options, wrapper })
  scope.after(() => {
    candor.kill('SIGKILL')
    return candor.ended
  })
  return candor
}

function defaultListener(args: readonly string[]): string[] {
  return args.includes('--listen') || args.includes('--config') ? [] : ['--listen', 'tcp:127.0.0.1:0']
}

/** A client of the first export, or of the one whose URI is given. It goes away with its server. */
export async function attach(server: RunningCandor | string, wishes: NegotiationWishes = {}): Promise<Client> {
  const target = parseUri(typeof server === 'string' ? server : (server.uris[0] ?? ''))
  return connectClient(await openStream(target), target.exportName, wishes)
}

/** Asserts that a request is answered with this NBD error, and with an answer at all. */
export async function refused(request: Promise<unknown>, error: number): Promise<RequestError> {
  const failure = await request.then(
    () => assert.fail('the request succeeded'),
    (reason: unknown) => reason,
  )
  if (!(failure instanceof RequestError)) throw failure
  assert.equal(failure.error, error, failure.message)
  return failure
}

/** What /metrics says of failed requests. */
export async function errorsCounted(
  candor: RunningCandor,
  labels: { readonly export: string; readonly command: string; readonly errno: string },
): Promise<number> {
  const name = `candor_errors_total{export="${labels.export}",command="${labels.command}",errno="${labels.errno}"}`
  return (await candor.metrics()).get(name) ?? 0
}

/** The state that /metrics shows. */
export async function exportState(candor: RunningCandor, name: string): Promise<string | undefined> {
  const metrics = await candor.metrics()
  const states = ['ok', 'degraded', 'detached']
  return states.find((state) => metrics.get(`candor_export_state{export="${name}",state="${state}"}`) === 1)
}

/** The messages of the log so far that match. */
export function logged(candor: RunningCandor, pattern: RegExp): string[] {
  const lines = candor
    .stderr()
    .split('\n')
    .filter((line) => line.startsWith('{'))
  return lines.map((line) => (JSON.parse(line) as { msg: string }).msg).filter((message) => pattern.test(message))
}

/** A command that goes on serving was not refused, which its exit code then tells. */
const COMMAND_TIMEOUT_MS = 20_000

/** How a command of candor ended; `code` is null for one that had to be killed. */
export interface CommandEnd {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs a command of candor to its end, with a program such as `setpriv` in front of it if one is given. */
export async function command(args: readonly string[], wrapper: readonly string[] = []): Promise<CommandEnd> {
  const [program = '', ...rest] = [...wrapper, process.execPath, CANDOR_MAIN, ...args]
  const limits = { timeout: COMMAND_TIMEOUT_MS, killSignal: 'SIGKILL' } as const
  const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'pipe'], ...limits })
  const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
  return { code: code as number | null, stdout, stderr }
}

/** Bytes of which each page tells where it belongs and in which round it was written. */
export function stamped(offset: number, length: number, round = 0): Buffer {
  const bytes = Buffer.alloc(length)
  for (let at = 0; at < length; at += 4096) {
    const stamp = Buffer.alloc(16)
    stamp.writeBigUInt64BE(BigInt(offset + at), 0)
    stamp.writeBigUInt64BE(BigInt(round), 8)
    bytes.fill(stamp, at, Math.min(at + 4096, length))
  }
  return bytes
}

/** Asserts that a range, which begins on a page, holds what stamped() made. */
export async function assertHolds(client: Client, offset: number, length: number, round = 0): Promise<void> {
  for (let at = offset; at < offset + length; at += READ_BYTES) {
    const bytes = Math.min(READ_BYTES, offset + length - at)
    assert.equal(stamped(at, bytes, round).compare(await client.read(at, bytes)), 0, `the data at ${at} differ`)
  }
}

/** Asserts that a range reads as zeroes. */
export async function assertZero(client: Client, offset: number, length: number): Promise<void> {
  for (let at = offset; at < offset + length; at += READ_BYTES) {
    const bytes = Math.min(READ_BYTES, offset + length - at)
    assert.equal(Buffer.alloc(bytes).compare(await client.read(at, bytes)), 0, `there are no zeroes at ${at}`)
  }
}
