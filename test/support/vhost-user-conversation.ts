// The front-end's end of a vhost-user socket, for tests: messages out, and the answers to those that have one.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { decodeU64, encodeMessage, type Frame, MessageStream, VHOST_USER_NEED_REPLY_FLAG } from 'vhost-user-protocol'
import { FdSocket } from '../../backends/index.js'
import { descriptorOf } from '../../server/nbd/adopt-socket.js'

/** A connected socket's descriptor. */
export async function socketTo(path: string): Promise<number> {
  const socket = connect(path)
  await once(socket, 'connect')
  return descriptorOf(socket)
}

export class Conversation {
  readonly #socket: FdSocket
  readonly #stream = new MessageStream()
  #wake: () => void = () => {}
  /** The back-end has closed the connection. */
  ended = false

  constructor(fd: number) {
    this.#socket = new FdSocket(fd, {
      arrived: (data, fds) => {
        this.#stream.receive(data, fds)
        this.#wake()
      },
      ended: () => {
        this.ended = true
        this.#wake()
      },
    })
  }

  close(): void {
    this.#socket.close()
  }

  send(bytes: Uint8Array, fds: readonly number[] = []): void {
    this.#socket.send(bytes, fds)
  }

  /** The next message of the back-end; undefined when it has closed the connection. */
  async heard(): Promise<Frame | undefined> {
    for (;;) {
      const frame = this.#stream.next()
      if (frame !== undefined || this.ended) return frame
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  /** The messages that have come, and nobody has heard yet. */
  heardNow(): Frame[] {
    const frames: Frame[] = []
    for (let frame = this.#stream.next(); frame !== undefined; frame = this.#stream.next()) frames.push(frame)
    return frames
  }

  /** Resolves when the back-end has closed the connection. */
  async untilEnded(): Promise<void> {
    while (!this.ended) assert.equal(await this.heard(), undefined)
  }

  async ask(request: number, payload?: Uint8Array, fds: readonly number[] = [], flags = 0): Promise<Frame> {
    this.send(encodeMessage(request, payload, flags), fds)
    const frame = await this.heard()
    assert.ok(frame !== undefined, `the session ended instead of an answer to ${request}`)
    assert.equal(frame.request, request)
    return frame
  }

  /** Tells something that has to succeed. */
  async tell(request: number, payload?: Uint8Array, fds: readonly number[] = []): Promise<void> {
    const { payload: reply } = await this.ask(request, payload, fds, VHOST_USER_NEED_REPLY_FLAG)
    assert.equal(decodeU64(reply), 0n, `${request} was refused`)
  }

  async u64(request: number): Promise<bigint> {
    const value = decodeU64((await this.ask(request)).payload)
    assert.ok(value !== undefined)
    return value
  }
}
