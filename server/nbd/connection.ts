// One client, from its greeting to its end. Law: whatever the peer sends, the worst that happens is the end of this
// connection, counted and logged once. A ProtocolError is caught here and nowhere else.
import type { TLSSocket } from 'node:tls'
import {
  decodeRequest,
  emptyRequest,
  frameSize,
  Handshake,
  ProtocolError,
  requestHeaderBytes,
  viewOf,
} from 'nbd-protocol'
import { type AdoptedSocket, adoptByDataEvents, adoptSocket, type ByteSink } from './adopt-socket.js'
import type { ConnectionFault, ConnectionOptions } from './connection-options.js'
import { type Established, PAYLOAD_BYTES_MAX, peerName, termsFor } from './negotiation.js'
import { type FrameSink, ReceiveBuffer } from './receive-buffer.js'
import { clientSubject } from './tls.js'
import { Transmission } from './transmission.js'
import { Transport } from './transport.js'

export class Connection implements FrameSink, ByteSink {
  readonly #options: ConnectionOptions
  readonly #handshake: Handshake
  readonly #receive = new ReceiveBuffer(this)
  readonly #timer: NodeJS.Timeout
  #transport: Transport
  #transmission: Transmission | undefined
  #extended = false
  #securing = false
  #ended = false
  #gone = false
  #paused = false
  #resumeScheduled = false
  /** The peer broke the wire: nothing more of it is read, and what is in flight is answered before the end. */
  #lost: ProtocolError | undefined

  constructor(options: ConnectionOptions) {
    this.#options = options
    this.#handshake = new Handshake(options.host, options.limits)
    this.#transport = this.#transportOver(adoptSocket(options.accepted, this))
    this.#timer = setTimeout(() => this.#end('time-out'), options.limits.handshakeTimeoutMs)
    this.#transport.write(this.#handshake.greeting())
    this.#transport.resumeReading()
  }

  #transportOver(adopted: AdoptedSocket): Transport {
    return new Transport(adopted, {
      onDrained: () => this.#roomAgain(),
      onError: (error) => this.#end(error),
      onEnd: () => this.#end(this.#transmission === undefined ? 'disconnect' : undefined),
      onClose: () => this.#closed(),
    })
  }

  /** It has entered transmission. */
  get attached(): boolean {
    return this.#transmission !== undefined
  }

  /** Requests that were taken and not answered yet. */
  get inFlight(): number {
    return this.#transmission?.inFlight ?? 0
  }

  /** Bytes of replies that the peer has not taken yet. */
  get backlog(): number {
    return this.#transport.batch.backlog
  }

  /** New requests are refused with NBD_ESHUTDOWN from now on. */
  drain(): void {
    this.#transmission?.drain()
  }

  /** Ends the connection; replies that were sent may still arrive. */
  destroy(): void {
    this.#end(undefined)
  }

  get target(): Uint8Array {
    return this.#receive.target
  }

  arrived(length: number): boolean {
    this.#guarded(() => this.#receive.arrived(length))
    return this.#mayRead()
  }

  #mayRead(): boolean {
    const leaving = this.#lost !== undefined || this.#transmission?.disconnected === true
    const resting = this.#securing || this.#receive.waiting || leaving
    this.#paused = this.#ended || resting
    if (this.#transmission?.halt === 'turn') this.#resumeSoon()
    return !this.#paused
  }

  #guarded(work: () => void): void {
    if (this.#ended || this.#lost !== undefined) return
    try {
      work()
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      // Requests that came before are carried out, and so answered: one answer each.
      this.#lost = error
      this.#leaveWhenDone()
    }
  }

  // FrameSink

  readonly frameBytesMax = requestHeaderBytes(true) + PAYLOAD_BYTES_MAX

  get halted(): boolean {
    const halt = this.#transmission?.halt
    return halt === 'room' || halt === 'turn'
  }

  frameBytes(view: DataView, at: number, end: number): number | undefined {
    if (end - at < requestHeaderBytes(this.#extended)) return undefined
    const bytes = frameSize(view, at, this.#extended)
    const bound = this.#options.limits.oversizeBytesMax + requestHeaderBytes(this.#extended)
    if (bytes > this.frameBytesMax && bytes > bound) {
      throw new ProtocolError('payload-too-long', `a request announced ${bytes} bytes; ${bound} is the bound`)
    }
    return bytes
  }

  serve(bytes: Uint8Array, view: DataView, at: number, end: number): number {
    const transmission = this.#transmission
    if (transmission !== undefined) {
      const stopped = transmission.serve(bytes, view, at, end)
      if (transmission.disconnected) this.#leaveWhenDone()
      return transmission.disconnected ? end : stopped
    }
    const used = this.#negotiate(bytes.subarray(at, end))
    return this.#transmission === undefined ? end : this.serve(bytes, view, at + used, end)
  }

  refuseOversize(header: Uint8Array): void {
    this.#transmission?.refuseOversize(decodeRequest(viewOf(header), 0, this.#extended, emptyRequest()))
  }

  #negotiate(bytes: Uint8Array): number {
    let used: number
    try {
      used = this.#handshake.receive(bytes)
    } finally {
      for (const reply of this.#handshake.takeReplies()) this.#transport.write(reply)
    }
    const { outcome } = this.#handshake
    if (outcome?.kind === 'transmission') this.#enterTransmission(outcome)
    else if (outcome?.kind === 'starttls') this.#startTls(bytes.length - used)
    else if (outcome !== undefined) this.#end(undefined)
    return used
  }

  // Whatever came behind STARTTLS was sent in the clear, by whomever: it must not be taken for the client's own.
  #startTls(bytesBehind: number): void {
    const { tls, peer } = this.#options
    if (tls === undefined) throw new TypeError('the host granted STARTTLS without TLS')
    if (bytesBehind > 0) {
      throw new ProtocolError('bytes-behind-starttls', `${bytesBehind} bytes were sent behind NBD_OPT_STARTTLS`)
    }
    this.#securing = true
    const secured = (socket: TLSSocket) => {
      this.#securing = false
      peer.subject = clientSubject(socket)
      this.#transport = this.#transportOver(adoptByDataEvents(socket, this))
      this.#handshake.secured()
    }
    const failed = (error: Error) => {
      this.#end(new ProtocolError('tls-failed', `TLS could not be set up: ${error.message}`))
      this.#closed()
    }
    setImmediate(() => tls.upgrade(this.#transport.release()).then(secured, failed))
  }

  #enterTransmission(established: Established): void {
    clearTimeout(this.#timer)
    const { exportName, replyStyle, contexts } = established
    const { registry, limits, onTransmission } = this.#options
    const served = registry.find(exportName)
    if (served === undefined) throw new ProtocolError('export-refused', `the export '${exportName}' has just gone`)
    this.#extended = replyStyle === 'extended'
    const terms = termsFor(served, established)
    const onRoom = () => this.#roomAgain()
    const client = peerName(this.#options.peer)
    const { batch } = this.#transport
    this.#transmission = new Transmission({ served, style: replyStyle, contexts, terms, batch, limits, onRoom, client })
    onTransmission(exportName)
  }

  /** A slow request was answered, or the peer took replies: what waited may go on. */
  #roomAgain(): void {
    if (this.#transmission?.disconnected || this.#lost !== undefined) return this.#leaveWhenDone()
    if (this.#paused) this.#resumeSoon()
  }

  #resumeSoon(): void {
    if (this.#resumeScheduled) return
    this.#resumeScheduled = true
    setImmediate(() => {
      this.#resumeScheduled = false
      if (this.#ended) return
      this.#guarded(() => this.#receive.resume())
      const wasPaused = this.#paused
      if (this.#mayRead() && wasPaused) this.#transport.resumeReading()
    })
  }

  #leaveWhenDone(): void {
    if (this.#ended || this.inFlight > 0) return
    this.#transport.batch.flush()
    this.#end(this.#lost)
  }

  #end(fault: ConnectionFault['fault'] | undefined): void {
    if (this.#ended) return
    this.#ended = true
    const phase = this.#transmission === undefined ? 'handshake' : 'transmission'
    if (fault !== undefined) this.#options.onFault({ phase, fault })
    this.#transport.close()
  }

  #closed(): void {
    if (this.#gone) return
    this.#gone = true
    this.#ended = true
    clearTimeout(this.#timer)
    this.#transmission?.connectionLost()
    this.#options.onEnd()
  }
}
