// One running server: started, awaited at its socket, its processor time read, stopped.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { tellingLine } from './command.js'
import { keepChild } from './leftovers.js'
import { EXPORT, type Server } from './servers.js'

const READY_TIMEOUT_MS = 10_000
const STOP_TIMEOUT_MS = 5_000
const STDERR_CHARACTERS_MAX = 4_000

/** The server did not come up; the message is one line with what it said on stderr. */
export class StartFailed extends Error {}

export class ServerProcess {
  readonly server: Server
  readonly image: string
  readonly uri: string
  readonly #child: ChildProcess
  #stderr = ''
  #end: string | undefined

  private constructor(server: Server, image: string, uri: string, child: ChildProcess) {
    this.server = server
    this.image = image
    this.uri = uri
    this.#child = child
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_CHARACTERS_MAX)
    })
    child.once('error', (error) => {
      this.#end = error.message
    })
    child.once('exit', (code, signal) => {
      this.#end = signal === null ? `exited with code ${code}` : `was killed by ${signal}`
    })
  }

  static async start(server: Server, image: string, dir: string, tlsDir?: string): Promise<ServerProcess> {
    const socket = join(dir, `${server.name}.sock`)
    await rm(socket, { force: true })
    const stateDir = await mkdtemp(join(dir, 'state-'))
    const [file, ...args] = server.command({ image, socket, stateDir, tlsDir })
    const child = spawn(file, args, { cwd: dir, stdio: ['ignore', 'ignore', 'pipe'] })
    keepChild(child)
    // The certificate is made out to localhost.
    const from = tlsDir === undefined ? 'nbd+unix://' : 'nbds+unix://localhost'
    const running = new ServerProcess(server, image, `${from}/${EXPORT}?socket=${socket}`, child)
    await running.#awaitSocket(socket)
    return running
  }

  /** Says in half a sentence how the server ended, or undefined while it lives. */
  get end(): string | undefined {
    if (this.#end === undefined) return undefined
    const said = tellingLine(this.#stderr)
    return said === '' ? `${this.#end} without a word` : `${this.#end}: ${said}`
  }

  /** User and system time of all threads until now (proc(5): fields 14 and 15 of stat, 100 ticks a second on Linux). */
  cpuSeconds(): number {
    if (this.#end !== undefined) return 0
    const stat = readFileSync(`/proc/${this.#child.pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return (Number(fields[11]) + Number(fields[12])) / 100
  }

  async stop(): Promise<void> {
    if (this.#end !== undefined) return
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGTERM')
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_TIMEOUT_MS)
    await ended
    clearTimeout(timer)
  }

  async #awaitSocket(socket: string): Promise<void> {
    const deadline = performance.now() + READY_TIMEOUT_MS
    while (!(await accepts(socket))) {
      if (this.#end !== undefined) {
        // The last words may arrive after the exit.
        await sleep(50)
        throw new StartFailed(`${this.server.title} ${this.end}`)
      }
      if (performance.now() > deadline) {
        this.#child.kill('SIGKILL')
        throw new StartFailed(`${this.server.title} did not listen within ${READY_TIMEOUT_MS / 1000} s`)
      }
      await sleep(20)
    }
  }
}

function accepts(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
