// How the client half sees its connection: a stream that somebody else opened, read in exact pieces.
import { concatenate } from './bytes.js'
import { ProtocolError } from './protocol-error.js'

/** A connected byte stream, as a socket gives it. */
export interface ByteStream {
  write(bytes: Uint8Array): void
  /** The next bytes that arrived, whatever their number; undefined once the peer has closed. */
  read(): Promise<Uint8Array | undefined>
  close(): Promise<void>
}

/** Cuts a ByteStream into the pieces that the protocol asks for. */
export class ByteReader {
  readonly #stream: ByteStream
  #rest: Uint8Array = new Uint8Array(0)

  constructor(stream: ByteStream) {
    this.#stream = stream
  }

  /** Exactly `length` bytes, or undefined when the stream ends on this boundary. @throws ProtocolError within one */
  async take(length: number): Promise<Uint8Array | undefined> {
    const parts: Uint8Array[] = []
    let missing = length
    while (missing > 0) {
      if (this.#rest.length === 0) {
        const arrived = await this.#stream.read()
        if (arrived === undefined) {
          if (missing === length) return undefined
          throw new ProtocolError('bad-reply', `the connection ended ${missing} bytes before the end of a message`)
        }
        this.#rest = arrived
      }
      const part = this.#rest.subarray(0, missing)
      this.#rest = this.#rest.subarray(part.length)
      missing -= part.length
      parts.push(part)
    }
    const [first] = parts
    return parts.length === 1 && first !== undefined ? first : concatenate(parts)
  }

  /** Exactly `length` bytes. @throws ProtocolError when the stream ends before them */
  async mustTake(length: number): Promise<Uint8Array> {
    const bytes = await this.take(length)
    if (bytes === undefined) throw new ProtocolError('bad-reply', 'the server closed the connection')
    return bytes
  }
}
