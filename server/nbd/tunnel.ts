// A secured connection whose export lives in another thread: its keys stay here, and it speaks through a pair of
// sockets. Law: a buffer goes back to the pool when nobody reads it any more, and a client that takes nothing holds two.
import type { Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { hungUp, socketIo, socketPair } from '../../backends/index.js'
import { type AdoptedSocket, type ByteSink, socketOn } from './adopt-socket.js'
import { giveBuffer, takeBuffer } from './buffer-pool.js'

/** A client that takes nothing of its last replies for this long loses them. */
const LINGER_MS = 2000
/** What `hungUp` says of a pair whose other end is closed. */
const CLOSED = 2
/** What is ciphered, or given to the export's thread, at once. */
const PIECE_BYTES = 128 << 10
/** Replies that the client's socket has not taken: one on its way, and one to go on with. */
const PIECES_MAX = 2
const POLL_MS = 20

/** All tunnels read into it first, so that an idle one holds no buffer. */
const slab = Buffer.allocUnsafeSlow(16 << 10)

/** The secured sockets of one front end that speak through this process. */
export class Tunnels {
  #open = 0

  get open(): number {
    return this.#open
  }

  /** The descriptor that speaks for the secured socket from here on. @throws NoDescriptorError */
  through(secured: Socket): number {
    const [near, far] = socketPair()
    this.#open += 1
    secured.once('close', () => {
      this.#open -= 1
    })
    new Tunnel(secured, near)
    return far
  }

  /** Waits until every client has its last replies, or that time has come. */
  async closed(deadline: number): Promise<void> {
    while (this.#open > 0 && performance.now() < deadline) await pause(POLL_MS)
  }
}

class Tunnel implements ByteSink {
  readonly target = slab
  readonly #secured: Socket
  readonly #near: number
  readonly #plain: AdoptedSocket
  /** Pieces of replies that the secured socket has not taken. */
  #pieces = 0
  /** Requests that go to the export's thread at the end of this turn: they are small, and come one by one. */
  #requests: Uint8Array | undefined
  #end = 0
  /** Runs from the last time that the client was given a piece of its replies, or took one. */
  readonly #linger: NodeJS.Timeout
  readonly #flush = () => this.#sendRequests()

  constructor(secured: Socket, near: number) {
    this.#secured = secured
    this.#near = near
    this.#plain = socketOn(near, this)
    const { socket } = this.#plain
    // Behind its farewell a peer closes its half, and still waits for the last replies.
    secured.allowHalfOpen = true
    secured.on('error', () => socket.destroy()).on('close', () => socket.destroy())
    this.#linger = setTimeout(() => this.#clientStalls(), LINGER_MS).unref()
    // The other end closes whole, so nobody reads there behind the end of the replies.
    socket.on('error', () => {}).on('end', () => socket.destroy())
    socket.on('close', () => this.#leave())
    secured.on('end', () => {
      this.#sendRequests()
      socket.end()
    })
    secured.on('data', (bytes: Buffer) => this.#gather(bytes)).resume()
    this.#plain.resumeReading()
  }

  /** The client has its last replies, and then the end; one that is silent from here on is not waited for. */
  #leave(): void {
    this.#secured.end()
    this.#touch()
  }

  #touch(): void {
    if (!this.#secured.destroyed) this.#linger.refresh()
  }

  /** While replies wait for the client nobody reads behind them, so the end has to be asked for. */
  #clientStalls(): void {
    if (this.#plain.socket.destroyed || hungUp(this.#near) === CLOSED) this.#secured.destroy()
    else if (this.#pieces > 0) this.#touch()
  }

  /** Replies came into the slab; what came behind them joins them in one piece. */
  arrived(length: number): boolean {
    const piece = takeBuffer(PIECE_BYTES)
    piece.set(slab.subarray(0, length))
    const more = length === slab.length ? socketIo.receiveNow(this.#near, piece.subarray(length), 0) : 0
    this.#give(piece, length + Math.max(0, more))
    return this.#pieces < PIECES_MAX
  }

  #give(piece: Uint8Array, length: number): void {
    this.#pieces += 1
    this.#touch()
    this.#secured.write(piece.subarray(0, length), () => {
      giveBuffer(piece)
      this.#pieces -= 1
      this.#touch()
      if (this.#pieces === PIECES_MAX - 1) this.#plain.resumeReading()
    })
  }

  /** The export's end is closed, and this one is about to be: what lies between them are replies that the client is owed. */
  #takeLastReplies(): void {
    for (;;) {
      const piece = takeBuffer(PIECE_BYTES)
      const length = socketIo.receiveNow(this.#near, piece, 0)
      if (length <= 0) return giveBuffer(piece)
      this.#give(piece, length)
    }
  }

  #gather(bytes: Uint8Array): void {
    let at = 0
    while (at < bytes.length) {
      if (this.#requests === undefined) {
        this.#requests = takeBuffer(PIECE_BYTES)
        setImmediate(this.#flush)
      }
      const length = Math.min(bytes.length - at, PIECE_BYTES - this.#end)
      this.#requests.set(bytes.subarray(at, at + length), this.#end)
      this.#end += length
      at += length
      if (this.#end === PIECE_BYTES) this.#sendRequests()
    }
  }

  #sendRequests(): void {
    const requests = this.#requests
    if (requests === undefined) return
    const end = this.#end
    this.#requests = undefined
    this.#end = 0
    const { socket } = this.#plain
    // The number of a closed descriptor may be another's by now.
    if (socket.destroyed || socket.writableEnded) return giveBuffer(requests)
    const sent = socket.writableLength === 0 ? socketIo.sendNow(this.#near, requests, 0, end) : 0
    // Nobody reads requests any more. An error of this socket would take the replies with it that came before.
    if (sent < 0 || sent === end) return giveBuffer(requests)
    this.#secured.pause()
    socket.write(requests.subarray(sent, end), (error) => {
      giveBuffer(requests)
      // Of a socket that we closed the descriptor's number may be another's by now.
      if (error && !socket.destroyed) this.#takeLastReplies()
      else if (!error && socket.writableLength === 0) this.#secured.resume()
    })
  }
}
