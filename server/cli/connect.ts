// From an NBD URI to a handshake that has begun, over TCP or a Unix socket, in the clear or over TLS.
import { readFileSync } from 'node:fs'
import { connect, isIP, type Socket } from 'node:net'
import { join } from 'node:path'
import { type ConnectionOptions, connect as connectTls } from 'node:tls'
import { type ByteStream, ClientHandshake } from 'nbd-protocol'
import { UsageError } from '../values.js'

const DEFAULT_PORT = 10809
const PSK_CIPHERS = 'ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-AES256-GCM-SHA384:PSK-AES256-GCM-SHA384'

export interface NbdTarget {
  readonly exportName: string
  readonly address: { readonly path: string } | { readonly host: string; readonly port: number }
  /** undefined: in the clear. */
  readonly tls: { readonly directory?: string; readonly pskFile?: string; readonly user: string } | undefined
}

/**
 * nbd://HOST[:PORT]/NAME or nbd+unix:///NAME?socket=PATH ("The NBD URI specification"); nbds for TLS, with libnbd's
 * tls-certificates=DIR or tls-psk-file=FILE. @throws UsageError
 */
export function parseUri(text: string): NbdTarget {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const [, secure, unix] = /^nbd(s?)(\+unix)?:$/.exec(url?.protocol ?? '') ?? []
  const path = url?.searchParams.get('socket')
  if (url === undefined || secure === undefined || (unix === undefined ? url.hostname === '' : !path)) {
    throw new UsageError(`'${text}' is no NBD URI: write nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH`)
  }
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const directory = url.searchParams.get('tls-certificates')
  const pskFile = url.searchParams.get('tls-psk-file')
  const user = decodeURIComponent(url.username)
  return {
    exportName: decodeURIComponent(url.pathname.replace(/^\//, '')),
    address: path ? { path } : { host, port: url.port === '' ? DEFAULT_PORT : Number(url.port) },
    tls: secure === '' ? undefined : { ...(directory && { directory }), ...(pskFile && { pskFile }), user },
  }
}

class SocketStream implements ByteStream {
  readonly socket: Socket
  #chunks: AsyncIterator<Buffer> | undefined

  constructor(socket: Socket) {
    this.socket = socket
  }

  write(bytes: Uint8Array): void {
    this.socket.write(bytes)
  }

  async read(): Promise<Uint8Array | undefined> {
    this.#chunks ??= this.socket.iterator({ destroyOnReturn: false }) as AsyncIterator<Buffer>
    const next = await this.#chunks.next()
    return next.done ? undefined : next.value
  }

  /** Stops reading without closing, so that TLS can take the socket over. */
  async release(): Promise<Socket> {
    await this.#chunks?.return?.()
    return this.socket
  }

  async close(): Promise<void> {
    await new Promise<void>((resolve) => this.socket.end(resolve))
    this.socket.destroy()
  }
}

function tlsOptions({ tls, address }: NbdTarget): ConnectionOptions {
  const host = 'host' in address ? address.host : 'localhost'
  const server = isIP(host) === 0 ? { servername: host } : { host }
  const { directory, pskFile, user = '' } = tls ?? {}
  if (pskFile !== undefined) {
    const line = readFileSync(pskFile, 'utf8')
      .split('\n')
      .find((entry) => entry.startsWith(`${user}:`))
    if (line === undefined)
      throw new UsageError(`${pskFile} holds no key of '${user}': name the user, nbds://USER@HOST`)
    const psk = Buffer.from(line.slice(user.length + 1).trim(), 'hex')
    const pskCallback = () => ({ identity: user, psk })
    return { ...server, pskCallback, ciphers: PSK_CIPHERS, maxVersion: 'TLSv1.2', checkServerIdentity: () => undefined }
  }
  if (directory === undefined) return server
  const read = (name: string) => readFileSync(join(directory, name))
  try {
    return { ...server, ca: read('ca-cert.pem'), cert: read('client-cert.pem'), key: read('client-key.pem') }
  } catch {
    return { ...server, ca: read('ca-cert.pem') }
  }
}

async function connected(socket: Socket, event: 'connect' | 'secureConnect', where: string): Promise<Socket> {
  await new Promise<void>((resolve, reject) => {
    socket.once(event, resolve).once('error', (error) => reject(new UsageError(`${where}: ${error.message}`)))
  })
  return socket
}

/** Connects. @throws UsageError when nobody listens there */
export async function openStream({ address }: NbdTarget): Promise<SocketStream> {
  const where = 'path' in address ? `unix:${address.path}` : `${address.host}:${address.port}`
  return new SocketStream(
    await connected(connect(address), 'connect', `is the server running? Nobody answers at ${where}`),
  )
}

/** Connects and begins the handshake, over TLS where the URI says so. @throws UsageError, ProtocolError, OptionError */
export async function beginHandshake(target: NbdTarget): Promise<ClientHandshake> {
  const stream = await openStream(target)
  const handshake = await ClientHandshake.begin(stream)
  if (target.tls !== undefined) {
    await handshake.startTls(async () => {
      const socket = connectTls({ ...tlsOptions(target), socket: await stream.release() })
      return new SocketStream(await connected(socket, 'secureConnect', 'TLS could not be set up'))
    })
  }
  return handshake
}
