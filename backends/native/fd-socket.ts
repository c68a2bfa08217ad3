// A Unix stream socket that carries descriptors beside its bytes (SCM_RIGHTS), for the thread that makes it. Law: who is
// handed a descriptor closes it; nothing waits, and nothing is told after the end.
import { errnoName } from '../errno.js'
import { type FdSocketNative, fileIo } from './file-io.js'

/** Bytes that may wait for a peer who does not read. */
const UNSENT_BYTES_MAX = 4 * 1024 * 1024
/** Descriptors that may: each is one of this process, which all exports share. */
export const UNSENT_FDS_MAX = 16
/** The longest piece that `arrived` is told of; one comes in each turn of the event loop. */
const PIECE_BYTES_MAX = 64 * 1024
/** More descriptors than this cannot go with one message (SCM_MAX_FD of the kernel). */
export const MESSAGE_FDS_MAX = 253

export interface FdSocketDoors {
  /** `told(length, fds, errno)`: bytes at the start of the slab with their descriptors, or (length 0) the end. */
  openFdSocket(
    fd: number,
    slab: Uint8Array,
    unsentMax: number,
    unsentFdsMax: number,
    told: (length: number, fds: number[], errno: number) => void,
  ): FdSocketNative | number
  fdSocketSend(socket: FdSocketNative, bytes: Uint8Array, fds: readonly number[]): number
  fdSocketUnsent(socket: FdSocketNative): number
  fdSocketClose(socket: FdSocketNative): void
  /** eventfd(2), non-blocking: a descriptor, or minus errno. */
  eventFd(): number
}

export interface FdSocketEvents {
  /**
   * Bytes as they came, in any pieces, loaned until this returns. The descriptors are close-on-exec and the callee's to
   * close. They belong to the last message that was begun in this piece (one sendmsg(2) of the peer is one message);
   * a piece never goes on past a message that carries some but for that message's own bytes.
   */
  arrived(data: Uint8Array, fds: number[]): void
  /**
   * The end, once: 0 the peer sends no more, EMFILE there was no room here for descriptors that it sent (those that
   * came are closed), else what the socket says. `send` may go on after 0, and `close` is still to be called.
   */
  ended(errno: number): void
}

/** What an FdSocket cannot be made of. */
export class UnusableDescriptor extends Error {
  constructor(errno: number) {
    super(`the descriptor is no connected Unix stream socket, or is watched already (${errnoName(errno)})`)
    this.name = 'UnusableDescriptor'
  }
}

export class FdSocket {
  readonly fd: number
  #native: FdSocketNative | undefined

  /**
   * The descriptor, of a connected Unix stream socket that nothing else watches, is the FdSocket's from here on.
   * `unsentFdsMax`: descriptors that may wait for the peer; `pieceBytesMax`: bytes that a turn may bring.
   * @throws UnusableDescriptor for any other: it stays the caller's
   */
  constructor(
    fd: number,
    events: FdSocketEvents,
    { unsentFdsMax = UNSENT_FDS_MAX, pieceBytesMax = PIECE_BYTES_MAX } = {},
  ) {
    const slab = new Uint8Array(pieceBytesMax)
    this.fd = fd
    const opened = fileIo.openFdSocket(fd, slab, UNSENT_BYTES_MAX, unsentFdsMax, (length, fds, errno) => {
      if (length > 0) events.arrived(slab.subarray(0, length), fds)
      else events.ended(errno)
    })
    if (typeof opened === 'number') throw new UnusableDescriptor(opened)
    this.#native = opened
  }

  /** Bytes taken by `send` that the peer has not taken yet. They are lost by `close`. */
  get unsent(): number {
    return this.#native === undefined ? 0 : fileIo.fdSocketUnsent(this.#native)
  }

  /**
   * Sends at least one byte, and at most 253 descriptors with the first of them, all of which stay the caller's. What
   * the peer does not take at once is copied and goes later, in order. Returns an errno: ENOBUFS when the peer leaves
   * too much waiting, EPIPE when it is gone; nothing was sent then, or the stream is of no use any more.
   */
  send(data: Uint8Array, fds: readonly number[] = []): number {
    if (this.#native === undefined) throw new Error('this socket is closed')
    return fileIo.fdSocketSend(this.#native, data, fds)
  }

  /** Closes the descriptor at once. No event comes afterwards. */
  close(): void {
    if (this.#native !== undefined) fileIo.fdSocketClose(this.#native)
    this.#native = undefined
  }
}

/** An eventfd(2), non-blocking and close-on-exec, for a caller who closes it. @throws when there are no more descriptors */
export function eventFd(): number {
  const fd = fileIo.eventFd()
  if (fd < 0) throw new Error(`no eventfd could be made: errno ${-fd}`)
  return fd
}
