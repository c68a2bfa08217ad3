// A running candor: exports in their I/O threads, front end, HTTP thread, log. Law: it stops by syncing every export, and
// says so when one could not be synced.
import { type ChosenEngine, chooseIoEngine } from '../backends/index.js'
import type { Config } from './config.js'
import { openControl } from './control/control-server.js'
import type { ControlReply } from './control/export-actions.js'
import { Operator } from './control/operator.js'
import { reload } from './control/reload.js'
import { connectionsWithin, openFiles, openFilesMax } from './descriptor-room.js'
import { FrontEnds } from './front-ends.js'
import type { Outgrowing } from './io/backing-desk.js'
import { type DirectoryEntry, ExportDirectory, pulseAge, STALLED_MS, unlessStalled } from './io/directory.js'
import { ExportDesk } from './io/export-desk.js'
import type { IoHost } from './io/io-host.js'
import { ThreadedHost } from './io/threaded-host.js'
import type { Limits } from './limits.js'
import type { ListenAddress } from './nbd/listen.js'
import { openTls } from './nbd/tls.js'
import { HEARTBEAT_AT, PULSE_AT, pulseBlock, serverCounters } from './observe/counters.js'
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
  /** Reads the words that it was started with again, and applies what can be. The log tells how that went. */
  reload(): Promise<void>
  /** Answers what is in flight, refuses what is new, syncs everything. `synced` is false when a sync failed. */
  stop(): Promise<{ readonly synced: boolean }>
}

/** What belongs to the program around the server. */
export interface ServiceSurroundings {
  /** The words of the configuration once more. @throws UsageError */
  readonly read?: () => Config
  /** A reload begins; what is returned is called when it is over. */
  readonly reloading?: () => () => void
}

class Service implements RunningService {
  #config: Config
  readonly #around: ServiceSurroundings
  readonly #output: LogOutput
  readonly #log: Log
  readonly #directory = new ExportDirectory()
  readonly #counters = serverCounters()
  readonly #pulse = pulseBlock()
  readonly #frontEnds: FrontEnds
  readonly #desk: ExportDesk
  readonly #operator: Operator
  readonly #undo: (() => void | Promise<void>)[] = []
  readonly addresses: ListenAddress[] = []
  readonly #io: ChosenEngine
  outgrowing: readonly Outgrowing[] = []
  #door: HttpDoor | undefined
  #telling: NodeJS.Immediate | undefined

  constructor(config: Config, around: ServiceSurroundings) {
    this.#around = around
    const { stateDirectory, logLevel, tls } = config
    this.#config = config
    this.#io = chooseIoEngine(config.ioEngine)
    this.#output = new LogOutput(logLevel, this.#counters)
    this.#log = new Log(this.#output.write, this.#pulse)
    const log = this.#log
    const limits = withinOpenFiles(config, log)
    const [directory, counters] = [this.#directory, this.#counters]
    this.#frontEnds = new FrontEnds({ directory, counters, limits, log, tlsMode: tls.mode, tls: openTls(tls) })
    const events = this.#frontEnds
    const makeHost = () => new ThreadedHost({ limits, stateDirectory, log, events })
    const { workersMax } = config
    const { shutdownTimeoutMs } = limits
    const changed = () => this.#tellHttp()
    const keepsRecords = stateDirectory !== undefined
    this.#desk = new ExportDesk({ directory, log, makeHost, workersMax, keepsRecords, shutdownTimeoutMs, changed })
    const [desk, frontEnds, output] = [this.#desk, this.#frontEnds, this.#output]
    const reload = () => this.#reload()
    this.#operator = new Operator({ config: () => this.#config, desk, directory, frontEnds, output, reload })
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
      await this.#desk.addAll(exports)
      this.outgrowing = this.#desk.outgrowing
      for (const about of this.outgrowing) this.#log.warn(about, `the images on ${about.mount} could outgrow it`)
      await this.#openControl()
      await this.#openHttp()
      for (const address of listen) this.addresses.push(await this.#frontEnds.listen(address))
      this.#log.info({ ...this.#io }, `reads wait for storage by ${this.#io.engine}`)
    } catch (error) {
      await this.#close()
      throw error
    }
  }

  async #openControl(): Promise<void> {
    const { stateDirectory } = this.#config
    if (stateDirectory === undefined) return
    const server = await openControl(stateDirectory, (request) => this.#operator.answer(request))
    this.#undo.push(() => {
      server.close()
    })
  }

  #beat(): void {
    this.#counters[HEARTBEAT_AT] = Date.now()
    this.#pulse[PULSE_AT] = Date.now()
    for (const host of this.#desk.hosts) {
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
    const { httpConnectionsMax: connectionsMax, httpWatchersMax: watchersMax } = limits
    const door = await openHttp(
      { ...http, names: httpNames, connectionsMax, watchersMax, observed: this.#observed },
      {
        answer: (request) => this.#operator.answer(request),
        failed: ({ message }) => this.#log.error({ error: message }, 'the HTTP thread ended: no metrics'),
      },
    )
    this.#door = door
    this.#undo.push(() => door.close())
  }

  async reload(): Promise<void> {
    await this.#reload()
  }

  async #reload(): Promise<ControlReply> {
    const [desk, directory, output, log] = [this.#desk, this.#directory, this.#output, this.#log]
    const frontEnds = this.#frontEnds
    const { read = () => this.#config, reloading } = this.#around
    const adopt = (config: Config) => {
      this.#config = config
    }
    const over = reloading?.()
    try {
      return await reload({ read, current: () => this.#config, adopt, desk, directory, frontEnds, output, log })
    } finally {
      over?.()
    }
  }

  get #observed(): Observed {
    const { engine: ioEngine } = this.#io
    const [server, pulse] = [this.#counters, this.#pulse]
    return { version: VERSION, ioEngine, server, pulse, ...this.#desk.observed(pulse) }
  }

  /** Once in a turn, however many exports have come or gone in it. */
  #tellHttp(): void {
    if (this.#door === undefined) return
    this.#telling ??= setImmediate(() => {
      this.#telling = undefined
      this.#door?.update(this.#observed)
    })
  }

  async stop(): Promise<{ synced: boolean }> {
    this.#frontEnds.drain()
    await this.#desk.close()
    const { hosts } = this.#desk
    for (const host of hosts) host.drain()
    const timeoutMs = this.#config.limits.shutdownTimeoutMs
    const unanswered = await Promise.all(hosts.map((host) => this.#finish(host, timeoutMs)))
    const left = unanswered.reduce((sum, each) => sum + each, 0)
    if (left > 0) this.#log.error({ unanswered: left }, 'stopped with requests that storage has not answered')
    this.#frontEnds.finish()
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
    this.#frontEnds.drain()
    this.#frontEnds.finish()
    for (const undo of this.#undo.reverse()) await undo()
    this.#undo.length = 0
    this.#log.close()
    await this.#output.close()
  }

  async #closeHosts(): Promise<void> {
    for (const host of this.#desk.hosts) {
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
export async function startService(config: Config, around: ServiceSurroundings = {}): Promise<RunningService> {
  const service = new Service(config, around)
  await service.start()
  return service
}
