// The NBD front end of the main thread: listeners, handshakes, and who is where. Law: it touches no storage; a connection
// whose handshake is done belongs to the host of its export.
import { closeSync } from 'node:fs'
import type { Socket } from 'node:net'
import { NoDescriptorError, type TlsContext } from '../../backends/index.js'
import type { DirectoryEntry } from '../io/directory.js'
import type { EndedFault, HostEvents } from '../io/io-host.js'
import {
  CONNECTIONS_AT,
  CONNECTIONS_REFUSED_AT,
  CONNECTIONS_TOTAL_AT,
  count,
  HANDSHAKE_FAILURES,
  HANDSHAKE_FAILURES_AT,
  reasonAt,
} from '../observe/counters.js'
import { tellable } from './connection-options.js'
import {
  boundOf,
  type Detour,
  type Guest,
  type KnownFront,
  newGuest,
  type ReadyGuest,
  type Session,
  seatsOf,
  sessionOf,
  whoIs,
} from './guest.js'
import type { ListenAddress } from './listen.js'
import { Listeners } from './listeners.js'
import type { NbdServerOptions } from './nbd-options.js'
import { type Desk, handshakeHost, type Peer, peerName } from './negotiation.js'
import { type HandOver, Reception } from './reception.js'

export class NbdServer implements HostEvents {
  readonly #options: NbdServerOptions
  readonly listeners = new Listeners((socket) => this.#accept(socket))
  readonly #guests = new Map<number, Guest>()
  #tls: TlsContext | undefined
  #connections = 0
  #draining = false
  /** Where connections go whose handshake is done, instead of to the host of their export. */
  #detour: Detour | undefined

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

  /** Clients whose handshake goes on. */
  get handshakes(): number {
    return seatsOf(this.#guests.values(), ({ reception }) => reception !== undefined)
  }

  /** Who is connected, in the order in which they came; `inFlight` by the connection's number. */
  sessions(inFlight: ReadonlyMap<number, number>): Session[] {
    return [...this.#guests].map(([connection, guest]) => sessionOf(connection, guest, inFlight))
  }

  /** Those who come from now on are secured with other credentials. */
  secureBy(tls: TlsContext | undefined): void {
    this.#tls = tls
  }

  /** Connections to an export, and those that are about to be; then those alone that are. */
  seatsAt(exportName: string): number {
    return seatsOf(this.#guests.values(), ({ seat }) => seat === exportName)
  }

  sessionsOf(exportName: string): number {
    return seatsOf(this.#guests.values(), (guest) => guest.exportName === exportName)
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
  listen(address: ListenAddress): Promise<ListenAddress> {
    return this.listeners.open(address)
  }

  get known(): KnownFront {
    const guests = [...this.#guests].flatMap(([connection, { peer, since, exportName }]) =>
      exportName === undefined ? [] : [{ connection, peer, since, exportName }],
    )
    return { guests, nextConnection: this.#connections }
  }

  /** Goes on with the clients of another process, which are attached by others. */
  goOn({ guests, nextConnection }: KnownFront): void {
    this.#connections = nextConnection
    for (const { connection, ...guest } of guests) {
      const host = this.#options.directory.find(guest.exportName)?.host
      this.#guests.set(connection, { ...guest, seat: guest.exportName, reception: undefined, host })
    }
    count(this.#options.counters, CONNECTIONS_AT, guests.length)
  }

  /** From here on clients whose handshake is done go there; without an argument to their exports again. */
  divert(detour?: Detour): void {
    this.#detour = detour
  }

  /** Another process accepts from here on; handshakes go on. */
  leave(): void {
    this.listeners.leave()
    for (const [connection, { reception }] of this.#guests) if (reception === undefined) this.#guests.delete(connection)
  }

  /** A client comes whose handshake was done in another process, which did not know who has a seat here. */
  welcome({ peer, since }: Pick<Guest, 'peer' | 'since'>, handOver: HandOver): void {
    const guest = { ...newGuest(peer), since }
    const entry = this.#options.directory.find(handOver.established.exportName)
    if (entry !== undefined && this.#enter(guest, entry) !== undefined) return closeSync(handOver.fd)
    const connection = this.#connections++
    this.#guests.set(connection, guest)
    count(this.#options.counters, CONNECTIONS_AT)
    this.attach({ connection, guest, handOver })
  }

  #accept(accepted: Socket): void {
    const { counters, directory, limits, tunnels, tlsMode = 'off' } = this.#options
    const { remoteAddress: address, remotePort: port } = accepted
    const peer: Peer = { address, port, secured: false, subject: undefined }
    if (this.#refuses(peer)) return this.#turnAway(accepted, { ...whoIs(peer), connections: this.#guests.size })
    const [connection, guest] = [this.nextConnection(), newGuest(peer)]
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
        tunnels,
        limits,
        onFault: (fault) => this.connectionFaulted(connection, tellable(fault)),
        onEnd: () => this.connectionEnded(connection),
        onEstablished: (handOver) => {
          guest.reception = undefined
          if (this.#detour === undefined) this.attach({ connection, guest, handOver })
          else this.#detour({ connection, guest, handOver })
        },
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
    return seatsOf(this.#guests.values(), ({ peer }) => peer.address === address) >= connectionsPerAddressMax
  }

  /** A seat at an export, for as long as the connection lasts; or the sentence with which it is refused. */
  #enter(guest: Guest, entry: DirectoryEntry): string | undefined {
    const { limits, log } = this.#options
    const { name } = entry
    const taken = this.seatsAt(name) + (this.#options.elsewhere?.(name) ?? 0)
    const bound = guest.seat === name ? undefined : boundOf(entry, limits.connectionsPerExportMax, taken)
    const about = { ...whoIs(guest.peer), export: name, sessions: taken }
    if (bound === undefined) guest.seat = name
    else log.limited(`client refused at export ${name}: ${bound.flag}`, about)
    return bound?.sentence
  }

  /** A client whose handshake is done goes to its export. */
  attach({ connection, guest, handOver: { fd, established, leftover } }: ReadyGuest): void {
    const entry = this.#options.directory.find(established.exportName)
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

  connectionFaulted(connection: number, { phase, reason, detail }: EndedFault): void {
    const { counters, log } = this.#options
    const guest = this.#guests.get(connection)
    if (phase === 'handshake') count(counters, HANDSHAKE_FAILURES_AT + reasonAt(HANDSHAKE_FAILURES, reason))
    const who = guest && whoIs(guest.peer)
    log.limited(phase === 'handshake' ? 'handshake failed' : 'connection lost', { ...who, reason, detail })
  }

  exportResized(exportName: string, size: number): void {
    this.#options.directory.resized(exportName, size)
    this.#options.resized?.()
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
    this.listeners.close()
  }

  /** Ends every handshake. */
  finish(): void {
    for (const { reception } of this.#guests.values()) reception?.destroy()
  }
}
