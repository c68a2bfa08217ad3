// The typed door of the addon's socket calls. Law: none of them waits; a descriptor belongs to its net.Socket, and is
// of no use once that was destroyed.
import { fileIo } from './file-io.js'

export interface SocketIo {
  /** send(2) with MSG_DONTWAIT: bytes taken, 0 when the peer's buffer is full, or minus errno. */
  sendNow(fd: number, bytes: Uint8Array, start: number, length: number): number
  /** SO_SNDBUF of socket(7). Returns an errno. */
  sendBuffer(fd: number, bytes: number): number
}

export const socketIo: SocketIo = fileIo
