// The NBD front end of the main thread: listeners, handshakes, and who is where. Law: it touches no storage; a connection
// whose handshake is done belongs to the host of its export.
import { closeSync } from 'node:fs'
import type { Server, Socket } from 'node:net'
import { NoDescriptorError } from '../../backends/index.js'
import type { DirectoryEntry, ExportDirectory } from '../io/directory.js'
import type { EndedFault, HostEvents } from '../io/io-host.js'
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
import { type ConnectionLimits, tellable } from './connection-options.js'
import { boundOf, type Guest, newGuest, type Session, whoIs } from './guest.js'
import { type ListenAddress, listenOn } from './listen.js'
import { type Desk, handshakeHost, type Peer, peerName } from './negotiation.js'
import { type HandOver, Reception, type ReceptionLimits } from './reception.js'
import type { TlsMode, TlsUpgrade } from './tls.js'

export interface NbdLimits extends ConnectionLimits, ReceptionLimits {
  /** One more is closed as soon as it is accepted. */
  readonly connectionsMax: number
  /** The same for each client address; Unix sockets have none. */
  readonly connectionsPerAddressMax: number
  /** The same for each export, refused in the handshake. */
  readonly connectionsPerExportMax: number
}

export interface NbdServerOptions {
  readonly directory: ExportDirectory
  readonly counters: Counters
  readonly limits: NbdLimits
  readonly log: Log
  readonly tlsMode?: TlsMode
  readonly tls?: TlsUpgrade | undefined
}

export class NbdServer implements HostEvents {
  readonly #options: NbdServerOptions
  readonly #servers: Server[] = []
  readonly #guests = new Map<number, Guest>()
  #tls: TlsUpgrade | undefined
  #connections = 0
  #draining = false

  constructor(options: NbdServerOptions) {
    this.#options = options
    this.#tls = options.tls
  }

  /** The number of one more connection, of this front end or of another. */
  nextConnection(): number {
    return this.#connections++
  }

  /** Connections that are open now. */
  get connections(): number {
    return this.#guests.size
  }

  /** Who is connected, in the order in which they came; `inFlight` by the connection's number. */
  sessions(inFlight: ReadonlyMap<number, number>): Session[] {
    return [...this.#guests].map(([connection, { peer, since, exportName }]) => {
      const requests = exportName === undefined ? 0 : inFlight.get(connection)
      return {
        id: connection,
        ...whoIs(peer),
        tls: peer.secured,
        ...(exportName !== undefined && { export: exportName }),
        since: new Date(since).toISOString(),
        ageSeconds: (Date.now() - since) / 1000,
        ...(requests !== undefined && { inFlight: requests }),
      }
    })
  }

  /** Those who come from now on are secured with other credentials. */
  secureBy(tls: TlsUpgrade | undefined): void {
    this.#tls = tls
  }

  /** Connections to an export. */
  sessionsOf(exportName: string): number {
    let sessions = 0
    for (const guest of this.#guests.values()) if (guest.exportName === exportName) sessions += 1
    return sessions
  }

  /** Ends a connection; false when there is none of this number. */
  disconnect(connection: number): boolean {
    const guest = this.#guests.get(connection)
    if (guest === undefined) return false
    guest.reception?.destroy()
    guest.host?.disconnect(connection)
    return true
  }

  /** Listens on one more address; returns it with its real port. @throws OpenError */
  async listen(address: ListenAddress): Promise<ListenAddress> {
    const listening = await listenOn(address, (socket) => this.#accept(socket))
    this.#servers.push(listening.server)
    return listening.address
  }

  #accept(accepted: Socket): void {
    const { counters, directory, limits, tlsMode = 'off' } = this.#options
    const peer: Peer = {
      address: accepted.remoteAddress,
      port: accepted.remotePort,
      secured: false,
      subject: undefined,
    }
    if (this.#refuses(peer)) return this.#turnAway(accepted, { ...whoIs(peer), connections: this.#guests.size })
    const connection = this.nextConnection()
    const guest = newGuest(peer)
    const desk: Desk = {
      directory,
      tls: tlsMode,
      offersTls: this.#tls !== undefined,
      isShuttingDown: () => this.#draining,
      enter: (entry) => this.#enter(guest, entry),
    }
    try {
      guest.reception = new Reception({
        accepted,
        peer,
        host: handshakeHost(desk, peer),
        tls: this.#tls,
        limits,
        onFault: (fault) => this.connectionFaulted(connection, tellable(fault)),
        onEnd: () => this.connectionEnded(connection),
        onEstablished: (handOver) => this.#attach(connection, guest, handOver),
      })
    } catch (error) {
      if (!(error instanceof NoDescriptorError)) throw error
      return this.#turnAway(accepted, { ...whoIs(peer), reason: error.message })
    }
    this.#guests.set(connection, guest)
    count(counters, CONNECTIONS_AT)
    count(counters, CONNECTIONS_TOTAL_AT)
  }

  #turnAway(accepted: Socket, about: Readonly<Record<string, unknown>>): void {
    const { counters, log } = this.#options
    accepted.destroy()
    count(counters, CONNECTIONS_REFUSED_AT)
    log.limited('connection refused', about)
  }

  #refuses({ address }: Peer): boolean {
    const { connectionsMax, connectionsPerAddressMax } = this.#options.limits
    if (this.#draining || this.#guests.size >= connectionsMax) return true
    if (address === undefined) return false
    let same = 0
    for (const { peer } of this.#guests.values()) if (peer.address === address) same += 1
    return same >= connectionsPerAddressMax
  }

  /** A seat at an export, for as long as the connection lasts; or the sentence with which it is refused. */
  #enter(guest: Guest, entry: DirectoryEntry): string | undefined {
    const { limits, log } = this.#options
    const { name } = entry
    const bound = boundOf(entry, limits.connectionsPerExportMax, this.#guests.values())
    if (bound === undefined || guest.seat === name) {
      guest.seat = name
      return undefined
    }
    const { flag, taken } = bound
    log.limited(`client refused at export ${name}: ${flag}`, { ...whoIs(guest.peer), export: name, sessions: taken })
    const others = taken === 1 ? 'another client' : `${taken} clients`
    return `export '${name}' is in use by ${others}, and takes no more (${flag})`
  }

  #attach(connection: number, guest: Guest, { fd, established, leftover }: HandOver): void {
    const entry = this.#options.directory.find(established.exportName)
    guest.reception = undefined
    if (entry === undefined || entry.leaving) {
      // It left between the last reply of the handshake and this turn.
      closeSync(fd)
      return this.connectionEnded(connection)
    }
    guest.exportName = entry.name
    guest.host = entry.host
    this.#options.log.info({ ...whoIs(guest.peer), export: entry.name }, 'client attached')
    const client = peerName(guest.peer)
    entry.host.attach({ connection, fd, exportName: entry.name, established, leftover, client })
  }

  // HostEvents

  connectionFaulted(connection: number, { phase, reason, detail }: EndedFault): void {
    const { counters, log } = this.#options
    const guest = this.#guests.get(connection)
    if (phase === 'handshake') count(counters, HANDSHAKE_FAILURES_AT + reasonAt(HANDSHAKE_FAILURES, reason))
    const who = guest === undefined ? {} : whoIs(guest.peer)
    log.limited(phase === 'handshake' ? 'handshake failed' : 'connection lost', { ...who, reason, detail })
  }

  connectionEnded(connection: number): void {
    const { counters, log } = this.#options
    const guest = this.#guests.get(connection)
    if (guest === undefined) return
    this.#guests.delete(connection)
    count(counters, CONNECTIONS_AT, -1)
    if (guest.exportName !== undefined) log.info(whoIs(guest.peer), 'client detached')
  }

  /** Stops accepting; handshakes that go on are told that the server leaves. */
  drain(): void {
    this.#draining = true
    for (const server of this.#servers) server.close()
  }

  /** Ends every handshake. */
  finish(): void {
    for (const { reception } of this.#guests.values()) reception?.destroy()
  }
}

export type { Session } from './guest.js'
