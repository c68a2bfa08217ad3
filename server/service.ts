// A running candor: exports in their I/O threads, front end, HTTP thread, log. Law: it stops by syncing every export, and
// says so when one could not be synced.
import { closeSync } from 'node:fs'
import { resolve } from 'node:path'
import { type ChosenEngine, chooseIoEngine, errnoName } from '../backends/index.js'
import type { Config } from './config.js'
import { type ControlDoor, openControl } from './control/control-server.js'
import type { ControlReply, ControlRequest } from './control/export-actions.js'
import { ImageFolders } from './control/image-folders.js'
import { Operator } from './control/operator.js'
import { reload } from './control/reload.js'
import { withinOpenFiles } from './descriptor-room.js'
import { FrontEnds } from './front-ends.js'
import { HttpDesk } from './http-desk.js'
import type { Outgrowing } from './io/backing-desk.js'
import { type DirectoryEntry, ExportDirectory, unlessStalled } from './io/directory.js'
import { ExportDesk } from './io/export-desk.js'
import type { IoHost } from './io/io-host.js'
import { ThreadedHost } from './io/threaded-host.js'
import type { ListenAddress } from './nbd/listen.js'
import { openTls } from './nbd/tls.js'
import { pulseBlock, serverCounters } from './observe/counters.js'
import type { HttpAddress } from './observe/http.js'
import { Log, LogOutput } from './observe/log.js'
import type { RunningService, ServiceSurroundings } from './running-service.js'
import { takeStateDirectory } from './state/state-directory.js'
import type { MovedServer } from './upgrade/messages.js'
import type { Predecessor } from './upgrade/predecessor.js'
import { listenOnward, openFurther, stubOf, takeUp, toldUnless, welcome } from './upgrade/take-over.js'
import type { UpgradeSite } from './upgrade/upgrade.js'
import { Upgrading } from './upgrade/upgrading.js'

const UNKEPT = 'the description of its image was not taken by the service manager, and ends with this process'

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
  readonly upgrading: Upgrading
  readonly #http: HttpDesk
  #control: ControlDoor | undefined
  #lockFd: number | undefined
  readonly #folders: ImageFolders

  constructor(config: Config, around: ServiceSurroundings) {
    this.#around = around
    const { stateDirectory, logLevel, tls, workersMax } = config
    this.#config = config
    this.#io = chooseIoEngine(config.ioEngine)
    this.#output = new LogOutput(logLevel, this.#counters)
    this.#log = new Log(this.#output.write, this.#pulse)
    const log = this.#log
    const limits = withinOpenFiles(config, log)
    const [directory, counters] = [this.#directory, this.#counters]
    const { guestLeft, manager, store } = around
    const changed = () => this.#http.changed()
    if (store !== undefined) store.unkept = (name, errno) => log.warn({ export: name, errno: errnoName(errno) }, UNKEPT)
    const secured = { tlsMode: tls.mode, tls: openTls(tls) }
    this.#frontEnds = new FrontEnds({ directory, counters, limits, log, ...secured, resized: changed, guestLeft })
    const events = this.#frontEnds
    const makeHost = () => new ThreadedHost({ limits, stateDirectory, log, events, store })
    const { shutdownTimeoutMs } = limits
    const bounds = { workersMax, keepsRecords: stateDirectory !== undefined, shutdownTimeoutMs }
    this.#desk = new ExportDesk({ directory, log, makeHost, changed, store, ...bounds })
    const [desk, frontEnds, output] = [this.#desk, this.#frontEnds, this.#output]
    const answer = (request: ControlRequest) => this.#operator.answer(request)
    const sessionsOf = (exportName: string) => frontEnds.sessionsOf(exportName)
    this.#folders = new ImageFolders({ config: () => this.#config, desk, directory, sessionsOf, log })
    this.#undo.push(() => this.#folders.close())
    const { engine: ioEngine } = this.#io
    this.#http = new HttpDesk({ directory, desk, log, answer, ioEngine, counters, pulse: this.#pulse })
    this.upgrading = new Upgrading({
      manager,
      isFirst: around.predecessor === undefined,
      site: () => this.#site,
      desk,
    })
    const [reload, upgrade] = [() => this.#reload(), (force: boolean) => this.upgrading.ask(force)]
    const words = { config: () => this.#config, reload, upgrade }
    this.#operator = new Operator({ ...words, desk, directory, frontEnds, output, store })
  }

  /** What there is to hand over. */
  get #site(): UpgradeSite {
    const { limits, http, stateDirectory } = this.#config
    const [{ hosts, places: exports }, { leaving }] = [this.#desk, this.#directory]
    const [door, control] = [this.#http, this.#control]
    const doors = {
      stateDirectory: stateDirectory && resolve(stateDirectory),
      lockFd: this.#lockFd,
      controlFd: control?.fd,
      http: http && door.fd >= 0 ? { ...http, fd: door.fd } : undefined,
    }
    const [log, frontEnds, counters] = [this.#log, this.#frontEnds, this.#counters]
    const pulses = [this.#pulse, ...hosts.map(({ pulse }) => pulse)]
    const closeHttp = () => door.close()
    const closeDoors = () => Promise.all([this.#folders.close(), control?.leave()])
    const ways = { closeHttp, closeDoors, endLog: this.#endLog }
    return { log, limits, frontEnds, hosts, exports, leaving, counters, pulses, doors, ...ways }
  }

  get exports(): Iterable<DirectoryEntry> {
    return this.#directory
  }

  get http(): HttpAddress | undefined {
    return this.#http.address
  }

  async start(): Promise<void> {
    try {
      const { stateDirectory, listen, exports } = this.#config
      if (stateDirectory !== undefined) this.#locked(await takeStateDirectory(stateDirectory))
      this.#undo.push(() => this.#closeHosts())
      await this.#desk.addAll(exports)
      this.#around.store?.dropUnclaimed()
      await this.#folders.open()
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

  async #openHttp(moved?: MovedServer['http']): Promise<void> {
    this.#undo.push(() => this.#http.close())
    await this.#http.open(this.#config, moved)
  }

  #locked(fd: number): void {
    this.#lockFd = fd
    this.#undo.push(() => closeSync(fd))
  }

  /** Begins where another process stopped. */
  async takeOver(predecessor: Predecessor): Promise<void> {
    const [config, desk, frontEnds, log] = [this.#config, this.#desk, this.#frontEnds, this.#log]
    const [directory, counters, pulse] = [this.#directory, this.#counters, this.#pulse]
    this.#undo.push(() => this.#closeHosts())
    let moved: MovedServer
    try {
      moved = await takeUp(predecessor, { config, desk, directory, frontEnds, log, counters, pulse })
    } catch (error) {
      await this.#close()
      throw error
    }
    // Clients are served from here on: whatever else cannot be had is told, and no reason to leave them.
    if (moved.lockFd !== undefined) this.#locked(moved.lockFd)
    await toldUnless(log, () => this.#openControl(moved.controlFd))
    this.addresses.push(...(await listenOnward(moved, config, frontEnds, log)))
    const stub = await predecessor.hear((guest) => welcome(frontEnds.nbd, guest))
    this.upgrading.stub = stub ?? stubOf(moved, log)
    await toldUnless(log, () => this.#openHttp(moved.http))
    // Not waited for: storage that does not answer keeps nobody from being told that the others are served, or from a stop.
    void toldUnless(log, () => openFurther({ config, desk, directory, folders: this.#folders }))
  }

  async #openControl(fd?: number): Promise<void> {
    const { stateDirectory } = this.#config
    if (stateDirectory === undefined) return
    const control = await openControl(stateDirectory, (request) => this.#operator.answer(request), fd)
    this.#control = control
    this.#undo.push(() => control.close())
  }

  readonly reload = async (): Promise<void> => void (await this.#reload())

  async #reload(): Promise<ControlReply> {
    const [desk, directory, output, log] = [this.#desk, this.#directory, this.#output, this.#log]
    const frontEnds = this.#frontEnds
    const { read = () => this.#config, reloading } = this.#around
    const adopt = (config: Config) => {
      this.#config = config
    }
    const over = reloading?.()
    try {
      const [images, current] = [() => this.#folders.images, () => this.#config]
      return await reload({ read, current, adopt, images, desk, directory, frontEnds, output, log })
    } finally {
      over?.()
      this.#folders.forgive()
    }
  }

  async stop(): Promise<{ synced: boolean }> {
    this.#frontEnds.drain()
    await this.#desk.close()
    const { hosts } = this.#desk
    for (const host of hosts) host.drain()
    const timeoutMs = this.#config.limits.shutdownTimeoutMs
    const deadline = performance.now() + timeoutMs
    // One at least where the thread itself stands still.
    const finish = async (host: IoHost) => (await unlessStalled(host, host.finish(timeoutMs)))?.unanswered ?? 1
    const left = (await Promise.all(hosts.map(finish))).reduce((sum, each) => sum + each, 0)
    if (left > 0) this.#log.error({ unanswered: left }, 'stopped with requests that storage has not answered')
    const told = this.#frontEnds.finish(deadline)
    const synced = await Promise.all(hosts.map((host) => host.sync()))
    if (!synced.includes(false) && left === 0) this.#around.store?.dropAll()
    await Promise.all([told, this.#close()])
    return { synced: !synced.includes(false) }
  }

  async #close(): Promise<void> {
    this.#frontEnds.drain()
    this.#frontEnds.finish()
    for (const undo of this.#undo.reverse()) await undo()
    this.#undo.length = 0
    await this.#endLog()
  }

  readonly #endLog = async (): Promise<void> => {
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

/**
 * Starts to serve, or goes on serving in the place of another process. @throws OpenError with one sentence for the operator;
 * nothing is left behind then
 */
export async function startService(config: Config, around: ServiceSurroundings = {}): Promise<RunningService> {
  const service = new Service(config, around)
  const { predecessor } = around
  await (predecessor === undefined ? service.start() : service.takeOver(predecessor))
  service.upgrading.begun()
  return service
}
