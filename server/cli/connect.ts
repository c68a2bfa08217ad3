// From an NBD URI to a byte stream for nbd-protocol's client half.
import { connect, type Socket } from 'node:net'
import type { ByteStream } from 'nbd-protocol'
import { UsageError } from '../values.js'

const DEFAULT_PORT = 10809

export interface NbdTarget {
  readonly exportName: string
  readonly address: { readonly path: string } | { readonly host: string; readonly port: number }
}

/** nbd://HOST[:PORT]/NAME or nbd+unix:///NAME?socket=PATH ("The NBD URI specification"). @throws UsageError */
export function parseUri(text: string): NbdTarget {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const exportName = decodeURIComponent(url?.pathname.replace(/^\//, '') ?? '')
  if (url?.protocol === 'nbd:' && url.hostname !== '') {
    const host = url.hostname.replace(/^\[|\]$/g, '')
    return { exportName, address: { host, port: url.port === '' ? DEFAULT_PORT : Number(url.port) } }
  }
  const path = url?.searchParams.get('socket')
  if (url?.protocol === 'nbd+unix:' && path) return { exportName, address: { path } }
  throw new UsageError(`'${text}' is no NBD URI: write nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH`)
}

class SocketStream implements ByteStream {
  readonly #socket: Socket
  readonly #chunks: AsyncIterator<Buffer>

  constructor(socket: Socket) {
    this.#socket = socket
    this.#chunks = socket[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  }

  write(bytes: Uint8Array): void {
    this.#socket.write(bytes)
  }

  async read(): Promise<Uint8Array | undefined> {
    const next = await this.#chunks.next()
    return next.done ? undefined : next.value
  }

  async close(): Promise<void> {
    await new Promise<void>((resolve) => this.#socket.end(resolve))
    this.#socket.destroy()
  }
}

/** Connects. @throws UsageError when nobody listens there */
export async function openStream({ address }: NbdTarget): Promise<ByteStream> {
  const socket = connect(address)
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve).once('error', (error) => {
      const where = 'path' in address ? `unix:${address.path}` : `${address.host}:${address.port}`
      reject(new UsageError(`nobody answers at ${where} (${error.message}): is the server running?`))
    })
  })
  return new SocketStream(socket)
}
