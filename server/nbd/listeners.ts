// Where a server listens: sockets that it made, and sockets of another process whose place it took.
import type { Socket } from 'node:net'
import { type ListenAddress, type Listener, listenOn, listenOnMoved } from './listen.js'

export class Listeners {
  readonly #onSocket: (socket: Socket) => void
  readonly all: Listener[] = []

  constructor(onSocket: (socket: Socket) => void) {
    this.#onSocket = onSocket
  }

  /** Listens on one more address; returns it with its real port. @throws OpenError */
  async open(address: ListenAddress): Promise<ListenAddress> {
    return this.#added(await listenOn(address, this.#onSocket))
  }

  /** Goes on listening on a socket of another process. @throws OpenError */
  async goOn(fd: number, wanted: ListenAddress): Promise<ListenAddress> {
    return this.#added(await listenOnMoved(fd, wanted, this.#onSocket))
  }

  #added(listener: Listener): ListenAddress {
    this.all.push(listener)
    return listener.address
  }

  /** Another process accepts from here on. */
  leave(): void {
    for (const listener of this.all) listener.leave()
  }

  close(): void {
    for (const listener of this.all) listener.close()
  }
}
