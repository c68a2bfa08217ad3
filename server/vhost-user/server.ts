// The vhost-user front end of the main thread: listeners, and who is where. Law: it reads nothing of a session; a connection
// belongs to the host of its export as soon as it is accepted.
import type { Socket } from 'node:net'
import { NoDescriptorError, OpenError } from '../../backends/index.js'
import type { DirectoryEntry, ExportDirectory } from '../io/directory.js'
import type { ConnectionEvents, EndedFault, IoHost } from '../io/io-host.js'
import { descriptorOf } from '../nbd/adopt-socket.js'
import { boundOf, type Session } from '../nbd/guest.js'
import { type ListenAddress, type Listener, listenOn, listenOnMoved } from '../nbd/listen.js'
import {
  CONNECTIONS_AT,
  CONNECTIONS_REFUSED_AT,
  CONNECTIONS_TOTAL_AT,
  type Counters,
  count,
  HANDSHAKE_FAILURES,
  HANDSHAKE_FAILURES_AT,
  reasonAt,
} from '../observe/counters.js'
import type { Log } from '../observe/log.js'
import { listens } from './inherited-socket.js'

export type VhostUserAddress = Extract<ListenAddress, { readonly kind: 'vhost-user' }>

/** Every peer is on this machine, and has no name. */
const PEER = 'vhost-user'

export interface VhostUserServerOptions {
  readonly directory: ExportDirectory
  readonly counters: Counters
  readonly limits: { readonly connectionsMax: number; readonly connectionsPerExportMax: number }
  readonly log: Log
  /** Numbers of connections, which all front ends share. */
  readonly nextConnection: () => number
  /** Sessions at an export that came in by other doors. */
  readonly elsewhere: (exportName: string) => number
  /** A guest has gone. */
  readonly guestLeft?: (() => void) | undefined
}

interface Guest {
  /** When it was accepted, in ms since the epoch. */
  readonly since: number
  readonly exportName: string
  readonly host: IoHost
}

export class VhostUserServer implements ConnectionEvents {
  readonly #options: VhostUserServerOptions
  readonly listeners: Listener[] = []
  readonly #guests = new Map<number, Guest>()
  #draining = false
  /** Nobody is let in for a moment: guests that come again are. */
  isFrozen = false

  constructor(options: VhostUserServerOptions) {
    this.#options = options
  }

  has(connection: number): boolean {
    return this.#guests.has(connection)
  }

  /** Who is connected; `inFlight` by the connection's number. */
  sessions(inFlight: ReadonlyMap<number, number>): Session[] {
    return [...this.#guests].map(([connection, { since, exportName }]) => {
      const requests = inFlight.get(connection)
      return {
        id: connection,
        peer: PEER,
        tls: false,
        export: exportName,
        since: new Date(since).toISOString(),
        ageSeconds: (Date.now() - since) / 1000,
        ...(requests !== undefined && { inFlight: requests }),
      }
    })
  }

  /** Connections to an export. */
  sessionsOf(exportName: string): number {
    return [...this.#guests.values()].filter((guest) => guest.exportName === exportName).length
  }

  /** Ends a connection; false when there is none of this number. */
  disconnect(connection: number): boolean {
    const guest = this.#guests.get(connection)
    guest?.host.disconnect(connection)
    return guest !== undefined
  }

  /** Guests that are attached. */
  get guests(): number {
    return this.#guests.size
  }

  /** Serves one export on one more socket, or on one of another process. @throws OpenError */
  async listen(address: VhostUserAddress, fd?: number): Promise<VhostUserAddress> {
    const { directory } = this.#options
    const entry = directory.find(address.exportName)
    if (entry === undefined) {
      throw new OpenError(
        `--listen vhost-user names export '${address.exportName}', which is not served: see the images`,
      )
    }
    const onSocket = (socket: Socket) => this.#accept(socket, entry.name)
    const { fd: handedOver } = address
    if (fd !== undefined) this.listeners.push(await listenOnMoved(fd, address, onSocket))
    else if (handedOver === undefined) this.listeners.push(await listenOn(address, onSocket))
    else if (!listens(handedOver)) this.take(handedOver, entry)
    else this.listeners.push(await listenOn({ kind: 'inherited', fd: handedOver }, onSocket))
    return address
  }

  #accept(accepted: Socket, exportName: string): void {
    const { directory, limits } = this.#options
    const entry = directory.find(exportName)
    if (this.#draining || this.isFrozen || this.#guests.size >= limits.connectionsMax) {
      return this.#turnAway(accepted, { connections: this.#guests.size })
    }
    if (entry === undefined || entry.leaving)
      return this.#turnAway(accepted, { export: exportName, reason: 'not served' })
    const taken = this.sessionsOf(exportName) + this.#options.elsewhere(exportName)
    const bound = boundOf(entry, limits.connectionsPerExportMax, taken)
    if (bound !== undefined) return this.#turnAway(accepted, { export: exportName, reason: bound.flag })
    try {
      this.take(descriptorOf(accepted), entry)
    } catch (error) {
      if (!(error instanceof NoDescriptorError)) throw error
      this.#turnAway(accepted, { reason: error.message })
    }
  }

  #turnAway(accepted: Socket, about: Readonly<Record<string, unknown>>): void {
    const { counters, log } = this.#options
    accepted.destroy()
    count(counters, CONNECTIONS_REFUSED_AT)
    log.limited('connection refused', { peer: PEER, ...about })
  }

  /** A connected socket, the server's own from here on. */
  take(fd: number, { name, host }: DirectoryEntry): void {
    const { counters, log, nextConnection } = this.#options
    count(counters, CONNECTIONS_AT)
    count(counters, CONNECTIONS_TOTAL_AT)
    const connection = nextConnection()
    this.#guests.set(connection, { since: Date.now(), exportName: name, host })
    log.info({ peer: PEER, export: name }, 'guest attached')
    host.attachVhostUser({ connection, fd, exportName: name, client: PEER })
  }

  // ConnectionEvents

  connectionFaulted(connection: number, { phase, reason, detail }: EndedFault): void {
    const { counters, log } = this.#options
    if (phase === 'handshake') count(counters, HANDSHAKE_FAILURES_AT + reasonAt(HANDSHAKE_FAILURES, reason))
    const exportName = this.#guests.get(connection)?.exportName
    log.limited(phase === 'handshake' ? 'guest refused' : 'connection lost', {
      peer: PEER,
      ...(exportName !== undefined && { export: exportName }),
      reason,
      detail,
    })
  }

  connectionEnded(connection: number): void {
    const guest = this.#guests.get(connection)
    if (guest === undefined) return
    this.#guests.delete(connection)
    count(this.#options.counters, CONNECTIONS_AT, -1)
    this.#options.log.info({ peer: PEER, export: guest.exportName }, 'guest detached')
    this.#options.guestLeft?.()
  }

  /** Stops accepting. */
  drain(): void {
    this.#draining = true
    for (const listener of this.listeners) listener.close()
  }
}
