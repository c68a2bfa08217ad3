// A connection without a wire, for the client's half: what the server says is put in by the test, byte for byte.
import type { ByteStream } from 'nbd-protocol'
import { raw } from './raw-bytes.js'

export class RawStream implements ByteStream {
  readonly #arrived: Uint8Array[] = []
  #ended = false
  #wake: () => void = () => {}
  #sent: Uint8Array = new Uint8Array(0)
  closed = false

  /** All that the client has written. */
  get sent(): Uint8Array {
    return this.#sent
  }

  /** What the client wrote since the last call. */
  takeSent(): Uint8Array {
    const sent = this.#sent
    this.#sent = new Uint8Array(0)
    return sent
  }

  /** The server says this, in pieces of at most `piece` bytes. */
  arrive(bytes: Uint8Array, piece = Number.POSITIVE_INFINITY): void {
    for (let at = 0; at < bytes.length; at += piece) this.#arrived.push(bytes.subarray(at, at + piece))
    this.#wake()
  }

  /** The server closes. */
  end(): void {
    this.#ended = true
    this.#wake()
  }

  write(bytes: Uint8Array): void {
    this.#sent = raw(this.#sent, bytes)
  }

  async read(): Promise<Uint8Array | undefined> {
    while (this.#arrived.length === 0 && !this.#ended) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    return this.#arrived.shift()
  }

  async close(): Promise<void> {
    this.closed = true
    this.end()
  }
}
