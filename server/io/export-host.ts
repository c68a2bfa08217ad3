// The exports of one thread, and the connections that came to them. Law: whoever is attached here is served here to the
// end; nothing of an export is known in two threads.
import { closeSync } from 'node:fs'
import { DONE, errnoName, errnoOf, type OpenedImage, type Reopen } from '../../backends/index.js'
import type { ExportConfig } from '../config.js'
import { actOn, type ControlReply, type ControlRequest } from '../control/export-actions.js'
import { Backings } from '../exports/backings.js'
import type { Export } from '../exports/export.js'
import { openExport } from '../exports/open-export.js'
import { ExportRegistry } from '../exports/registry.js'
import { Connection } from '../nbd/connection.js'
import { type ConnectionLimits, tellable } from '../nbd/connection-options.js'
import { describeExport } from '../nbd/negotiation.js'
import type { BackingShare } from '../observe/backing-block.js'
import { type Counters, count, PROTOCOL_ERRORS, PROTOCOL_ERRORS_AT, pulseBlock, reasonAt } from '../observe/counters.js'
import type { Log } from '../observe/log.js'
import { VhostUserSessions } from '../vhost-user/sessions.js'
import type { AttachOrder, EndedFault, ExportFace, HostEvents, IoHost, Removal, VhostUserOrder } from './io-host.js'

export interface ExportHostOptions {
  readonly limits: ConnectionLimits
  readonly stateDirectory: string | undefined
  readonly log: Log
  readonly events: HostEvents
  readonly pulse?: Counters
  /** Opens an image that was let go of; without it, in this thread. */
  readonly reopen?: Reopen
}

/** A connection of either front end. */
interface Served {
  readonly served: Export
  readonly inFlight: number
  /** Bytes that the peer has not taken yet. */
  readonly backlog: number
  readonly isBusy: boolean
  drain(): void
  destroy(): void
}

/** How often write-back is asked whether it failed, and the pulse is felt. */
const BEAT_MS = 1000
const FINISH_POLL_MS = 20

export class ExportHost implements IoHost {
  readonly pulse: Counters
  readonly #options: ExportHostOptions
  readonly #registry = new ExportRegistry<Export>()
  readonly #backings = new Backings()
  readonly #connections = new Map<number, Served>()
  readonly #vhostUsers = new VhostUserSessions()
  readonly #closing = new Map<string, () => Promise<void>>()
  /** Exports that are being removed. */
  readonly #leaving = new Set<Export>()
  readonly #timer: NodeJS.Timeout
  #draining = false

  constructor(options: ExportHostOptions) {
    this.#options = options
    this.pulse = options.pulse ?? pulseBlock()
    this.#beat()
    this.#timer = setInterval(() => this.#beat(), BEAT_MS)
    this.#timer.unref()
  }

  #beat(): void {
    this.pulse[0] = Date.now()
    for (const entry of this.#registry) entry.beat()
  }

  /** Bytes of replies that peers have not taken yet. */
  get backlog(): number {
    let bytes = 0
    for (const connection of this.#connections.values()) bytes += connection.backlog
    return bytes
  }

  async open(config: ExportConfig, image: OpenedImage, share: BackingShare | undefined): Promise<ExportFace> {
    const { stateDirectory, log, reopen } = this.#options
    const backing = share && this.#backings.of(share)
    const { entry, close } = await openExport(config, { image, reopen }, stateDirectory, log, backing)
    this.#closing.set(config.name, close)
    return this.adopt(entry)
  }

  /** Serves an export whose storage is somebody else's to close. */
  adopt(entry: Export): ExportFace {
    this.#registry.add(entry)
    return { ...describeExport(entry), readOnly: entry.readOnly, counters: entry.counters }
  }

  attach({ connection, fd, exportName, established, leftover, client }: AttachOrder): void {
    const { limits, events } = this.#options
    const served = this.#registry.find(exportName)
    if (served === undefined || this.#leaving.has(served)) {
      closeSync(fd)
      return events.connectionEnded(connection)
    }
    const attached = new Connection({
      fd,
      leftover,
      served,
      established,
      client,
      limits: { ...limits, ...served.limits },
      onFault: (fault) => this.#faulted(connection, tellable(fault)),
      onEnd: () => this.#ended(connection),
    })
    if (this.#draining) attached.drain()
    this.#connections.set(connection, attached)
    attached.start()
  }

  attachVhostUser({ connection, fd, exportName, client }: VhostUserOrder): void {
    const found = this.#registry.find(exportName)
    const served = found !== undefined && this.#leaving.has(found) ? undefined : found
    const onFault = (fault: EndedFault) => this.#faulted(connection, fault)
    const onEnd = () => this.#ended(connection)
    const attached = this.#vhostUsers.attach({ fd, served, client, limits: this.#options.limits, onFault, onEnd })
    if (attached === undefined) return
    if (this.#draining) attached.drain()
    this.#connections.set(connection, attached)
  }

  #faulted(connection: number, fault: EndedFault): void {
    // Counted here, so that the number is there before the peer can notice its end.
    if (fault.isProtocolError) count(this.pulse, PROTOCOL_ERRORS_AT + reasonAt(PROTOCOL_ERRORS, fault.reason))
    this.#options.events.connectionFaulted(connection, fault)
  }

  #ended(connection: number): void {
    this.#connections.delete(connection)
    this.#options.events.connectionEnded(connection)
  }

  /** What guests may be told of an export has changed, as its size has. */
  configChanged(exportName: string): void {
    this.#vhostUsers.configChanged(exportName)
  }

  async ask(request: ControlRequest): Promise<ControlReply> {
    if (request.command === 'sessions') {
      return { ok: true, result: [...this.#connections].map(([connection, { inFlight }]) => [connection, inFlight]) }
    }
    return actOn(this.#registry, this.#options.log, request)
  }

  drain(): void {
    this.#draining = true
    for (const connection of this.#connections.values()) connection.drain()
    for (const entry of this.#registry) entry.shutDown()
  }

  disconnect(connection: number): void {
    this.#connections.get(connection)?.destroy()
  }

  async remove(exportName: string, force: boolean, timeoutMs: number): Promise<Removal> {
    const entry = this.#registry.find(exportName)
    if (entry === undefined) throw new TypeError(`export '${exportName}' is to be removed, and is not there`)
    this.#leaving.add(entry)
    entry.shutDown()
    for (const connection of this.connectionsOf(entry)) force ? connection.destroy() : connection.drain()
    const isIdle = await this.#idle([entry], () => this.connectionsOf(entry), timeoutMs)
    if (!isIdle) return { gone: false, unanswered: this.connectionsOf(entry).reduce(inFlightOf, 0), synced: false }
    for (const connection of this.connectionsOf(entry)) connection.destroy()
    const synced = await this.#finalSync(entry)
    this.#registry.remove(entry.name)
    this.#leaving.delete(entry)
    await this.#closing.get(entry.name)?.()
    this.#closing.delete(entry.name)
    return { gone: true, unanswered: 0, synced }
  }

  connectionsOf(entry: Export): Served[] {
    return [...this.#connections.values()].filter(({ served }) => served === entry)
  }

  async finish(timeoutMs: number): Promise<{ unanswered: number }> {
    const connections = () => [...this.#connections.values()]
    await this.#idle([...this.#registry], connections, timeoutMs)
    const unanswered = connections().reduce(inFlightOf, 0)
    for (const connection of connections()) connection.destroy()
    return { unanswered }
  }

  /** Waits until nothing is in flight and all replies are taken; false when that took too long. */
  async #idle(entries: Iterable<Export>, connections: () => Iterable<Served>, timeoutMs: number): Promise<boolean> {
    const deadline = performance.now() + timeoutMs
    while (isBusy(entries, connections())) {
      if (performance.now() >= deadline) return false
      await new Promise((resolve) => setTimeout(resolve, FINISH_POLL_MS))
    }
    return true
  }

  async sync(): Promise<boolean> {
    const synced = await Promise.all([...this.#registry].map((entry) => this.#finalSync(entry)))
    return !synced.includes(false)
  }

  async #finalSync(entry: Export): Promise<boolean> {
    const outcome = await entry.flush()
    entry.wasSynced = outcome === DONE && entry.waiting.oldest === undefined
    if (outcome === DONE) return true
    entry.notSynced(errnoOf(outcome))
    const errno = errnoName(errnoOf(outcome))
    this.#options.log.error({ export: entry.name, errno }, `the final sync of export ${entry.name} failed: ${errno}`)
    return false
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    for (const close of [...this.#closing.values()].reverse()) await close()
    this.#closing.clear()
  }
}

function isBusy(entries: Iterable<Export>, connections: Iterable<Served>): boolean {
  // Requests whose connection is gone are on their way through storage all the same, and a sync must not overtake them.
  for (const { waiting } of entries) if (waiting.oldest !== undefined) return true
  for (const connection of connections) if (connection.isBusy) return true
  return false
}

function inFlightOf(sum: number, { inFlight }: Served): number {
  return sum + inFlight
}
