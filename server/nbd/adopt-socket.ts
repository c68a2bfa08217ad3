// Sockets that read into our own buffers. net.createServer knows no `onread`, so an accepted socket is given a second
// descriptor, closed, and opened again with it.
import { Socket } from 'node:net'
import { duplicateDescriptor } from '../../backends/index.js'

/** What a connection needs of its byte source. */
export interface ByteSink {
  /** Where the next bytes are to be put. */
  readonly target: Uint8Array
  /** `length` bytes were put there. False: read no more until `resumeReading`. */
  arrived(length: number): boolean
}

export interface AdoptedSocket {
  readonly socket: Socket
  readonly fd: number
  /** Reads on after `arrived` answered false. */
  readonly resumeReading: () => void
}

interface HandleOwner {
  readonly _handle?: { readonly fd?: number }
}

/** The number under which the kernel knows a socket or a server's; undefined for one that is closed. */
export function plainDescriptor(socket: object): number | undefined {
  const fd = (socket as HandleOwner)._handle?.fd
  return fd !== undefined && fd >= 0 ? fd : undefined
}

/** Takes the descriptor out of a socket, which is of no more use; the caller closes it. @throws NoDescriptorError */
export function descriptorOf(socket: Socket): number {
  const fd = plainDescriptor(socket)
  if (fd === undefined) throw new TypeError('a socket that is closed, or of no kind that the kernel knows')
  const copy = duplicateDescriptor(fd)
  socket.on('error', () => {})
  socket.destroy()
  return copy
}

/** Takes over a socket that was accepted with pauseOnConnect. The sink is called from here on. */
export function adoptSocket(accepted: Socket, sink: ByteSink): AdoptedSocket {
  return socketOn(descriptorOf(accepted), sink)
}

/** A socket over a descriptor, which is the socket's from here on. Nothing is read before `resumeReading`. */
export function socketOn(fd: number, sink: ByteSink): AdoptedSocket {
  const onread = { buffer: () => sink.target, callback: (length: number) => sink.arrived(length) }
  // `onread` is documented for net.connect's options; the constructor takes the same (Node's lib/net.js).
  // A peer that has no more to say may still wait for replies, so the end of its stream ends nothing by itself.
  const halfOpen = { readable: true, writable: true, allowHalfOpen: true }
  const socket = new Socket({ fd, ...halfOpen, onread } as ConstructorParameters<typeof Socket>[0])
  return { socket, fd, resumeReading: () => socket.resume() }
}
