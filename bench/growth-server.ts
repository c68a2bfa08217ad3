// The candor whose growth is measured: the real program in a process of its own, with a state directory that its caller names.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Client, connectClient } from 'nbd-protocol'
import { openStream, parseUri } from '../server/cli/connect.js'
import { keepChild } from './leftovers.js'
import { StartFailed } from './server-process.js'

const PROGRAM = fileURLToPath(new URL('../server/main.js', import.meta.url))
const STDERR_CHARACTERS_MAX = 4000
export const MIB = 2 ** 20
const MAP_CELLS = 1024

export interface Grown {
  /** From the start of the process to the line that says that it is ready. */
  readonly startMs: number
  readonly httpUrl: string
  attach(name: string): Promise<Client>
  /** The map of a whole export, as the status page asks for it; each with other cells, or the one before were given out again. */
  map(name: string, round: number): Promise<void>
  rssMiB(): number
  /** Processor time of all its threads so far. */
  cpuMs(): number
  stop(): Promise<void>
}

/** Serves the images under their names, with its socket and its state in `folder`. @throws StartFailed */
export async function startGrown(folder: string, images: readonly string[]): Promise<Grown> {
  const socket = join(folder, 'nbd')
  rmSync(socket, { force: true })
  const places = ['--listen', `unix:${socket}`, '--http', '127.0.0.1:0', '--state-dir', join(folder, 'state')]
  const began = performance.now()
  const child = spawn(process.execPath, [PROGRAM, 'serve', ...images, ...places], { stdio: ['ignore', 'pipe', 'pipe'] })
  keepChild(child)
  let [said, complained] = ['', '']
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complained = (complained + text).slice(-STDERR_CHARACTERS_MAX)
  })
  const ended = once(child, 'close')
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  while (!/^ready/m.test(said)) {
    await Promise.race([once(child.stdout, 'data'), ended])
    if (child.exitCode !== null || child.signalCode !== null) throw new StartFailed(`candor ended: ${complained}`)
  }
  const startMs = performance.now() - began
  const httpUrl = /^metrics: (http:\S+)\/metrics$/m.exec(said)?.[1] ?? ''
  const status = `/proc/${child.pid}/status`
  return {
    startMs,
    httpUrl,
    map: async (name, round) => {
      const reply = await fetch(`${httpUrl}/api/exports/${name}/map?cells=${MAP_CELLS - round}`)
      if (!reply.ok) throw new Error(`the map was answered with ${reply.status}: ${await reply.text()}`)
      await reply.arrayBuffer()
    },
    attach: async (name) => {
      const stream = await openStream(parseUri(`nbd+unix:///${name}?socket=${socket}`))
      return connectClient(stream, name, { contexts: ['base:allocation'] })
    },
    rssMiB: () => Number(/^VmRSS:\s*(\d+)/m.exec(readFileSync(status, 'utf8'))?.[1]) / 1024,
    cpuMs: () => threadsMs(child.pid ?? 0),
    stop: async () => {
      child.kill('SIGTERM')
      await ended
    },
  }
}

/** The first figure of each thread's schedstat (proc(5)), in nanoseconds: the ticks of stat are too coarse. */
function threadsMs(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`)
  const ran = threads.map((thread) =>
    Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ')[0]),
  )
  return ran.reduce((sum, ns) => sum + ns, 0) / 1e6
}

/** Milliseconds that each of `times` runs took. */
export async function timesOf(times: number, run: (index: number) => Promise<unknown>): Promise<number[]> {
  const taken: number[] = []
  for (let index = 0; index < times; index++) {
    const began = performance.now()
    await run(index)
    taken.push(performance.now() - began)
  }
  return taken
}
