// The socket under a connection and the replies on their way to it. A STARTTLS replaces it by another one; whoever
// holds it hears of its end once.
import type { Socket } from 'node:net'
import { duplicateDescriptor, socketIo } from '../../backends/index.js'
import type { AdoptedSocket } from './adopt-socket.js'
import type { PayloadBudget } from './payload-budget.js'
import { type LastWords, peerGone } from './peer-presence.js'
import { ReplyBatch } from './reply-batch.js'

/** Dead peers (a guest that lost its power) are noticed in the end, also when nothing is sent to them. */
const KEEP_ALIVE_MS = 60_000
/** A peer that does not take its last replies loses them after this long. */
const LINGER_MS = 2000

export interface TransportEvents {
  /** The socket has taken everything that it was given. */
  onDrained(): void
  onError(error: Error): void
  /** The peer will send no more. */
  onEnd(): void
  onClose(): void
}

export class Transport {
  readonly batch: ReplyBatch
  readonly resumeReading: () => void
  readonly #socket: Socket
  readonly #fd: number
  readonly #events: TransportEvents
  #linger: NodeJS.Timeout | undefined

  constructor({ socket, fd, resumeReading }: AdoptedSocket, events: TransportEvents, budget?: PayloadBudget) {
    this.#socket = socket
    this.#fd = fd
    this.resumeReading = resumeReading
    this.#events = events
    this.batch = new ReplyBatch(socket, fd, () => events.onDrained(), budget)
    socket.setNoDelay(true)
    socket.setKeepAlive(true, KEEP_ALIVE_MS)
    socket.on('error', events.onError).on('end', events.onEnd).on('close', this.#onClose)
  }

  readonly #onClose = (): void => {
    clearTimeout(this.#linger)
    this.#events.onClose()
  }

  /** Bytes that have come meanwhile, put at the beginning of `target`; 0 when there are none, or nobody knows. */
  receiveNow(target: Uint8Array, patienceNs: number): number {
    if (this.#socket.destroyed) return 0
    return socketIo.receiveNow(this.#fd, target, patienceNs)
  }

  /** `onTaken` is called when the kernel has taken these bytes, and all before them; not for a socket that fails. */
  write(bytes: Uint8Array, onTaken?: () => void): void {
    this.#socket.write(bytes, (error) => {
      if (!error) onTaken?.()
    })
  }

  /** Gives the socket away, to be secured or served elsewhere; its end is no longer this transport's business. */
  release(): Socket {
    const { onError, onEnd } = this.#events
    return this.#socket.off('error', onError).off('end', onEnd).off('close', this.#onClose)
  }

  /** Sends what was written (an option's refusal, the last replies), then closes. */
  close(): void {
    this.#socket.destroySoon()
    this.#linger ??= setTimeout(() => this.#socket.destroy(), LINGER_MS)
  }

  /** Reads nothing more from this turn on. */
  pauseReading(): void {
    this.#socket.pause()
  }

  /** Whether `takeOut` would find anything. */
  get canMove(): boolean {
    return !this.#socket.destroyed
  }

  /** The connection as a descriptor of its own, for a caller who closes it. @throws NoDescriptorError */
  duplicate(): number {
    return duplicateDescriptor(this.#fd)
  }

  /** What the kernel has not taken of its replies; the socket is of no more use, and tells nobody. */
  takeOut(): Uint8Array {
    const unsent = this.batch.unsent()
    this.release().on('error', () => {})
    this.#socket.destroy()
    return unsent
  }

  /** Whether the peer is gone; then the socket is closed at once, since nobody is there to take anything. */
  peerGone(words: LastWords): boolean {
    const gone = peerGone(this.#socket, this.#fd, words)
    if (gone) this.#socket.destroy()
    return gone
  }
}
