// The NBD front end: listeners, and the connections that came in through them.
import type { Server, Socket } from 'node:net'
import { ProtocolError } from 'nbd-protocol'
import type { ExportRegistry } from '../exports/registry.js'
import {
  CONNECTIONS_AT,
  CONNECTIONS_REFUSED_AT,
  CONNECTIONS_TOTAL_AT,
  type Counters,
  count,
  HANDSHAKE_FAILURES,
  HANDSHAKE_FAILURES_AT,
  PROTOCOL_ERRORS,
  PROTOCOL_ERRORS_AT,
} from '../observe/counters.js'
import type { Log } from '../observe/log.js'
import { Connection } from './connection.js'
import type { ConnectionFault, ConnectionLimits } from './connection-options.js'
import { type ListenAddress, listenOn } from './listen.js'
import { handshakeHost, type Peer, peerName } from './negotiation.js'
import type { TlsMode, TlsUpgrade } from './tls.js'

export interface NbdLimits extends ConnectionLimits {
  /** One more is closed as soon as it is accepted. */
  readonly connectionsMax: number
  /** The same for each client address; Unix sockets have none. */
  readonly connectionsPerAddressMax: number
}

export interface NbdServerOptions {
  readonly registry: ExportRegistry
  readonly counters: Counters
  readonly limits: NbdLimits
  readonly log: Log
  readonly tlsMode?: TlsMode
  readonly tls?: TlsUpgrade | undefined
}

const DRAIN_POLL_MS = 20

export class NbdServer {
  readonly #options: NbdServerOptions
  readonly #servers: Server[] = []
  readonly #connections = new Map<Connection, Peer>()
  #draining = false

  constructor(options: NbdServerOptions) {
    this.#options = options
  }

  /** Connections that are open now. */
  get connections(): number {
    return this.#connections.size
  }

  /** Bytes of replies that peers have not taken yet. */
  get backlog(): number {
    let bytes = 0
    for (const connection of this.#connections.keys()) bytes += connection.backlog
    return bytes
  }

  /** Listens on one more address; returns it with its real port. @throws OpenError */
  async listen(address: ListenAddress): Promise<ListenAddress> {
    const listening = await listenOn(address, (socket) => this.#accept(socket))
    this.#servers.push(listening.server)
    return listening.address
  }

  #accept(accepted: Socket): void {
    const { counters, limits, log, registry, tls, tlsMode = 'off' } = this.#options
    const peer: Peer = { address: accepted.remoteAddress, port: accepted.remotePort, subject: undefined }
    if (this.#refuses(peer)) {
      accepted.destroy()
      count(counters, CONNECTIONS_REFUSED_AT)
      log.limited('connection refused', { ...whoIs(peer), connections: this.#connections.size })
      return
    }
    count(counters, CONNECTIONS_AT)
    count(counters, CONNECTIONS_TOTAL_AT)
    const connection: Connection = new Connection({
      accepted,
      registry,
      peer,
      host: handshakeHost(registry, tlsMode, peer, () => this.#draining),
      tls,
      limits,
      onTransmission: (exportName) => log.info({ ...whoIs(peer), export: exportName }, 'client attached'),
      onFault: (fault) => this.#faulted(peer, fault),
      onEnd: () => this.#ended(connection, peer),
    })
    this.#connections.set(connection, peer)
  }

  #refuses({ address }: Peer): boolean {
    const { connectionsMax, connectionsPerAddressMax } = this.#options.limits
    if (this.#draining || this.#connections.size >= connectionsMax) return true
    if (address === undefined) return false
    let same = 0
    for (const peer of this.#connections.values()) if (peer.address === address) same += 1
    return same >= connectionsPerAddressMax
  }

  #ended(connection: Connection, peer: Peer): void {
    const { counters, log } = this.#options
    this.#connections.delete(connection)
    count(counters, CONNECTIONS_AT, -1)
    if (connection.attached) log.info(whoIs(peer), 'client detached')
  }

  #faulted(peer: Peer, { phase, fault }: ConnectionFault): void {
    const { counters, log } = this.#options
    const reason = fault instanceof ProtocolError ? fault.code : typeof fault === 'string' ? fault : 'other'
    if (phase === 'handshake') count(counters, HANDSHAKE_FAILURES_AT + indexOr(HANDSHAKE_FAILURES, reason))
    else if (fault instanceof ProtocolError) count(counters, PROTOCOL_ERRORS_AT + indexOr(PROTOCOL_ERRORS, reason))
    const detail = fault instanceof Error ? fault.message : fault
    log.limited(phase === 'handshake' ? 'handshake failed' : 'connection lost', { ...whoIs(peer), reason, detail })
  }

  /** Stops accepting, and refuses every new request with NBD_ESHUTDOWN. */
  drain(): void {
    this.#draining = true
    for (const server of this.#servers) server.close()
    for (const connection of this.#connections.keys()) connection.drain()
  }

  /** Waits until nothing is in flight and all replies are taken, or the time is over; then ends every connection. */
  async finish(timeoutMs: number): Promise<{ unanswered: number }> {
    const deadline = performance.now() + timeoutMs
    while (this.#busy() && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, DRAIN_POLL_MS))
    }
    let unanswered = 0
    for (const connection of this.#connections.keys()) {
      unanswered += connection.inFlight
      connection.destroy()
    }
    return { unanswered }
  }

  #busy(): boolean {
    // Requests whose connection is gone are on their way through storage all the same, and a sync must not overtake them.
    for (const { waiting } of this.#options.registry) if (waiting.oldest !== undefined) return true
    for (const { inFlight, backlog } of this.#connections.keys()) if (inFlight > 0 || backlog > 0) return true
    return false
  }
}

function whoIs(peer: Peer): { peer: string; subject?: string } {
  const { subject } = peer
  return { peer: peerName(peer), ...(subject !== undefined && { subject }) }
}

function indexOr(names: readonly string[], name: string): number {
  const index = names.indexOf(name)
  return index === -1 ? names.indexOf('other') : index
}
