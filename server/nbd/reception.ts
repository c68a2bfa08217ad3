// The handshake of one client, in the main thread: from its greeting to the export it asked for, where the connection is
// handed over. Law: whatever the peer sends, the worst that happens is the end of this connection, counted and logged once.
import { closeSync } from 'node:fs'
import type { Socket } from 'node:net'
import { Handshake, type HandshakeHost, type HandshakeLimits, ProtocolError } from 'nbd-protocol'
import { NoDescriptorError, type TlsContext } from '../../backends/index.js'
import { type AdoptedSocket, adoptSocket, type ByteSink, descriptorOf, socketOn } from './adopt-socket.js'
import type { ConnectionFault } from './connection-options.js'
import type { Established, Peer } from './negotiation.js'
import { TlsOutcome } from './tls.js'
import { Transport } from './transport.js'
import type { Tunnels } from './tunnel.js'

export interface ReceptionLimits extends HandshakeLimits {
  /** From accept to the end of the handshake. */
  readonly handshakeTimeoutMs: number
}

/** A socket whose handshake is done, with what came behind it. */
export interface HandOver {
  readonly established: Established
  readonly fd: number
  readonly leftover: Uint8Array
}

export interface ReceptionOptions {
  readonly accepted: Socket
  /** Who is at the other end; a verified certificate's subject is added when TLS brings one. */
  readonly peer: Peer
  readonly host: HandshakeHost
  /** undefined: NBD_OPT_STARTTLS is refused by the host. */
  readonly tls: TlsContext | undefined
  /** Where a socket goes that is to be secured. */
  readonly tunnels: Tunnels | undefined
  readonly limits: ReceptionLimits
  readonly onFault: (fault: ConnectionFault) => void
  /** The socket is closed, and no handshake was completed. */
  readonly onEnd: () => void
  readonly onEstablished: (handOver: HandOver) => void
}

/** All handshakes share it: what arrives is used up before anybody else reads. */
const slab = Buffer.allocUnsafeSlow(64 << 10)
const NOTHING = new Uint8Array(0)

export class Reception implements ByteSink {
  readonly target = slab
  readonly #options: ReceptionOptions
  readonly #handshake: Handshake
  readonly #timer: NodeJS.Timeout
  #transport: Transport
  /** Of the TLS handshake that goes on. */
  #securing: TlsOutcome | undefined
  /** The socket is about to be replaced by the tunnel's. */
  #changing = false
  #ended = false
  #gone = false

  /** @throws NoDescriptorError, and has taken nothing then */
  constructor(options: ReceptionOptions) {
    this.#options = options
    this.#handshake = new Handshake(options.host, options.limits)
    this.#transport = this.#transportOver(adoptSocket(options.accepted, this))
    this.#timer = setTimeout(() => this.#end('time-out'), options.limits.handshakeTimeoutMs)
    this.#transport.write(this.#handshake.greeting())
    this.#transport.resumeReading()
  }

  #transportOver(adopted: AdoptedSocket): Transport {
    return new Transport(adopted, {
      onDrained: () => {},
      onError: (error) => this.#end(error),
      onEnd: () => this.#end('disconnect'),
      onClose: () => this.#closed(),
    })
  }

  arrived(length: number): boolean {
    if (this.#ended) return false
    try {
      const bytes = slab.subarray(0, length)
      if (this.#securing === undefined) this.#negotiate(bytes)
      else this.#secured(this.#securing, bytes)
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      this.#end(error)
    }
    return !this.#ended && !this.#changing
  }

  #negotiate(bytes: Uint8Array): void {
    let used: number
    try {
      used = this.#handshake.receive(bytes)
    } finally {
      for (const reply of this.#handshake.takeReplies()) this.#transport.write(reply)
    }
    const { outcome } = this.#handshake
    if (outcome?.kind === 'transmission') this.#handOver(outcome, bytes.subarray(used))
    else if (outcome?.kind === 'starttls') this.#startTls(bytes.length - used)
    else if (outcome !== undefined) this.#end(undefined)
  }

  // Whatever came behind STARTTLS was sent in the clear, by whomever: it must not be taken for the client's own.
  #startTls(bytesBehind: number): void {
    const { tls } = this.#options
    if (tls === undefined) throw new TypeError('the host granted STARTTLS without TLS')
    if (bytesBehind > 0) {
      throw new ProtocolError('bytes-behind-starttls', `${bytesBehind} bytes were sent behind NBD_OPT_STARTTLS`)
    }
    this.#changing = true
    this.#transport.write(NOTHING, () => {
      if (!this.#ended) this.#enterTunnel(tls)
    })
  }

  #enterTunnel(tls: TlsContext): void {
    const client = this.#descriptorOf(this.#transport.release())
    const plain = client === undefined ? undefined : this.#tunnelOf(client, tls)
    if (plain === undefined) return this.#closed()
    this.#changing = false
    this.#securing = new TlsOutcome()
    this.#transport = this.#transportOver(socketOn(plain, this))
    this.#transport.resumeReading()
  }

  #tunnelOf(client: number, tls: TlsContext): number | undefined {
    const { tunnels } = this.#options
    if (tunnels === undefined) throw new TypeError('TLS without tunnels')
    const plain = this.#orFault(() => tunnels.secure(tls, client))
    if (plain === undefined) closeSync(client)
    return plain
  }

  #secured(outcome: TlsOutcome, bytes: Uint8Array): void {
    const behind = outcome.receive(bytes)
    if (behind === undefined) return
    const { failure } = outcome
    if (failure !== undefined) throw new ProtocolError('tls-failed', `TLS could not be set up: ${failure}`)
    this.#securing = undefined
    const { peer } = this.#options
    peer.secured = true
    peer.subject = outcome.subject
    this.#handshake.secured()
    if (behind.length > 0) this.#negotiate(behind)
  }

  /** The last replies have to be on their way before the socket changes hands. */
  #handOver(established: Established, behind: Uint8Array): void {
    this.#ended = true
    const leftover = behind.length === 0 ? NOTHING : Uint8Array.prototype.slice.call(behind)
    this.#transport.write(NOTHING, () => {
      if (this.#gone) return
      const socket = this.#transport.release()
      const fd = this.#descriptorOf(socket)
      if (fd === undefined) return this.#closed()
      this.#gone = true
      clearTimeout(this.#timer)
      this.#options.onEstablished({ established, leftover, fd })
    })
  }

  #descriptorOf(socket: Socket): number | undefined {
    const fd = this.#orFault(() => descriptorOf(socket))
    if (fd === undefined) socket.on('error', () => {}).destroy()
    return fd
  }

  /** Without a descriptor to spare the connection ends here, and with it nothing else. */
  #orFault(descriptor: () => number): number | undefined {
    try {
      return descriptor()
    } catch (error) {
      if (!(error instanceof NoDescriptorError)) throw error
      this.#options.onFault({ phase: 'handshake', fault: error })
      return undefined
    }
  }

  /** Ends the connection; replies that were sent may still arrive. */
  destroy(): void {
    this.#end(undefined)
  }

  #end(fault: ConnectionFault['fault'] | undefined): void {
    if (this.#ended) return
    this.#ended = true
    if (fault !== undefined) this.#options.onFault({ phase: 'handshake', fault })
    this.#transport.close()
  }

  #closed(): void {
    if (this.#gone) return
    this.#gone = true
    this.#ended = true
    clearTimeout(this.#timer)
    this.#options.onEnd()
  }
}
