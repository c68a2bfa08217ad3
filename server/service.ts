// A running candor: exports, front end, HTTP thread, log. Law: it stops by syncing every export, and says so when one
// could not be synced.
import { DONE, errnoName, errnoOf } from '../backends/index.js'
import type { Config, ExportConfig } from './config.js'
import { openControl } from './control/control-server.js'
import type { Export } from './exports/export.js'
import { openExport } from './exports/open-export.js'
import { ExportRegistry } from './exports/registry.js'
import type { ListenAddress } from './nbd/listen.js'
import { NbdServer } from './nbd/server.js'
import { openTls } from './nbd/tls.js'
import { HEARTBEAT_AT, serverCounters } from './observe/counters.js'
import { type HttpAddress, type HttpDoor, openHttp } from './observe/http.js'
import { Log } from './observe/log.js'
import { takeStateDirectory } from './state/state-directory.js'
import { VERSION } from './version.js'

/** How often the HTTP thread is told that this one lives, and write-back is asked whether it failed. */
const HEARTBEAT_MS = 1000

export interface RunningService {
  readonly exports: Iterable<Export>
  /** Where it listens, with real ports. */
  readonly addresses: readonly ListenAddress[]
  readonly http: HttpAddress | undefined
  /** Answers what is in flight, refuses what is new, syncs everything. `synced` is false when a sync failed. */
  stop(): Promise<{ readonly synced: boolean }>
}

class Service implements RunningService {
  readonly #config: Config
  readonly #log: Log
  readonly #registry = new ExportRegistry()
  readonly #counters = serverCounters()
  readonly #nbd: NbdServer
  readonly #undo: (() => void | Promise<void>)[] = []
  readonly addresses: ListenAddress[] = []
  #door: HttpDoor | undefined

  constructor(config: Config) {
    this.#config = config
    this.#log = new Log(config.logLevel)
    this.#nbd = new NbdServer({
      registry: this.#registry,
      counters: this.#counters,
      limits: config.limits,
      log: this.#log,
      tlsMode: config.tls.mode,
      tls: openTls(config.tls),
    })
  }

  get exports(): Iterable<Export> {
    return this.#registry
  }

  get http(): HttpAddress | undefined {
    return this.#door?.address
  }

  async start(): Promise<void> {
    try {
      const { stateDirectory, listen, exports } = this.#config
      if (stateDirectory !== undefined) this.#undo.push(await takeStateDirectory(stateDirectory))
      for (const entry of exports) await this.#open(entry)
      await this.#openControl()
      await this.#openHttp()
      for (const address of listen) this.addresses.push(await this.#nbd.listen(address))
    } catch (error) {
      await this.#close()
      throw error
    }
  }

  async #open(config: ExportConfig): Promise<void> {
    const { entry, close } = await openExport(config, this.#config.stateDirectory, this.#log)
    this.#undo.push(close)
    this.#registry.add(entry)
  }

  async #openControl(): Promise<void> {
    const { stateDirectory } = this.#config
    if (stateDirectory === undefined) return
    const server = await openControl(stateDirectory, this.#registry, this.#log)
    this.#undo.push(() => {
      server.close()
    })
  }

  async #openHttp(): Promise<void> {
    const beat = () => {
      this.#counters[HEARTBEAT_AT] = Date.now()
      for (const entry of this.#registry) entry.beat()
    }
    beat()
    const timer = setInterval(beat, HEARTBEAT_MS)
    this.#undo.push(() => clearInterval(timer))
    if (this.#config.http === undefined) return
    const exports = [...this.#registry].map(({ name, size, counters }) => ({ name, size, counters }))
    const observed = { version: VERSION, server: this.#counters, exports }
    const onFailure = (error: Error) => this.#log.error({ error: error.message }, 'the HTTP thread ended: no metrics')
    const door = await openHttp(this.#config.http, observed, onFailure)
    this.#door = door
    this.#undo.push(() => door.close())
  }

  async stop(): Promise<{ synced: boolean }> {
    this.#nbd.drain()
    for (const { space } of this.#registry) space.shutDown()
    const { unanswered } = await this.#nbd.finish(this.#config.limits.shutdownTimeoutMs)
    if (unanswered > 0) this.#log.error({ unanswered }, 'stopped with requests that storage has not answered')
    const synced = await Promise.all([...this.#registry].map((entry) => this.#finalSync(entry)))
    await this.#close()
    return { synced: !synced.includes(false) }
  }

  async #finalSync(entry: Export): Promise<boolean> {
    const outcome = await entry.flush()
    entry.wasSynced = outcome === DONE && entry.waiting.oldest === undefined
    if (outcome === DONE) return true
    const errno = errnoName(errnoOf(outcome))
    this.#log.error({ export: entry.name, errno }, `the final sync of export ${entry.name} failed: ${errno}`)
    return false
  }

  async #close(): Promise<void> {
    this.#nbd.drain()
    await this.#nbd.finish(0)
    for (const undo of this.#undo.reverse()) await undo()
    this.#undo.length = 0
    await this.#log.close()
  }
}

/** Starts to serve. @throws OpenError with one sentence for the operator; nothing is left behind then */
export async function startService(config: Config): Promise<RunningService> {
  const service = new Service(config)
  await service.start()
  return service
}
