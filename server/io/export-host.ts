// The exports of one thread, and the connections that came to them. Law: whoever is attached here is served here to the
// end; nothing of an export is known in two threads.
import { closeSync } from 'node:fs'
import type { OpenedImage } from '../../backends/index.js'
import type { ExportConfig } from '../config.js'
import { actOn, type ControlReply, type ControlRequest, failed } from '../control/export-actions.js'
import { resizeExport } from '../control/export-resize.js'
import { Backings } from '../exports/backings.js'
import type { Export } from '../exports/export.js'
import { type MovedExport, type OpenedExport, openExport } from '../exports/open-export.js'
import { ExportRegistry } from '../exports/registry.js'
import { Connection } from '../nbd/connection.js'
import { tellable } from '../nbd/connection-options.js'
import type { MovedConnection } from '../nbd/moved.js'
import { describeExport } from '../nbd/negotiation.js'
import { PayloadBudget } from '../nbd/payload-budget.js'
import type { BackingShare } from '../observe/backing-block.js'
import { type Counters, count, PROTOCOL_ERRORS, PROTOCOL_ERRORS_AT, pulseBlock, reasonAt } from '../observe/counters.js'
import { READING_COMMANDS } from '../observe/http-messages.js'
import { VhostUserSessions } from '../vhost-user/sessions.js'
import type { ExportHostOptions } from './export-host-options.js'
import { finalSync } from './final-sync.js'
import { type FrozenHost, type Resumed, resume } from './freezing.js'
import { followGrowth } from './growth.js'
import { HostConnections } from './host-connections.js'
import { HostRest } from './host-rest.js'
import { finish, inFlightOf, untilIdle } from './idle.js'
import type { AttachOrder, EndedFault, ExportFace, IoHost, Removal, RemovalKind, VhostUserOrder } from './io-host.js'
import { tellingOfReopening } from './reopening.js'

/** How often write-back is asked whether it failed, and the pulse is felt. */
const BEAT_MS = 1000
const FINISH_POLL_MS = 20

export class ExportHost implements IoHost {
  readonly pulse: Counters
  readonly #options: ExportHostOptions
  readonly #registry = new ExportRegistry<Export>()
  readonly #backings = new Backings()
  /** Of both front ends. */
  readonly connections = new HostConnections()
  readonly #vhostUsers = new VhostUserSessions()
  readonly #opened = new Map<string, OpenedExport>()
  readonly #budget: PayloadBudget
  /** Exports that are being removed. */
  readonly #leaving = new Set<Export>()
  readonly #timer: NodeJS.Timeout
  readonly #rest = new HostRest()
  #draining = false

  constructor(options: ExportHostOptions) {
    this.#options = options
    this.pulse = options.pulse ?? pulseBlock()
    this.#budget = new PayloadBudget(options.limits.payloadBytesMax, options.payloadHeld)
    this.#beat()
    this.#timer = setInterval(() => this.#beat(), BEAT_MS)
    this.#timer.unref()
  }

  #beat(): void {
    this.pulse[0] = Date.now()
    // A failure that is told to this process now would not be told to the next one.
    for (const entry of this.#rest.isWanted ? [] : this.#registry) {
      entry.beat()
      if (entry.length.grown) void this.#follow(entry)
    }
    if (!this.#rest.isWanted) this.connections.look()
  }

  async #follow(entry: Export): Promise<void> {
    if (await this.#rest.during(() => followGrowth(entry, this.#options.log))) this.#resized(entry)
  }

  #resized(entry: Export): void {
    this.#vhostUsers.resized(entry.name)
    this.#options.events.exportResized(entry.name, entry.size)
  }

  /** Bytes of replies that peers have not taken yet. */
  get backlog(): number {
    return this.connections.backlog
  }

  async open(
    config: ExportConfig,
    image: OpenedImage,
    share: BackingShare | undefined,
    moved?: MovedExport,
  ): Promise<ExportFace> {
    const { stateDirectory, log, reopen } = this.#options
    const backing = share && this.#backings.of(share)
    // Until the other process has let go, what storage tells is for that one to hear.
    if (moved !== undefined) this.#rest.begin()
    const opened = await openExport(config, { image, reopen, moved }, stateDirectory, log, backing)
    this.#opened.set(config.name, opened)
    return this.adopt(opened.entry)
  }

  /** Serves an export whose storage is somebody else's to close. */
  adopt(entry: Export): ExportFace {
    this.#registry.add(entry)
    return { ...describeExport(entry), readOnly: entry.readOnly, counters: entry.counters }
  }

  attach(order: AttachOrder): void {
    this.#connect(order)?.start()
  }

  #connect(order: AttachOrder): Connection | undefined {
    const { limits, events } = this.#options
    const { connection } = order
    const served = this.#registry.find(order.exportName)
    if (served === undefined || this.#leaving.has(served)) {
      closeSync(order.fd)
      events.connectionEnded(connection)
      return undefined
    }
    const attached = new Connection({
      ...order,
      served,
      limits: { ...limits, ...served.limits },
      budget: this.#budget,
      onFault: (fault) => this.#faulted(connection, tellable(fault)),
      onEnd: () => this.#ended(connection),
    })
    this.connections.set(connection, attached)
    if (this.#draining) attached.drain()
    return attached
  }

  settle(timeoutMs: number): Promise<readonly string[]> {
    return this.connections.settle(timeoutMs)
  }

  freeze(timeoutMs: number): Promise<FrozenHost> {
    return this.#rest.freeze({ opened: this.#opened, connections: this.connections }, timeoutMs)
  }

  async goOn(handedOver: readonly MovedConnection[] = []): Promise<void> {
    const takenOut = this.#rest.end()
    const resumed: Resumed[] = this.connections.nbd.map((each) => ({ connection: each, requests: each.thaw() }))
    for (const moved of [...takenOut, ...handedOver]) {
      const connection = this.#connect({ ...moved, leftover: new Uint8Array(0) })
      if (connection !== undefined) resumed.push({ connection, requests: moved.progress.requests })
    }
    resume(this.#registry, resumed)
  }

  async abandon(): Promise<void> {
    clearInterval(this.#timer)
    this.#rest.letGo()
    // What has ended here may still have replies on their way to its peer.
    while (this.connections.size > 0) await new Promise((resolve) => setTimeout(resolve, FINISH_POLL_MS))
    for (const { abandon } of this.#opened.values()) await abandon()
    this.#opened.clear()
  }

  attachVhostUser({ connection, fd, exportName, client }: VhostUserOrder): void {
    const found = this.#registry.find(exportName)
    const served = found !== undefined && this.#leaving.has(found) ? undefined : found
    const [onFault, onEnd] = [(fault: EndedFault) => this.#faulted(connection, fault), () => this.#ended(connection)]
    const [limits, log] = [{ ...this.#options.limits, ...served?.limits }, this.#options.log]
    const attached = this.#vhostUsers.attach({ fd, served, client, limits, log, onFault, onEnd })
    if (attached === undefined) return
    if (this.#draining) attached.drain()
    this.connections.set(connection, attached)
  }

  #faulted(connection: number, fault: EndedFault): void {
    // Counted here, so that the number is there before the peer can notice its end.
    if (fault.isProtocolError) count(this.pulse, PROTOCOL_ERRORS_AT + reasonAt(PROTOCOL_ERRORS, fault.reason))
    this.#options.events.connectionFaulted(connection, fault)
  }

  #ended(connection: number): void {
    this.connections.delete(connection)
    this.#options.events.connectionEnded(connection)
  }

  async ask(request: ControlRequest): Promise<ControlReply> {
    if (request.command === 'sessions') {
      return { ok: true, result: [...this.connections].map(([connection, { inFlight }]) => [connection, inFlight]) }
    }
    const act = async () => (request.command === 'resize' ? this.#resize(request) : this.#act(request))
    if (READING_COMMANDS.has(request.command)) return act()
    if (this.#rest.isWanted) return failed('an upgrade is under way: ask again in a moment')
    return this.#rest.during(act)
  }

  #act(request: ControlRequest): Promise<ControlReply> {
    const opened = this.#opened.get(this.#registry.find(request.name ?? '')?.name ?? '')
    return tellingOfReopening(opened, () => actOn(this.#registry, this.#options.log, request), this.#options.reopened)
  }

  async #resize({ name = '', words = [], flags }: ControlRequest): Promise<ControlReply> {
    const entry = this.#registry.find(name)
    if (entry === undefined || this.#leaving.has(entry)) return failed(`there is no export '${name}'`)
    const connections = () => this.connections.of(entry)
    const idle = () => untilIdle([entry], connections, this.#options.limits.shutdownTimeoutMs)
    const reply = await resizeExport(entry, Number(words[0]), { force: flags?.['force'] === true, connections, idle })
    if (reply.ok) this.#resized(entry)
    return reply
  }

  drain(): void {
    this.#draining = true
    for (const connection of this.connections.values()) connection.drain()
    for (const entry of this.#registry) entry.shutDown()
  }

  disconnect(connection: number): void {
    this.connections.get(connection)?.destroy()
  }

  remove(exportName: string, how: RemovalKind, timeoutMs: number): Promise<Removal> {
    return this.#rest.during(() => this.#remove(exportName, how, timeoutMs))
  }

  async #remove(exportName: string, how: RemovalKind, timeoutMs: number): Promise<Removal> {
    const entry = this.#registry.find(exportName)
    if (entry === undefined) throw new TypeError(`export '${exportName}' is to be removed, and is not there`)
    this.#leaving.add(entry)
    entry.shutDown()
    for (const connection of this.connections.of(entry)) how === 'force' ? connection.destroy() : connection.drain()
    const isIdle = await untilIdle([entry], () => this.connections.of(entry), timeoutMs)
    if (!isIdle) return { gone: false, unanswered: this.connections.of(entry).reduce(inFlightOf, 0), synced: false }
    for (const connection of this.connections.of(entry)) connection.destroy()
    const synced = await finalSync(entry, this.#options.log, how === 'moved')
    this.#registry.remove(entry.name)
    this.#leaving.delete(entry)
    await this.#opened.get(entry.name)?.close()
    this.#opened.delete(entry.name)
    return { gone: true, unanswered: 0, synced }
  }

  finish(timeoutMs: number): Promise<{ unanswered: number }> {
    return finish([...this.#registry], this.connections, timeoutMs)
  }

  async sync(): Promise<boolean> {
    return !(await Promise.all([...this.#registry].map((entry) => finalSync(entry, this.#options.log)))).includes(false)
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    for (const { close } of [...this.#opened.values()].reverse()) await close()
    this.#opened.clear()
  }
}
