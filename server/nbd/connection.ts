// One client, from its greeting to its end. Law: whatever the peer sends, the worst that happens is the end of this
// connection, counted and logged once. A ProtocolError is caught here and nowhere else.
import type { Socket } from 'node:net'
import {
  decodeRequest,
  emptyRequest,
  frameSize,
  Handshake,
  type HandshakeHost,
  type HandshakeLimits,
  type HandshakeOutcome,
  ProtocolError,
  requestHeaderBytes,
  viewOf,
} from 'nbd-protocol'
import type { ExportRegistry } from '../exports/registry.js'
import { adoptSocket, type ByteSink } from './adopt-socket.js'
import { PAYLOAD_BYTES_MAX } from './negotiation.js'
import { type FrameSink, ReceiveBuffer } from './receive-buffer.js'
import { ReplyBatch } from './reply-batch.js'
import { Transmission, type TransmissionLimits } from './transmission.js'
import { allowedFlags } from './validation.js'

/** Dead peers (a guest that lost its power) are noticed in the end, also when nothing is sent to them. */
const KEEP_ALIVE_MS = 60_000
/** A peer that does not take its last replies loses them after this long. */
const LINGER_MS = 2000

export interface ConnectionLimits extends HandshakeLimits, TransmissionLimits {
  /** From accept to the end of the handshake. */
  readonly handshakeTimeoutMs: number
  /** Bytes of a WRITE past the maximum payload that are thrown away with an error; longer ones end the connection. */
  readonly oversizeBytesMax: number
}

/** How a connection ended, for counters and the log. */
export interface ConnectionEnd {
  readonly phase: 'handshake' | 'transmission'
  /** undefined: the peer said goodbye, or simply left in transmission. */
  readonly fault: 'time-out' | 'disconnect' | ProtocolError | Error | undefined
}

export interface ConnectionOptions {
  readonly accepted: Socket
  readonly registry: ExportRegistry
  readonly host: HandshakeHost
  readonly limits: ConnectionLimits
  readonly onEnd: (end: ConnectionEnd) => void
  readonly onTransmission: (exportName: string) => void
}

type Established = Extract<HandshakeOutcome, { kind: 'transmission' }>

export class Connection implements FrameSink, ByteSink {
  readonly #options: ConnectionOptions
  readonly #handshake: Handshake
  readonly #receive = new ReceiveBuffer(this)
  readonly #batch: ReplyBatch
  readonly #socket: Socket
  readonly #resumeReading: () => void
  readonly #timer: NodeJS.Timeout
  #linger: NodeJS.Timeout | undefined
  #transmission: Transmission | undefined
  #extended = false
  #ended = false
  #paused = false
  #resumeScheduled = false
  #fault: ConnectionEnd['fault']

  constructor(options: ConnectionOptions) {
    this.#options = options
    this.#handshake = new Handshake(options.host, options.limits)
    const { socket, resumeReading } = adoptSocket(options.accepted, this)
    this.#socket = socket
    this.#resumeReading = resumeReading
    this.#batch = new ReplyBatch(socket, () => this.#roomAgain())
    this.#timer = setTimeout(() => this.#end('time-out'), options.limits.handshakeTimeoutMs)
    socket.setNoDelay(true)
    socket.setKeepAlive(true, KEEP_ALIVE_MS)
    socket.on('error', (error) => this.#end(error))
    socket.on('end', () => this.#end(this.#transmission === undefined ? 'disconnect' : undefined))
    socket.on('close', () => this.#closed())
    socket.write(this.#handshake.greeting())
    socket.resume()
  }

  /** Requests that were taken and not answered yet. */
  get inFlight(): number {
    return this.#transmission?.inFlight ?? 0
  }

  /** Bytes of replies that the peer has not taken yet. */
  get backlog(): number {
    return this.#batch.backlog
  }

  /** New requests are refused with NBD_ESHUTDOWN from now on. */
  drain(): void {
    this.#transmission?.drain()
  }

  /** Ends the connection without waiting for anything. */
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
    this.#paused = this.#ended || this.#receive.waiting || this.#transmission?.disconnected === true
    if (this.#transmission?.halt === 'turn') this.#resumeSoon()
    return !this.#paused
  }

  #guarded(work: () => void): void {
    if (this.#ended) return
    try {
      work()
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      this.#batch.flush()
      this.#end(error)
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
    const bound = this.#options.limits.oversizeBytesMax
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
    const sendReplies = () => {
      for (const reply of this.#handshake.takeReplies()) this.#socket.write(reply)
    }
    let used: number
    try {
      used = this.#handshake.receive(bytes)
    } finally {
      sendReplies()
    }
    const { outcome } = this.#handshake
    if (outcome?.kind === 'transmission') this.#enterTransmission(outcome)
    else if (outcome !== undefined) this.#end(undefined)
    return used
  }

  #enterTransmission({ exportName, replyStyle, transmissionFlags, contexts }: Established): void {
    clearTimeout(this.#timer)
    const { registry, limits, onTransmission } = this.#options
    const served = registry.find(exportName)
    if (served === undefined) throw new ProtocolError('export-refused', `the export '${exportName}' has just gone`)
    this.#extended = replyStyle === 'extended'
    const terms = {
      size: served.size,
      readOnly: served.readOnly,
      extended: this.#extended,
      minimumBlockSize: served.backend.can.minimumBlockSize,
      payloadBytesMax: PAYLOAD_BYTES_MAX,
      allowedFlags: allowedFlags(transmissionFlags, this.#extended, contexts.length),
    }
    const onRoom = () => this.#roomAgain()
    const batch = this.#batch
    this.#transmission = new Transmission({ served, style: replyStyle, contexts, terms, batch, limits, onRoom })
    onTransmission(exportName)
  }

  /** A slow request was answered, or the peer took replies: what waited may go on. */
  #roomAgain(): void {
    if (this.#transmission?.disconnected) return this.#leaveWhenDone()
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
      if (this.#mayRead() && wasPaused) this.#resumeReading()
    })
  }

  #leaveWhenDone(): void {
    if (this.#ended || this.inFlight > 0) return
    this.#batch.flush()
    this.#end(undefined)
  }

  #end(fault: ConnectionEnd['fault']): void {
    if (this.#ended) return
    this.#ended = true
    this.#fault = fault
    // What was written last (an option's refusal, an acknowledged ABORT) still goes out; then the socket closes.
    this.#socket.destroySoon()
    this.#linger = setTimeout(() => this.#socket.destroy(), LINGER_MS)
  }

  #closed(): void {
    this.#ended = true
    clearTimeout(this.#timer)
    clearTimeout(this.#linger)
    this.#transmission?.connectionLost()
    const phase = this.#transmission === undefined ? 'handshake' : 'transmission'
    this.#options.onEnd({ phase, fault: this.#fault })
  }
}
