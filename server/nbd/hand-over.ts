// From a socket of this thread to a descriptor that another thread can serve. A secured socket stays here and speaks
// through a tunnel: its keys cannot move, and its ciphering is then done beside the I/O instead of before it.
import type { Socket } from 'node:net'
import { duplicateDescriptor } from '../../backends/index.js'
import { plainDescriptor } from './adopt-socket.js'
import { Tunnels } from './tunnel.js'

/** Takes the descriptor out of a socket, which is of no more use, or stays among `tunnels`; the caller closes it. */
export function descriptorOf(socket: Socket, tunnels: Tunnels = new Tunnels()): number {
  const fd = plainDescriptor(socket)
  if (fd === undefined) return tunnels.through(socket)
  const copy = duplicateDescriptor(fd)
  socket.on('error', () => {})
  socket.destroy()
  return copy
}
