// One client in transmission, from the end of its handshake to its own end. Law: whatever the peer sends, the worst that
// happens is the end of this connection, counted and logged once. A ProtocolError is caught here and nowhere else.
import { ProtocolError } from 'nbd-protocol'
import type { Export } from '../exports/export.js'
import { type ByteSink, socketOn } from './adopt-socket.js'
import type { ConnectionFault, ConnectionOptions } from './connection-options.js'
import { Frames } from './frames.js'
import { type ConnectionParts, goOn, lossOf, type MovedRequest, unservedOf } from './moved.js'
import { termsFor } from './negotiation.js'
import { type LastWords, saidFarewell } from './peer-presence.js'
import { ReceiveBuffer } from './receive-buffer.js'
import { type Reader, Stay } from './stay.js'
import { Transmission } from './transmission.js'
import { Transport } from './transport.js'

export class Connection implements ByteSink, Reader {
  readonly #options: ConnectionOptions
  readonly #receive: ReceiveBuffer
  readonly #transport: Transport
  readonly #transmission: Transmission
  /** Bytes of the export as the client was told. */
  readonly size: number
  readonly #stay: Stay
  readonly #onRoom = () => this.#roomAgain()
  #ended = false
  #gone = false
  #paused = true
  #resumeScheduled = false
  #frozen = false
  #started = false
  /** The stream of the peer has ended. */
  #saidAll = false
  /** The peer broke the wire: nothing more of it is read, and what is in flight is answered before the end. */
  #lost: ProtocolError | undefined

  constructor(options: ConnectionOptions) {
    const { fd, served, established, limits, budget, client } = options
    this.#options = options
    this.#lost = lossOf(options.progress)
    const { replyStyle: style, contexts } = established
    const extended = style === 'extended'
    const [transmission, leaving] = [() => this.#transmission, () => this.#leaveWhenDone()]
    const stalled = () => this.#stalled()
    this.#receive = new ReceiveBuffer(new Frames({ transmission, extended, limits, budget, leaving, stalled }))
    const events = {
      onDrained: () => this.#roomAgain(),
      onError: (error: Error) => this.#end(error),
      onEnd: () => this.#streamEnded(),
      onClose: () => this.#closed(),
    }
    this.#transport = new Transport(socketOn(fd, this), events, budget)
    const terms = termsFor(served, established, options.size)
    this.size = terms.size
    const { batch } = this.#transport
    const calls = { onRoom: this.#onRoom, peerGone: () => this.#goneOrReadOn(), stalled }
    this.#transmission = new Transmission({ served, style, contexts, terms, batch, limits, budget, client, ...calls })
    this.#stay = new Stay(this.#receive, this.#transport, this.#transmission.answers)
  }

  get served(): Export {
    return this.#options.served
  }

  /** Serves what came behind the handshake, or where it was served before, and reads on. */
  start(): void {
    const { leftover, progress } = this.#options
    if (!this.#started && progress !== undefined) goOn(this.parts, progress)
    if (!this.#started) this.#guarded(() => this.#receive.goOn(unservedOf(progress, leftover)))
    this.#started = true
    this.#transmission.large.goOn()
    if (this.#receive.waiting) this.#resumeSoon()
    if (this.#leaving) this.#leaveWhenDone()
    if (this.mayRead()) this.#transport.resumeReading()
  }

  /** Goes on after a freeze that came to nothing: what is returned is to be begun anew, and then `start` called. */
  thaw(): MovedRequest[] {
    this.#frozen = false
    this.#receive.thaw()
    return [...this.#transmission.large.thaw(), ...this.#transmission.slow.takeMoved()]
  }

  /** Reads and serves nothing more. */
  freeze(): void {
    this.#frozen = true
    this.#transmission.large.freeze()
    this.#transport.pauseReading()
  }

  /** What it is made of, for those who move it. */
  get parts(): ConnectionParts {
    const { established, client } = this.#options
    return { receive: this.#receive, transport: this.#transport, transmission: this.#transmission, established, client }
  }

  /** Another object serves it from here on: this one tells nobody of its end. undefined when it has come to that. */
  abandon(): { readonly lost: ProtocolError | undefined } | undefined {
    if (this.#ended) return undefined
    this.#ended = true
    this.#gone = true
    this.#stay.end()
    this.#options.budget.withdraw(this.#onRoom)
    return { lost: this.#lost }
  }

  /** Requests that were taken and not answered yet. */
  get inFlight(): number {
    return this.#transmission.inFlight
  }

  /** Bytes of replies that the peer has not taken yet. */
  get backlog(): number {
    return this.#transport.batch.backlog
  }

  /** Requests that came are not answered yet, or the peer has not taken all its replies. */
  get isBusy(): boolean {
    return this.inFlight > 0 || this.backlog > 0 || this.#receive.waiting
  }

  /** New requests are refused with NBD_ESHUTDOWN from now on. */
  drain(): void {
    this.#transmission.drain()
  }

  /** Ends the connection; replies that were sent may still arrive. */
  destroy(): void {
    this.#end(undefined)
  }

  get target(): Uint8Array {
    return this.#receive.target
  }

  arrived(length: number): boolean {
    const next = this.#stay.read(length, this)
    this.#paused = next !== 'now'
    if (next === 'turn') this.#resumeSoon()
    return !this.#paused
  }

  // Reader

  take(length: number): void {
    this.#guarded(() => this.#receive.arrived(length))
  }

  isIdle(): boolean {
    return this.inFlight === 0
  }

  mayRead(): boolean {
    this.#paused = this.#ended || this.#frozen || this.#receive.waiting || this.#leaving
    if (this.#transmission.halt === 'turn') this.#resumeSoon()
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

  /** A socket that is not read says nothing when its peer goes: then it is ended here. */
  peerGone(): boolean {
    const gone = this.#transport.peerGone(this.#lastWords)
    if (gone) this.#end(new Error('its peer went away while it was not read'))
    return gone
  }

  /** The same, asked for a request that is to be tried again. */
  #goneOrReadOn(): boolean {
    if (this.peerGone()) return true
    const mayRead = this.#receive.ahead < this.#options.limits.lookAheadBytesMax && !this.#frozen
    // The end of a stream comes behind all its bytes: that of a peer who had much to say is found by reading on.
    if (this.#paused && mayRead) this.#transport.resumeReading()
    return false
  }

  get #lastWords(): LastWords {
    const extended = this.#options.established.replyStyle === 'extended'
    return { disconnected: this.#transmission.disconnected, extended, waiting: this.#receive.rest }
  }

  /** Behind NBD_CMD_DISC, read ahead and not served yet, the peer still waits for its replies. */
  #streamEnded(): void {
    this.#saidAll = true
    if (!saidFarewell(this.#lastWords)) this.#end(this.#lost)
    else if (this.#leaving) this.#leaveWhenDone()
  }

  /** Nothing more will be served: of a frame that is not whole behind the end of the stream nothing more will come. */
  get #leaving(): boolean {
    return this.#transmission.disconnected || this.#lost !== undefined || (this.#saidAll && !this.#receive.waiting)
  }

  /** A slow request was answered, or the peer took replies: what waited may go on. */
  #roomAgain(): void {
    if (this.#leaving) return this.#leaveWhenDone()
    if (this.#paused) this.#resumeSoon()
  }

  #resumeSoon(): void {
    if (this.#resumeScheduled) return
    this.#resumeScheduled = true
    setImmediate(() => {
      this.#resumeScheduled = false
      if (this.#ended || this.#frozen) return
      this.#guarded(() => this.#receive.resume())
      if (this.#leaving) this.#leaveWhenDone()
      const wasPaused = this.#paused
      if (this.mayRead() && wasPaused) this.#transport.resumeReading()
    })
  }

  #stalled(): void {
    if (!this.#frozen) this.#end(new Error('it stopped in the middle of a WRITE that others wait for'))
  }

  #leaveWhenDone(): void {
    if (this.#ended || this.#frozen || this.inFlight > 0) return
    this.#transport.batch.flush()
    this.#end(this.#lost)
  }

  #end(fault: ConnectionFault['fault'] | undefined): void {
    if (this.#ended) return
    this.#ended = true
    this.#options.budget.withdraw(this.#onRoom)
    if (fault !== undefined) this.#options.onFault({ phase: 'transmission', fault })
    this.#transport.close()
  }

  #closed(): void {
    if (this.#gone) return
    this.#gone = true
    this.#stay.end()
    this.#ended = true
    this.#receive.close()
    this.#transmission.connectionLost()
    this.#options.onEnd()
  }
}
