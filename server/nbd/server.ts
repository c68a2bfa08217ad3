// The NBD front end of the main thread: listeners, handshakes, and who is where. Law: it touches no storage; a connection
// whose handshake is done belongs to the host of its export.
import { closeSync } from 'node:fs'
import type { Server, Socket } from 'node:net'
import { NoDescriptorError } from '../../backends/index.js'
import type { ExportDirectory } from '../io/directory.js'
import type { EndedFault, HostEvents, IoHost } from '../io/io-host.js'
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
import { type ListenAddress, listenOn } from './listen.js'
import { handshakeHost, type Peer, peerName } from './negotiation.js'
import { type HandOver, Reception, type ReceptionLimits } from './reception.js'
import type { TlsMode, TlsUpgrade } from './tls.js'

export interface NbdLimits extends ConnectionLimits, ReceptionLimits {
  /** One more is closed as soon as it is accepted. */
  readonly connectionsMax: number
  /** The same for each client address; Unix sockets have none. */
  readonly connectionsPerAddressMax: number
}

/** A connection as people look at it. */
export interface Session {
  /** By which `candor ctl disconnect` knows it. */
  readonly id: number
  /** Address and port, or 'unix'. */
  readonly peer: string
  /** Subject of the verified client certificate. */
  readonly subject?: string
  readonly tls: boolean
  /** Absent while the handshake lasts. */
  readonly export?: string
  /** ISO 8601. */
  readonly since: string
  readonly ageSeconds: number
  /** Requests that were taken and not answered yet; absent where the thread that knows waits for its storage. */
  readonly inFlight?: number
}

export interface NbdServerOptions {
  readonly directory: ExportDirectory
  readonly counters: Counters
  readonly limits: NbdLimits
  readonly log: Log
  readonly tlsMode?: TlsMode
  readonly tls?: TlsUpgrade | undefined
}

/** A connection, wherever it is. */
interface Guest {
  readonly peer: Peer
  /** When it was accepted, in ms since the epoch. */
  readonly since: number
  /** While the handshake lasts. */
  reception: Reception | undefined
  /** The export, and where it lives, once it is known. */
  exportName: string | undefined
  host: IoHost | undefined
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
    const guest: Guest = { peer, since: Date.now(), reception: undefined, exportName: undefined, host: undefined }
    try {
      guest.reception = new Reception({
        accepted,
        peer,
        host: handshakeHost(directory, tlsMode, peer, () => this.#draining),
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

function whoIs(peer: Peer): { peer: string; subject?: string } {
  const { subject } = peer
  return { peer: peerName(peer), ...(subject !== undefined && { subject }) }
}
