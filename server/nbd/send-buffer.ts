// Larger send buffers for Unix sockets whose replies do not fit: 208 KiB, the usual size, is less than one large reply.
// Law: what the kernel holds for clients that take nothing is bounded, so only so many sockets have one at a time.
import type { Socket } from 'node:net'
import { socketIo } from '../../backends/index.js'

/** A wish, which the kernel doubles; net.core.wmem_max may cut it. */
const SEND_BUFFER_BYTES = 2 << 20
const LARGE_MAX = 16

let large = 0

/** Gives the socket a larger send buffer until it is closed; false when there are enough of them. */
export function enlargeSendBuffer(socket: Socket, fd: number): boolean {
  if (large >= LARGE_MAX || socketIo.sendBuffer(fd, SEND_BUFFER_BYTES) !== 0) return false
  large += 1
  socket.once('close', () => {
    large -= 1
  })
  return true
}
