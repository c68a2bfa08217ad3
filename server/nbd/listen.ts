// Addresses to listen on: tcp:HOST:PORT and unix:PATH, from words to a listening server, with the operator's mistakes
// told in a sentence.

import { existsSync, lstatSync, rmSync, unlinkSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { dirname, resolve } from 'node:path'
import { errnoName, OpenError, processDoor } from '../../backends/index.js'
import { plainDescriptor } from './adopt-socket.js'

export type ListenAddress =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }
  /** A Unix socket for guests: one export, '' for the first. */
  | {
      readonly kind: 'vhost-user'
      readonly path: string
      readonly exportName: string
      /** A socket that was handed over in the place of the path: one that listens, or one that is connected. */
      readonly fd?: number
    }
  /** A socket that somebody else listens on and handed over. */
  | { readonly kind: 'inherited'; readonly fd: number }

/** Connections that wait to be accepted. */
const BACKLOG = 511

/** Only the owner may connect to a Unix socket. */
const UNIX_SOCKET_UMASK = 0o177

/** The URI by which clients reach an address ("nbd: The NBD URI specification"). */
export function uriOf(address: ListenAddress, exportName: string, secure: boolean): string {
  const name = encodeURIComponent(exportName)
  const scheme = secure ? 'nbds' : 'nbd'
  if (address.kind === 'inherited') throw new TypeError('a socket that is not listened on yet has no URI')
  if (address.kind === 'vhost-user') throw new TypeError('vhost-user has no URI')
  if (address.kind === 'unix') return `${scheme}+unix:///${name}?socket=${encodeURI(address.path)}`
  const host = address.host.includes(':') ? `[${address.host}]` : address.host
  return `${scheme}://${host}:${address.port}/${name}`
}

export function describeAddress(address: ListenAddress): string {
  if (address.kind === 'inherited') return `the inherited socket ${address.fd}`
  if (address.kind === 'vhost-user') return `vhost-user:${address.path}`
  return address.kind === 'unix' ? `unix:${address.path}` : `tcp:${address.host}:${address.port}`
}

function listenError(error: NodeJS.ErrnoException, address: ListenAddress): OpenError {
  const what = describeAddress(address)
  if (error.code === 'EADDRINUSE') {
    return new OpenError(`${what} is in use by another program: stop that one, or choose another with --listen`)
  }
  if (error.code === 'EACCES') return new OpenError(`no permission to listen on ${what}: choose another with --listen`)
  if (error.code === 'EADDRNOTAVAIL') return new OpenError(`${what} is no address of this machine: see 'ip address'`)
  if (error.code === 'ENOTFOUND' || error.code === 'EAI_AGAIN') {
    return new OpenError(`the host of ${what} is not known: write an address, such as tcp:127.0.0.1:10809`)
  }
  if (error.code === 'ENOENT') return new OpenError(`the folder of ${what} does not exist: make it first`)
  return new OpenError(`cannot listen on ${what}: ${error.message}`)
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path)
    probe.on('connect', () => resolve(true)).on('error', () => resolve(false))
    probe.on('connect', () => probe.destroy())
  })
}

/** A socket file that a killed predecessor left behind is in the way of bind(2), though nobody listens on it. */
async function removeStaleSocket(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (found === undefined) return
  if (!found.isSocket()) {
    throw new OpenError(`${path} exists and is no socket: remove it, or choose another path with --listen`)
  }
  if (await answers(path)) {
    throw new OpenError(`unix:${path} is in use by another program: stop that one, or choose another with --listen`)
  }
  unlinkSync(path)
}

/** A listening socket. */
export interface Listener {
  /** As it was asked for: port 0 is any. */
  readonly wanted: ListenAddress
  /** Where it really listens. */
  readonly address: ListenAddress
  /** The socket, which stays this listener's. */
  readonly fd: number
  /** Accepts no more here; a Unix socket's path stays, for another process that listens on the same socket. */
  leave(): void
  /** The end: the path of a Unix socket that was made here is removed. */
  close(): void
}

/** Listens. @throws OpenError */
export async function listenOn(address: ListenAddress, onSocket: (socket: Socket) => void): Promise<Listener> {
  if (address.kind !== 'unix' && address.kind !== 'vhost-user') return listening(address, address, onSocket)
  const folder = dirname(resolve(address.path))
  if (!existsSync(folder))
    throw new OpenError(`the folder of ${describeAddress(address)} does not exist: make it first`)
  await removeStaleSocket(address.path)
  return listening(address, { kind: 'inherited', fd: listenPrivately(address) }, onSocket)
}

/** Goes on listening on a socket of another process, which listened on it as `wanted`. */
export function listenOnMoved(
  fd: number,
  wanted: ListenAddress,
  onSocket: (socket: Socket) => void,
): Promise<Listener> {
  return listening(wanted, { kind: 'inherited', fd }, onSocket)
}

function listening(wanted: ListenAddress, on: ListenAddress, onSocket: (socket: Socket) => void): Promise<Listener> {
  const server = createServer({ pauseOnConnect: true, allowHalfOpen: true }, onSocket)
  return new Promise((resolve, reject) => {
    server.on('error', (error) => reject(listenError(error, wanted)))
    server.on('listening', () => {
      const fd = on.kind === 'inherited' ? on.fd : plainDescriptor(server)
      const close = () => {
        // Only where somebody still listens: another's socket may have the same path later.
        if ((wanted.kind === 'unix' || wanted.kind === 'vhost-user') && server.listening)
          rmSync(wanted.path, { force: true })
        server.close()
      }
      resolve({ wanted, address: addressOf(server, wanted), fd: fd ?? -1, leave: () => server.close(), close })
    })
    if (on.kind === 'inherited') server.listen({ fd: on.fd })
    else if (on.kind === 'tcp') server.listen({ port: on.port, host: on.host, backlog: BACKLOG })
  })
}

/** Where it really listens: the port that was asked for may have been any, and an inherited socket says itself. */
function addressOf(server: Server, wanted: ListenAddress): ListenAddress {
  const bound = server.address()
  if (wanted.kind === 'unix' || wanted.kind === 'vhost-user') return wanted
  if (typeof bound === 'string') return { kind: 'unix', path: bound }
  const { address: host, port } = bound ?? { address: '', port: 0 }
  return { kind: 'tcp', host: wanted.kind === 'tcp' ? wanted.host : host, port }
}

/**
 * A socket with a path that goes when we say so: libuv would remove the path of one that it made as soon as its handle is
 * closed, though another process listens on it. bind(2) happens within this call, so the file never has wider permissions.
 */
export function listenPrivately(address: Extract<ListenAddress, { readonly path: string }>): number {
  const before = process.umask(UNIX_SOCKET_UMASK)
  try {
    const fd = processDoor.listenUnix(address.path, BACKLOG)
    if (fd >= 0) return fd
    const code = errnoName(-fd)
    throw listenError(Object.assign(new Error(code), { code }), address)
  } finally {
    process.umask(before)
  }
}
