// From a socket of this thread to a descriptor that another thread can serve. A secured socket stays here and speaks
// through a pair of sockets: its keys cannot move, and its ciphering is then done beside the I/O instead of before it.
import { Socket } from 'node:net'
import { duplicateDescriptor, socketPair } from '../../backends/index.js'
import { plainDescriptor } from './adopt-socket.js'

/** A peer that does not take its last bytes loses them after this long. */
const LINGER_MS = 2000

/** Takes the descriptor out of a socket, which is of no more use; the caller closes it. */
export function descriptorOf(socket: Socket): number {
  const fd = plainDescriptor(socket)
  if (fd === undefined) return throughTunnel(socket)
  const copy = duplicateDescriptor(fd)
  socket.on('error', () => {})
  socket.destroy()
  return copy
}

/** Secured sockets that speak through this process. */
let tunnels = 0

export function openTunnels(): number {
  return tunnels
}

function throughTunnel(socket: Socket): number {
  const [near, far] = socketPair()
  tunnels += 1
  socket.once('close', () => {
    tunnels -= 1
  })
  const tunnel = new Socket({ fd: near, readable: true, writable: true, allowHalfOpen: true })
  // Behind its farewell a peer closes its half, and still waits for the last replies.
  socket.allowHalfOpen = true
  socket.on('error', () => tunnel.destroy()).on('close', () => tunnel.destroy())
  tunnel.on('error', () => socket.destroy()).on('close', () => setTimeout(() => socket.destroy(), LINGER_MS).unref())
  socket.pipe(tunnel)
  tunnel.pipe(socket)
  return far
}
