// A candor of the tests: the real program in a process of its own, started, watched, and never left behind.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The program under test, as `npm run build` made it. */
export const CANDOR_MAIN = fileURLToPath(new URL('../../server/main.js', import.meta.url))
const START_TIMEOUT_MS = 20_000

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunningCandor {
  readonly pid: number
  /** URIs as printed, exports outermost, listeners in order. */
  readonly uris: readonly string[]
  /** Undefined with --http off. */
  readonly httpUrl: string | undefined
  stderr(): string
  kill(signal: NodeJS.Signals): void
  /** Resolves when the process has ended, however that comes about. */
  readonly ended: Promise<Ended>
  /** SIGTERM, and the end; may be called again. */
  stop(): Promise<Ended>
  /** Samples of /metrics by name and labels as they are printed: 'candor_connections', 'x_total{export="a"}'. */
  metrics(): Promise<ReadonlyMap<string, number>>
}

/** A temporary folder with the promise to remove it. */
export function temporaryFolder(): { readonly path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), 'candor-test-'))
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}

/** Runs any candor command to its end. */
export async function runCandor(args: readonly string[]): Promise<Ended> {
  return watch(spawn(process.execPath, [CANDOR_MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })).ended
}

interface Watched {
  readonly ended: Promise<Ended>
  stdout(): string
  stderr(): string
}

function watch(child: ChildProcess): Watched {
  let stdout = ''
  let stderr = ''
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  const ended = once(child, 'close').then(([code, signal]) => ({
    code: code as number | null,
    signal: signal as NodeJS.Signals | null,
    stdout,
    stderr,
  }))
  return { ended, stdout: () => stdout, stderr: () => stderr }
}

/** What may be asked of the process beside candor's own arguments. */
export interface StartOptions {
  /** A program and its arguments in front of node, such as `strace -f -o FILE` or `prlimit --fsize=…`. */
  readonly wrapper?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
}

/** Which I/O engine the servers of this run use; theirs by default. `./test/run --all` runs every suite with each. */
const ENGINE = process.env['CANDOR_TEST_ENGINE'] ?? ''

function withDefaults(args: readonly string[], stateDirectory: string): string[] {
  const given = (flag: string) => args.some((arg) => arg === flag || arg.startsWith(`${flag}=`))
  return [
    ...args,
    ...(given('--state-dir') ? [] : ['--state-dir', stateDirectory]),
    ...(given('--http') ? [] : ['--http', '127.0.0.1:0']),
    ...(ENGINE === '' || given('--io-engine') ? [] : ['--io-engine', ENGINE]),
  ]
}

/**
 * Starts `candor ARGUMENTS` (`serve …`) and waits until it is ready. State directory, HTTP port and I/O engine are the
 * tests' own unless they are given. Rejects with what it printed when it ends before.
 */
export async function startCandor(args: readonly string[], options: StartOptions = {}): Promise<RunningCandor> {
  const state = temporaryFolder()
  const [program = process.execPath, ...rest] = [
    ...(options.wrapper ?? []),
    process.execPath,
    CANDOR_MAIN,
    ...withDefaults(args, state.path),
  ]
  const env = { ...process.env, ...options.env }
  const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'pipe'], env })
  const killOnExit = () => child.kill('SIGKILL')
  process.on('exit', killOnExit)
  const watched = watch(child)
  const ended = watched.ended.finally(() => {
    process.off('exit', killOnExit)
    state.remove()
  })
  await untilReady(child, watched)
  const stdout = watched.stdout()
  const httpUrl = /^metrics: (http:\S+)\/metrics$/m.exec(stdout)?.[1]
  return {
    pid: child.pid ?? 0,
    uris: [...stdout.matchAll(/^ {2}(nbd\S*)$/gm)].map((match) => match[1] ?? ''),
    httpUrl,
    stderr: watched.stderr,
    kill: (signal) => child.kill(signal),
    ended,
    stop: () => {
      child.kill('SIGTERM')
      return ended
    },
    metrics: () => scrape(httpUrl),
  }
}

async function untilReady(child: ChildProcess, watched: Watched): Promise<void> {
  const timer = setTimeout(() => child.kill('SIGKILL'), START_TIMEOUT_MS)
  try {
    await new Promise<void>((resolve, reject) => {
      child.stdout?.on('data', () => {
        if (/^ready/m.test(watched.stdout())) resolve()
      })
      child.on('error', reject)
      watched.ended.then(({ code, stdout, stderr }) =>
        reject(new Error(`candor ended with ${code} before it was ready:\n${stdout}${stderr}`)),
      )
    })
  } finally {
    clearTimeout(timer)
  }
}

async function scrape(httpUrl: string | undefined): Promise<ReadonlyMap<string, number>> {
  const text = await (await fetch(`${httpUrl}/metrics`)).text()
  const samples = new Map<string, number>()
  for (const line of text.split('\n')) {
    const match = /^([^#\s{]+(?:\{.*\})?) (\S+)$/.exec(line)
    if (match !== null) samples.set(match[1] ?? '', Number(match[2]))
  }
  return samples
}
