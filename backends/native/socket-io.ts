// The typed door of the addon's socket calls. Law: none of them waits; a descriptor belongs to its net.Socket, and is
// of no use once that was destroyed.
import { fileIo } from './file-io.js'

/** What the processor's caches move at once: the kernel copies bulk fastest to and from the beginning of such a line. */
export const LINE_BYTES = 64

export interface SocketIo {
  /** send(2) with MSG_DONTWAIT: bytes taken, 0 when the peer's buffer is full, or minus errno. */
  sendNow(fd: number, bytes: Uint8Array, start: number, length: number): number
  /** recv(2) with MSG_DONTWAIT, again and again for `patienceNs`: bytes that came, 0 when there are none. */
  receiveNow(fd: number, bytes: Uint8Array, patienceNs: number): number
  /** Bytes from the beginning of a buffer to the next address that is a multiple of `lineBytes`, a power of two. */
  toLine(bytes: Uint8Array, lineBytes: number): number
  /** Frees the memory behind a buffer, which nobody may look at any more, without waiting for V8 to find it. */
  freeNow(bytes: Uint8Array): void
  /** SO_SNDBUF of socket(7). Returns an errno. */
  sendBuffer(fd: number, bytes: number): number
}

export const socketIo: SocketIo = fileIo
