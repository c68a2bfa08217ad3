// Both ends of a pair of sockets that carry descriptors, and what came there. Law: `closePeers` leaves none of them open.
import { FdSocket, socketPair } from '../../backends/index.js'

const open: FdSocket[] = []

export function closePeers(): void {
  for (const socket of open.splice(0)) socket.close()
}

/** What came, and how it ended; `next` waits for something of either. */
export class Peer {
  readonly socket: FdSocket
  readonly pieces: { readonly data: Uint8Array; readonly fds: readonly number[] }[] = []
  readonly ends: number[] = []
  #wake: () => void = () => {}

  constructor(fd: number) {
    this.socket = new FdSocket(fd, {
      arrived: (data, fds) => {
        this.pieces.push({ data: data.slice(), fds })
        this.#wake()
      },
      ended: (errno) => {
        this.ends.push(errno)
        this.#wake()
      },
    })
    open.push(this.socket)
  }

  get bytes(): Buffer {
    return Buffer.concat(this.pieces.map(({ data }) => data))
  }

  get fds(): readonly number[] {
    return this.pieces.flatMap(({ fds }) => fds)
  }

  async until(reached: () => boolean): Promise<void> {
    while (!reached()) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }
}

export function pair(): readonly [Peer, Peer] {
  const [one, other] = socketPair()
  return [new Peer(one), new Peer(other)]
}
