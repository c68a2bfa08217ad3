// Sockets that read into our own buffers. net.createServer knows no `onread`, so an accepted socket is given a second
// descriptor, closed, and opened again with it; where that cannot be had, `data` events bring the bytes.
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
  /** The socket's descriptor; undefined where it is not known. */
  readonly fd: number | undefined
  /** Reads on after `arrived` answered false. */
  readonly resumeReading: () => void
  /** Lets go of the socket, which holds again what was read of it and not taken. */
  readonly release: () => void
}

interface HandleOwner {
  readonly _handle?: { readonly fd?: number }
  readonly encrypted?: boolean
}

/** The number under which the kernel knows a plain socket or a server's; undefined for a secured one, or where Node hides it. */
export function plainDescriptor(socket: object): number | undefined {
  const { _handle, encrypted } = socket as HandleOwner
  const fd = encrypted === true ? undefined : _handle?.fd
  return fd !== undefined && fd >= 0 ? fd : undefined
}

/** Takes over a socket that was accepted with pauseOnConnect. The sink is called from here on. */
export function adoptSocket(accepted: Socket, sink: ByteSink): AdoptedSocket {
  const fd = plainDescriptor(accepted)
  if (fd === undefined) return adoptByDataEvents(accepted, sink)
  const copy = duplicateDescriptor(fd)
  accepted.destroy()
  return socketOn(copy, sink)
}

/** A socket over a descriptor, which is the socket's from here on. Nothing is read before `resumeReading`. */
export function socketOn(fd: number, sink: ByteSink): AdoptedSocket {
  const onread = { buffer: () => sink.target, callback: (length: number) => sink.arrived(length) }
  // `onread` is documented for net.connect's options; the constructor takes the same (Node's lib/net.js).
  // A peer that has no more to say may still wait for replies, so the end of its stream ends nothing by itself.
  const halfOpen = { readable: true, writable: true, allowHalfOpen: true }
  const socket = new Socket({ fd, ...halfOpen, onread } as ConstructorParameters<typeof Socket>[0])
  return { socket, fd, resumeReading: () => socket.resume(), release: () => {} }
}

/** The same over `data` events: for TLS, and for a Node that hides the descriptor. Copies every byte once more. */
export function adoptByDataEvents(socket: Socket, sink: ByteSink): AdoptedSocket {
  let rest: Buffer | undefined
  const feed = (chunk: Buffer): void => {
    let at = 0
    while (at < chunk.length) {
      const { target } = sink
      const length = Math.min(target.length, chunk.length - at)
      target.set(chunk.subarray(at, at + length))
      at += length
      if (sink.arrived(length)) continue
      rest = at < chunk.length ? chunk.subarray(at) : undefined
      socket.pause()
      return
    }
  }
  socket.on('data', feed)
  const takeRest = () => {
    const left = rest
    rest = undefined
    return left
  }
  const resumeReading = () => {
    const left = takeRest()
    socket.resume()
    if (left !== undefined) feed(left)
  }
  const release = () => {
    socket.off('data', feed)
    const left = takeRest()
    if (left !== undefined) socket.unshift(left)
  }
  return { socket, fd: undefined, resumeReading, release }
}
