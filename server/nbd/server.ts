// The NBD front end: listeners, and the connections that came in through them.
import type { Server, Socket } from 'node:net'
import type { HandshakeHost } from 'nbd-protocol'
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
import { Connection, type ConnectionEnd, type ConnectionLimits } from './connection.js'
import { type ListenAddress, listenOn } from './listen.js'
import { handshakeHost } from './negotiation.js'

export interface NbdLimits extends ConnectionLimits {
  /** One more is closed as soon as it is accepted. */
  readonly connectionsMax: number
}

export interface NbdServerOptions {
  readonly registry: ExportRegistry
  readonly counters: Counters
  readonly limits: NbdLimits
  readonly log: Log
}

const DRAIN_POLL_MS = 20

export class NbdServer {
  readonly #options: NbdServerOptions
  readonly #host: HandshakeHost
  readonly #servers: Server[] = []
  readonly #connections = new Set<Connection>()
  #draining = false

  constructor(options: NbdServerOptions) {
    this.#options = options
    this.#host = handshakeHost(options.registry, () => this.#draining)
  }

  /** Connections that are open now. */
  get connections(): number {
    return this.#connections.size
  }

  /** Bytes of replies that peers have not taken yet. */
  get backlog(): number {
    let bytes = 0
    for (const connection of this.#connections) bytes += connection.backlog
    return bytes
  }

  /** Listens on one more address; returns it with its real port. @throws OpenError */
  async listen(address: ListenAddress): Promise<ListenAddress> {
    const listening = await listenOn(address, (socket) => this.#accept(socket))
    this.#servers.push(listening.server)
    return listening.address
  }

  #accept(accepted: Socket): void {
    const { counters, limits, log, registry } = this.#options
    if (this.#draining || this.#connections.size >= limits.connectionsMax) {
      accepted.destroy()
      count(counters, CONNECTIONS_REFUSED_AT)
      log.limited('connection refused', { connections: this.#connections.size, connectionsMax: limits.connectionsMax })
      return
    }
    const peer = accepted.remoteAddress === undefined ? 'unix' : `${accepted.remoteAddress}:${accepted.remotePort}`
    count(counters, CONNECTIONS_AT)
    count(counters, CONNECTIONS_TOTAL_AT)
    const connection: Connection = new Connection({
      accepted,
      registry,
      host: this.#host,
      limits,
      onTransmission: (exportName) => log.info({ peer, export: exportName }, 'client attached'),
      onEnd: (end) => this.#ended(connection, peer, end),
    })
    this.#connections.add(connection)
  }

  #ended(connection: Connection, peer: string, { phase, fault }: ConnectionEnd): void {
    const { counters, log } = this.#options
    this.#connections.delete(connection)
    count(counters, CONNECTIONS_AT, -1)
    if (fault === undefined) {
      if (phase === 'transmission') log.info({ peer }, 'client detached')
      return
    }
    const reason = fault instanceof ProtocolError ? fault.code : typeof fault === 'string' ? fault : 'other'
    if (phase === 'handshake') count(counters, HANDSHAKE_FAILURES_AT + indexOr(HANDSHAKE_FAILURES, reason))
    else if (fault instanceof ProtocolError) count(counters, PROTOCOL_ERRORS_AT + indexOr(PROTOCOL_ERRORS, reason))
    const detail = fault instanceof Error ? fault.message : fault
    log.limited(phase === 'handshake' ? 'handshake failed' : 'connection lost', { peer, reason, detail })
  }

  /** Stops accepting, and refuses every new request with NBD_ESHUTDOWN. */
  drain(): void {
    this.#draining = true
    for (const server of this.#servers) server.close()
    for (const connection of this.#connections) connection.drain()
  }

  /** Waits until nothing is in flight and all replies are taken, or the time is over; then ends every connection. */
  async finish(timeoutMs: number): Promise<{ unanswered: number }> {
    const deadline = performance.now() + timeoutMs
    while (this.#busy() && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, DRAIN_POLL_MS))
    }
    let unanswered = 0
    for (const connection of this.#connections) {
      unanswered += connection.inFlight
      connection.destroy()
    }
    return { unanswered }
  }

  #busy(): boolean {
    for (const { inFlight, backlog } of this.#connections) if (inFlight > 0 || backlog > 0) return true
    return false
  }
}

function indexOr(names: readonly string[], name: string): number {
  const index = names.indexOf(name)
  return index === -1 ? names.indexOf('other') : index
}
