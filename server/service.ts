// A running candor: exports in their I/O threads, front end, HTTP thread, log. Law: it stops by syncing every export, and
// says so when one could not be synced.
import { resolve } from 'node:path'
import { type ChosenEngine, chooseIoEngine, closeImage, openImage } from '../backends/index.js'
import type { Config, ExportConfig } from './config.js'
import { openControl } from './control/control-server.js'
import type { ControlReply, ControlRequest } from './control/export-actions.js'
import { connectionsWithin, openFiles, openFilesMax } from './descriptor-room.js'
import { Access } from './exports/access.js'
import { BackingDesk, type Outgrowing } from './io/backing-desk.js'
import { type DirectoryEntry, ExportDirectory, pulseAge, STALLED_MS, unlessStalled } from './io/directory.js'
import type { IoHost } from './io/io-host.js'
import { Placement } from './io/placement.js'
import { ThreadedHost } from './io/threaded-host.js'
import type { Limits } from './limits.js'
import type { ListenAddress } from './nbd/listen.js'
import { NbdServer } from './nbd/server.js'
import { openTls } from './nbd/tls.js'
import { HEARTBEAT_AT, pulseBlock, serverCounters } from './observe/counters.js'
import type { Observed } from './observe/family.js'
import { type HttpAddress, type HttpDoor, openHttp } from './observe/http.js'
import { Log, LogOutput } from './observe/log.js'
import { takeStateDirectory } from './state/state-directory.js'
import { VERSION } from './version.js'

/** How often the HTTP thread is told that this one lives, and the I/O threads' pulses are felt. */
const HEARTBEAT_MS = 1000

export interface RunningService {
  readonly exports: Iterable<DirectoryEntry>
  /** Where it listens, with real ports. */
  readonly addresses: readonly ListenAddress[]
  readonly http: HttpAddress | undefined
  /** File systems that their images could outgrow. */
  readonly outgrowing: readonly Outgrowing[]
  /** Answers what is in flight, refuses what is new, syncs everything. `synced` is false when a sync failed. */
  stop(): Promise<{ readonly synced: boolean }>
}

class Service implements RunningService {
  readonly #config: Config
  readonly #output: LogOutput
  readonly #log: Log
  readonly #directory = new ExportDirectory()
  readonly #backings = new BackingDesk()
  readonly #counters = serverCounters()
  readonly #pulse = pulseBlock()
  readonly #nbd: NbdServer
  readonly #placement: Placement
  readonly #undo: (() => void | Promise<void>)[] = []
  readonly addresses: ListenAddress[] = []
  readonly #io: ChosenEngine
  outgrowing: readonly Outgrowing[] = []
  #door: HttpDoor | undefined

  constructor(config: Config) {
    const { stateDirectory, logLevel, tls } = config
    this.#config = config
    this.#io = chooseIoEngine(config.ioEngine)
    this.#output = new LogOutput(logLevel, this.#counters)
    this.#log = new Log(this.#output.write, this.#pulse)
    const log = this.#log
    const limits = withinOpenFiles(config, log)
    const [directory, counters] = [this.#directory, this.#counters]
    this.#nbd = new NbdServer({ directory, counters, limits, log, tlsMode: tls.mode, tls: openTls(tls) })
    const events = this.#nbd
    const make = () => new ThreadedHost({ limits, stateDirectory, log, events })
    this.#placement = new Placement(make, config.workersMax)
  }

  get exports(): Iterable<DirectoryEntry> {
    return this.#directory
  }

  get http(): HttpAddress | undefined {
    return this.#door?.address
  }

  async start(): Promise<void> {
    try {
      const { stateDirectory, listen, exports } = this.#config
      if (stateDirectory !== undefined) this.#undo.push(await takeStateDirectory(stateDirectory))
      this.#undo.push(() => this.#closeHosts())
      for (const entry of exports) await this.#open(entry)
      this.outgrowing = this.#backings.outgrowing()
      for (const about of this.outgrowing) this.#log.warn(about, `the images on ${about.mount} could outgrow it`)
      await this.#openControl()
      await this.#openHttp()
      for (const address of listen) this.addresses.push(await this.#nbd.listen(address))
      this.#log.info({ ...this.#io }, `reads wait for storage by ${this.#io.engine}`)
    } catch (error) {
      await this.#close()
      throw error
    }
  }

  async #open(config: ExportConfig): Promise<void> {
    const image = await openImage(config)
    let host: IoHost
    try {
      const placed = this.#placement.place(image.device)
      host = placed.host
      if (placed.shared) {
        const about = { export: config.name }
        this.#log.warn(about, 'shares its thread with exports on other devices: --workers allows no more threads')
      }
    } catch (error) {
      closeImage(image)
      throw error
    }
    const face = await host.open(config, image, this.#backings.shareFor(config.name, image.place, host))
    this.#directory.add({ name: config.name, face, access: new Access(config.access), host })
  }

  async #openControl(): Promise<void> {
    const { stateDirectory } = this.#config
    if (stateDirectory === undefined) return
    const server = await openControl(stateDirectory, (request) => this.#directory.ask(request))
    this.#undo.push(() => {
      server.close()
    })
  }

  #beat(): void {
    this.#counters[HEARTBEAT_AT] = Date.now()
    for (const host of this.#placement.hosts) {
      if (pulseAge(host) <= STALLED_MS) continue
      const exports = [...this.#directory].filter((entry) => entry.host === host).map(({ name }) => name)
      this.#log.limited(`a thread waits for its storage: ${exports.join(', ')}`, { exports, ms: pulseAge(host) })
    }
  }

  async #openHttp(): Promise<void> {
    this.#beat()
    const timer = setInterval(() => this.#beat(), HEARTBEAT_MS)
    this.#undo.push(() => clearInterval(timer))
    if (this.#config.http === undefined) return
    const { http, httpNames, limits } = this.#config
    const paths = new Map(this.#config.exports.map(({ name, path }) => [name, resolve(path)]))
    const exports = [...this.#directory].map(({ name, face: { size, readOnly, counters }, host: { pulse } }) => {
      const device = this.#backings.deviceOf(name)
      return { name, size, readOnly, path: paths.get(name) ?? '', device, counters, pulse }
    })
    const observed: Observed = {
      version: VERSION,
      ioEngine: this.#io.engine,
      server: this.#counters,
      pulse: this.#pulse,
      exports,
      backings: this.#backings.observed(),
    }
    const { httpConnectionsMax: connectionsMax, httpWatchersMax: watchersMax } = limits
    const door = await openHttp(
      { ...http, names: httpNames, connectionsMax, watchersMax, observed },
      {
        answer: (request) => this.#answer(request),
        failed: ({ message }) => this.#log.error({ error: message }, 'the HTTP thread ended: no metrics'),
      },
    )
    this.#door = door
    this.#undo.push(() => door.close())
  }

  async #answer(request: ControlRequest): Promise<ControlReply> {
    if (request.command !== 'sessions') return this.#directory.ask(request)
    return { ok: true, result: this.#nbd.sessions(await this.#directory.inFlight()) }
  }

  async stop(): Promise<{ synced: boolean }> {
    const { hosts } = this.#placement
    this.#nbd.drain()
    for (const host of hosts) host.drain()
    const timeoutMs = this.#config.limits.shutdownTimeoutMs
    const unanswered = await Promise.all(hosts.map((host) => this.#finish(host, timeoutMs)))
    const left = unanswered.reduce((sum, each) => sum + each, 0)
    if (left > 0) this.#log.error({ unanswered: left }, 'stopped with requests that storage has not answered')
    this.#nbd.finish()
    const synced = await Promise.all(hosts.map((host) => host.sync()))
    await this.#close()
    return { synced: !synced.includes(false) }
  }

  /** Requests without an answer; one at least where the thread itself stands still. */
  async #finish(host: IoHost, timeoutMs: number): Promise<number> {
    const finished = await unlessStalled(host, host.finish(timeoutMs))
    return finished?.unanswered ?? 1
  }

  async #close(): Promise<void> {
    this.#nbd.drain()
    this.#nbd.finish()
    for (const undo of this.#undo.reverse()) await undo()
    this.#undo.length = 0
    this.#log.close()
    await this.#output.close()
  }

  async #closeHosts(): Promise<void> {
    for (const host of this.#placement.hosts) {
      await host.finish(0)
      await host.close()
    }
  }
}

/** The limits, with no more connections than the process may open files for. */
function withinOpenFiles({ limits, exports, tls, http }: Config, log: Log): Limits {
  const httpConnectionsMax = http === undefined ? 0 : limits.httpConnectionsMax
  const needs = { exports: exports.length, httpConnectionsMax, tls: tls.mode !== 'off' }
  const most = openFilesMax()
  const connectionsMax = connectionsWithin(most, openFiles(), needs)
  if (connectionsMax >= limits.connectionsMax) return limits
  const remedy = 'raise the limit (LimitNOFILE= of systemd, ulimit -Hn) or lower --connections-max'
  const sentence = `the limit of ${most} open files has room for ${connectionsMax} connections, not for ${limits.connectionsMax}`
  log.warn({ openFilesMax: most, connectionsMax }, `${sentence}: ${remedy}`)
  return { ...limits, connectionsMax }
}

/** Starts to serve. @throws OpenError with one sentence for the operator; nothing is left behind then */
export async function startService(config: Config): Promise<RunningService> {
  const service = new Service(config)
  await service.start()
  return service
}
