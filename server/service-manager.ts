// What a service manager such as systemd gives and wants: listening sockets (sd_listen_fds(3)), and to be told how the
// service is (sd_notify(3)). Law: where there is none, all of this is nothing.
import { fstatSync } from 'node:fs'
import { OpenError, sendDatagram } from '../backends/index.js'
import { isStored } from './fd-store.js'

const FIRST_FD = 3
/** So much longer a start or a stop may take, each time it is said. */
const EXTENSION_MS = 30_000

/** A socket that the service manager listens on in our place. */
export interface ActivatedSocket {
  readonly fd: number
  /** `FileDescriptorName=` of the socket unit; 'unknown' where it has none. */
  readonly name: string
}

type Environment = Readonly<Record<string, string | undefined>>

/**
 * The sockets of LISTEN_FDS, and what an earlier server had stored (fd-store.ts), if they are meant for this process. The variables are taken away, so that no child
 * takes them for its own. @throws OpenError when what was handed over are no sockets
 */
export function takeActivatedSockets(environment: Environment = process.env, pid = process.pid): ActivatedSocket[] {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES = '' } = environment
  if (LISTEN_FDS === undefined || LISTEN_PID !== String(pid)) return []
  if (environment === process.env) for (const name of ['PID', 'FDS', 'FDNAMES']) delete process.env[`LISTEN_${name}`]
  const count = /^\d{1,4}$/.test(LISTEN_FDS) ? Number(LISTEN_FDS) : 0
  const names = LISTEN_FDNAMES.split(':')
  const sockets = Array.from({ length: count }, (_, index) => ({
    fd: FIRST_FD + index,
    name: names[index] || 'unknown',
  }))
  for (const descriptor of sockets) {
    const { fd } = descriptor
    if (!isStored(descriptor) && !isSocket(fd))
      throw new OpenError(`LISTEN_FDS hands over descriptor ${fd}, which is no socket: see the socket unit`)
  }
  return sockets
}

function isSocket(fd: number): boolean {
  try {
    return fstatSync(fd).isSocket()
  } catch {
    return false
  }
}

/** Tells the service manager how we are. */
export class ServiceManager {
  readonly #path: string | undefined
  readonly #watchdogMs: number | undefined
  #watchdog: NodeJS.Timeout | undefined
  #extension: NodeJS.Timeout | undefined

  constructor(environment: Environment = process.env, pid = process.pid) {
    const { NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID } = environment
    this.#path = NOTIFY_SOCKET
    const forUs = WATCHDOG_PID === undefined || WATCHDOG_PID === String(pid)
    const usec = forUs && /^\d+$/.test(WATCHDOG_USEC ?? '') ? Number(WATCHDOG_USEC) : 0
    this.#watchdogMs = usec > 0 ? usec / 2000 : undefined
  }

  get isThere(): boolean {
    return this.#path !== undefined
  }

  #tell(...lines: readonly string[]): void {
    if (this.#path !== undefined) sendDatagram(this.#path, lines.join('\n'))
  }

  /** Time is asked for until something else is said: a sync that takes long is no reason to be killed. */
  #extend(...lines: readonly string[]): void {
    const extend = `EXTEND_TIMEOUT_USEC=${EXTENSION_MS * 1000}`
    this.#tell(...lines, extend)
    if (this.#path !== undefined) this.#extension = setInterval(() => this.#tell(extend), EXTENSION_MS / 3).unref()
  }

  /** After an unclean end images are synced before anybody is let in. */
  starting(): void {
    this.#extend('STATUS=opening images')
  }

  /** Everything is served; the watchdog is fed from here on, by the thread that answers the operator. */
  ready(status: string): void {
    clearInterval(this.#extension)
    this.#tell('READY=1', `STATUS=${status}`)
    if (this.#watchdogMs === undefined || this.#watchdog !== undefined) return
    this.#watchdog = setInterval(() => this.#tell('WATCHDOG=1'), this.#watchdogMs).unref()
  }

  /** It has taken over, which only the one that is known may say; its watchdog is fed by itself. */
  succeeded(pid: number): void {
    clearInterval(this.#watchdog)
    this.#tell(`MAINPID=${pid}`)
  }

  /** Something else is done for a while, until READY comes again; systemd wants to know since when, by its own clock. */
  reloading(what = 'reading the configuration'): void {
    this.#tell('RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`, `STATUS=${what}`)
  }

  reloaded(status: string): void {
    this.#tell('READY=1', `STATUS=${status}`)
  }

  /** The end has begun. */
  stopping(): void {
    this.#extend('STOPPING=1', 'STATUS=answering what is in flight, then the final sync')
  }
}
