// One end of the socket between the process that leaves and the one that takes over. Law: what is told is understood in
// order, and a descriptor is there before the line that speaks of it.
import { closeSync } from 'node:fs'
import { constants } from 'node:os'
import { errnoName, FdSocket } from '../../backends/index.js'

const { EMFILE } = constants.errno
/** Bytes of a line; nothing that is told comes near it but a client's last words. */
const LINE_BYTES_MAX = 64 << 20
/** The other end is this program too, and takes over whatever this process has open. */
const UNSENT_FDS_MAX = Number.MAX_SAFE_INTEGER

export class Channel<In extends { readonly kind: string }, Out> {
  readonly #socket: FdSocket
  readonly #descriptors: number[] = []
  readonly #arrived: In[] = []
  #text = Buffer.alloc(0)
  #ended = false
  #failure = 0
  #wake: () => void = () => {}
  /** Hears what nobody waits for. */
  onMessage: ((message: In) => void) | undefined
  onEnd: () => void = () => {}

  /** The descriptor is the channel's from here on. */
  constructor(fd: number) {
    const events = {
      arrived: (data: Uint8Array, fds: readonly number[]) => this.#take(data, fds),
      ended: (errno: number) => {
        this.#failure = errno
        this.#end()
      },
    }
    this.#socket = new FdSocket(fd, events, { unsentFdsMax: UNSENT_FDS_MAX })
  }

  /** undefined once it has ended: the number may be another file's by then. */
  get fd(): number | undefined {
    return this.#ended ? undefined : this.#socket.fd
  }

  #take(data: Uint8Array, fds: readonly number[]): void {
    this.#descriptors.push(...fds)
    this.#text = Buffer.concat([this.#text, data])
    for (let end = this.#text.indexOf(10); end !== -1; end = this.#text.indexOf(10)) {
      const message = JSON.parse(this.#text.toString('utf8', 0, end)) as In
      this.#text = this.#text.subarray(end + 1)
      if (this.onMessage === undefined) this.#arrived.push(message)
      else this.onMessage(message)
    }
    if (this.#text.length > LINE_BYTES_MAX) this.#end()
    this.#wake()
  }

  #end(): void {
    if (this.#ended) return
    this.#ended = true
    this.#wake()
    this.onEnd()
  }

  /** The other process is gone, or has no more to say. */
  get ended(): boolean {
    return this.#ended
  }

  /** Descriptors came for which this process has no room; what they belong to did not come either. */
  get isShort(): boolean {
    return this.#failure === EMFILE
  }

  /** The next message; undefined when there will be none, or not within `timeoutMs`. */
  async next(timeoutMs?: number): Promise<In | undefined> {
    const deadline = performance.now() + (timeoutMs ?? Number.POSITIVE_INFINITY)
    for (;;) {
      const message = this.#arrived.shift()
      const leftMs = deadline - performance.now()
      if (message !== undefined || this.#ended || leftMs <= 0) return message
      await new Promise<void>((resolve) => {
        const timer = timeoutMs === undefined ? undefined : setTimeout(resolve, leftMs)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }

  /** From here on messages are heard as they come, those included that nobody has taken. */
  hear(onMessage: (message: In) => void): void {
    this.onMessage = onMessage
    for (const message of this.#arrived.splice(0)) onMessage(message)
  }

  /** The oldest descriptors that came and were not taken. @throws TypeError when there are fewer */
  takeDescriptors(count: number): number[] {
    if (this.#descriptors.length < count) throw new TypeError(`${count} descriptors were announced, and did not come`)
    return this.#descriptors.splice(0, count)
  }

  /** Leaves at once where the kernel has room. The descriptors stay the caller's. @throws Error when nobody is there */
  tell(message: Out, descriptors: readonly number[] = []): void {
    const errno = this.#socket.send(Buffer.from(`${JSON.stringify(message)}\n`), descriptors)
    if (errno !== 0) throw new Error(`the other process cannot be told: ${errnoName(errno)}`)
  }

  /** The same for what is nobody's loss if nobody is there any more. */
  mention(message: Out, descriptors: readonly number[] = []): void {
    try {
      this.tell(message, descriptors)
    } catch {
      // It is found out where it matters.
    }
  }

  close(): void {
    this.#ended = true
    this.#socket.close()
    for (const fd of this.#descriptors.splice(0)) closeSync(fd)
  }
}
