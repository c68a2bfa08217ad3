// One vhost-user session, in the thread of its export. Law: whatever the front-end or its guest does, the worst that happens
// is the end of this session, counted and logged once.
import {
  encodeMessage,
  type Order,
  ProtocolError,
  type Result,
  Session,
  VHOST_USER_BACKEND_CONFIG_CHANGE_MSG,
} from 'vhost-user-protocol'
import {
  closeForeign,
  errnoName,
  FdSocket,
  type FdSocketEvents,
  isOwnEnd,
  UnusableDescriptor,
} from '../../backends/index.js'
import type { Export } from '../exports/export.js'
import type { EndedFault } from '../io/io-host.js'
import { BlockDevice } from './device.js'
import { Guest, type GuestLimits } from './guest.js'
import { SizeNews } from './size-news.js'

export interface VhostUserOptions {
  /** A connected Unix socket; the connection's own from here on. */
  readonly fd: number
  readonly served: Export
  /** The peer as log and ledger name it. */
  readonly client: string
  readonly limits: GuestLimits
  /** Resolves when no session before this one can touch its guest's memory any more. */
  readonly before: Promise<unknown>
  /** Called when the fault is found, before the peer can notice the end. */
  readonly onFault: (fault: EndedFault) => void
  /** Something was refused, and the session goes on: a sentence. */
  readonly onRefused: (reason: string) => void
  /** Called once, when the socket is closed; the promise resolves when storage has let go of the guest's memory. */
  readonly onEnd: (settled: Promise<unknown>) => void
}

/** What faults are called, for counters and the log. */
const BROKEN_MESSAGE = 'vhost-user-message'
const BROKEN_RING = 'broken-ring'
/** Bytes of messages that a turn takes: hundreds of small ones, which others wait for. */
const TURN = { pieceBytesMax: 8 << 10 }

export class VhostUserConnection {
  readonly #options: VhostUserOptions
  readonly #socket: FdSocket
  readonly #session: Session
  readonly #guest: Guest
  readonly #sizeNews: SizeNews
  #channel: FdSocket | undefined
  #busy = false
  #ended = false

  /** @throws UnusableDescriptor when the socket cannot be watched; it stays the caller's */
  constructor(options: VhostUserOptions) {
    const { fd, served, client, limits, before } = options
    this.#options = options
    const device = new BlockDevice(served)
    this.#session = new Session(device.describe())
    const events: FdSocketEvents = {
      arrived: (data, descriptors) => this.#guarded(() => this.#arrived(data, descriptors)),
      ended: (errno) => this.#end(errno === 0 ? undefined : unnamed('disconnect', errnoName(errno))),
    }
    this.#socket = new FdSocket(fd, events, TURN)
    this.#guest = new Guest({
      device,
      client,
      limits,
      before,
      onBroken: (index, reason) => this.#ringBroke(index, reason),
      onChannel: (descriptor) => this.#takeChannel(descriptor),
      onStarted: () => this.#sizeNews.due(),
    })
    this.#sizeNews = new SizeNews({
      device,
      isStarted: () => this.#guest.isStarted,
      isBusy: () => this.#busy,
      tell: () => this.#channel?.send(encodeMessage(VHOST_USER_BACKEND_CONFIG_CHANGE_MSG)),
    })
  }

  get served(): Export {
    return this.#options.served
  }

  /** Requests that were taken and not answered yet. */
  get inFlight(): number {
    return this.#guest.inFlight
  }

  get backlog(): number {
    return this.#ended ? 0 : this.#socket.unsent
  }

  get isBusy(): boolean {
    return this.inFlight > 0
  }

  /** Takes nothing new out of the rings: what lies there is left to the next server. */
  drain(): void {
    this.#guest.drain()
  }

  destroy(): void {
    this.#end(undefined)
  }

  /** The guest is told, where its front-end listens for that. */
  resized(): void {
    this.#sizeNews.due()
  }

  #guarded(work: () => void): void {
    if (this.#ended) return
    try {
      work()
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      this.#end(unnamed(BROKEN_MESSAGE, `${error.code}: ${error.message}`, true))
    }
  }

  #arrived(data: Uint8Array, descriptors: readonly number[]): void {
    if (descriptors.some((fd) => isOwnEnd(fd, this.#socket.fd) !== 0)) {
      // Kept, it would keep this very connection open when the front-end has gone.
      for (const descriptor of descriptors) closeForeign(descriptor)
      return this.#end(unnamed(BROKEN_MESSAGE, 'a descriptor is the other end of a connection to this server', true))
    }
    this.#sizeNews.heard()
    this.#session.receive(data, descriptors)
    this.#converse()
  }

  /** One order at a time; one that waits holds up the messages behind it. */
  #converse(): void {
    if (this.#busy) return
    for (let order = this.#next(); order !== undefined; order = this.#next()) {
      const result = this.#guest.carryOut(order)
      if (result instanceof Promise) {
        this.#busy = true
        // What may take long may do so at once as well: others have their turn before the next one.
        void result.then((told) => setImmediate(() => this.#goOn(told)))
        break
      }
      this.#done(result)
    }
    this.#send()
  }

  #goOn(told: Result): void {
    this.#busy = false
    this.#guarded(() => {
      this.#done(told)
      this.#converse()
    })
  }

  /** What a reply hands over goes before the next order, which may close it. */
  #done(result: Result): void {
    this.#session.done(result)
    this.#send()
  }

  #next(): Order | undefined {
    return this.#ended ? undefined : this.#session.next()
  }

  #send(): void {
    if (this.#ended) return
    for (const { bytes, descriptors } of this.#session.takeReplies()) {
      const errno = this.#socket.send(bytes, descriptors)
      if (errno !== 0) return this.#end(unnamed('disconnect', errnoName(errno)))
    }
    for (const reason of this.#session.takeRefusals()) this.#options.onRefused(reason)
    for (const descriptor of this.#session.takeDiscarded()) closeForeign(descriptor)
  }

  #takeChannel(descriptor: number): void {
    this.#channel?.close()
    this.#channel = undefined
    // Nothing that comes this way has a meaning: the messages that go out ask for no reply.
    const close = (fds: readonly number[]) => fds.forEach(closeForeign)
    try {
      const ended = () => {
        this.#channel?.close()
        this.#channel = undefined
      }
      this.#channel = new FdSocket(descriptor, { arrived: (_, descriptors) => close(descriptors), ended }, TURN)
    } catch (error) {
      if (!(error instanceof UnusableDescriptor)) throw error
      closeForeign(descriptor)
      throw new ProtocolError('bad-descriptors', `the channel for requests of the back-end: ${error.message}`)
    }
  }

  #ringBroke(index: number, reason: string): void {
    this.#guarded(() => {
      this.#end(unnamed(BROKEN_RING, `ring ${index}: ${reason}`, true))
    })
  }

  #end(fault: EndedFault | undefined): void {
    if (this.#ended) return
    this.#ended = true
    if (fault !== undefined) this.#options.onFault(fault)
    this.#sizeNews.end()
    const settled = this.#guest.leave()
    this.#channel?.close()
    this.#channel = undefined
    this.#socket.close()
    for (const descriptor of this.#session.release()) closeForeign(descriptor)
    this.#options.onEnd(settled)
  }
}

function unnamed(reason: string, detail: string, isProtocolError = false): EndedFault {
  return { phase: 'transmission', reason, isProtocolError, detail }
}
