// Replies of one connection on their way out: what is served in one turn leaves in one write. Law: a buffer that the
// kernel has not taken whole stays the socket's until it has; nobody writes to it meanwhile.
import type { Socket } from 'node:net'
import { viewOf } from 'nbd-protocol'
import { pagePipe, socketIo } from '../../backends/index.js'
import { giveBuffer, takeBuffer } from './buffer-pool.js'
import type { PayloadBudget } from './payload-budget.js'
import { enlargeSendBuffer } from './send-buffer.js'

/** Replies gather in a buffer of this size; a reply that needs more gets a larger one. */
const BATCH_BYTES = 512 << 10
/** What has gathered is sent at this size, while it is still in the processor's cache. */
const SEND_BYTES = 256 << 10
/** Of short replies: the client, or who ciphers for it, has enough to begin with. */
const SEND_SHORT_BYTES = 64 << 10
const SHORT_BYTES_MAX = 32 << 10

interface Lent {
  readonly rest: Uint8Array
  /** What of it counts in the budget. */
  readonly bytes: number
  readonly pooled: Uint8Array | undefined
}

interface Batch {
  readonly bytes: Uint8Array
  readonly view: DataView
}

function takeBatch(bytesNeeded: number): Batch {
  const bytes = takeBuffer(Math.max(BATCH_BYTES, bytesNeeded))
  return { bytes, view: viewOf(bytes) }
}

/**
 * Gathers replies: `reserve` room, write at the returned place of `bytes` and `view`, `commit` the end; `flush` sends.
 * Between reserve and commit nothing else may be reserved.
 */
export class ReplyBatch {
  readonly #socket: Socket
  readonly #fd: number
  #mayGrow = true
  readonly #onDrained: () => void
  readonly #written = () => this.#reclaim()
  #batch: Batch | undefined
  #end = 0
  /** One entry for each write that the socket has not told the end of, with the pool's buffer that it still holds, if any. */
  readonly #lent: Lent[] = []
  /** Bytes of all writes so far. */
  #given = 0
  readonly #budget: PayloadBudget | undefined
  #flushScheduled = false

  /** `onDrained` is called whenever the socket has taken everything that it was given; until then it counts in the budget. */
  constructor(socket: Socket, fd: number, onDrained: () => void, budget?: PayloadBudget) {
    this.#budget = budget
    this.#socket = socket
    this.#fd = fd
    this.#onDrained = onDrained
  }

  /** Bytes that the peer has not taken yet. */
  get backlog(): number {
    return this.#socket.writableLength
  }

  /** The buffer that `reserve` gave room in. */
  get bytes(): Uint8Array {
    return this.#current().bytes
  }

  get view(): DataView {
    return this.#current().view
  }

  #current(): Batch {
    this.#batch ??= takeBatch(BATCH_BYTES)
    return this.#batch
  }

  /** Replies are here that were not sent. */
  get hasReplies(): boolean {
    return this.#end > 0
  }

  /** The place at which the next `bytesNeeded` bytes may be written; sends what is there first when it is full. */
  reserve(bytesNeeded: number): number {
    if (this.#batch !== undefined && this.#batch.bytes.length - this.#end < bytesNeeded) this.flush()
    this.#batch ??= takeBatch(bytesNeeded)
    return this.#end
  }

  /** Everything up to `end` is a whole number of replies. */
  commit(end: number): void {
    const isShort = end - this.#end <= SHORT_BYTES_MAX
    this.#end = end
    if (end >= (isShort ? SEND_SHORT_BYTES : SEND_BYTES)) this.flush()
  }

  /** Sends what was committed. Called at the end of every turn that served something. */
  flush(): void {
    const batch = this.#batch
    if (batch === undefined) return
    this.#batch = undefined
    const end = this.#end
    this.#end = 0
    if (end === 0 || this.#socket.destroyed || this.#socket.writableEnded) return giveBuffer(batch.bytes)
    this.#give(batch.bytes, end, batch.bytes)
  }

  /** A reply's data may go behind its header in the kernel's own pages: nothing else waits for the peer. */
  get takesPages(): boolean {
    const { destroyed, writableEnded, writableLength } = this.#socket
    return writableLength === 0 && !destroyed && !writableEnded
  }

  /** Sends what was committed, and behind it the `length` bytes in the thread's pipe, which is empty then. */
  flushWithPages(length: number): void {
    this.flush()
    if (this.#socket.destroyed || this.#socket.writableEnded) return pagePipe.pagesDrop()
    // What the kernel has not taken of the replies before goes before.
    const taken = this.takesPages ? this.#pagesNow(length) : 0
    if (taken === length) return
    const rest = takeBuffer(length - taken)
    pagePipe.pagesTake(rest, 0, length - taken)
    this.#write(rest.subarray(0, length - taken), rest)
  }

  /** Bytes from the pipe that the kernel took. */
  #pagesNow(length: number): number {
    const taken = Math.max(0, pagePipe.pagesOut(this.#fd, length))
    if (taken === length || !this.#grows()) return taken
    return taken + Math.max(0, pagePipe.pagesOut(this.#fd, length - taken))
  }

  /** Gives bytes[0, end) away: to the kernel at once, and what it does not take to the event loop. */
  #give(bytes: Uint8Array, end: number, pooled: Uint8Array | undefined): void {
    const sent = this.#sendNow(bytes, end)
    if (sent < end) this.#write(bytes.subarray(sent, end), pooled)
    else if (pooled !== undefined) giveBuffer(pooled)
  }

  /** `bytes` is what it keeps of memory until it has left. */
  #write(rest: Uint8Array, pooled: Uint8Array | undefined, bytes = pooled?.length ?? rest.length): void {
    this.#socket.write(rest, this.#written)
    const taken = this.#socket.writableLength === 0
    this.#lend(rest, taken ? 0 : bytes, taken ? undefined : pooled)
    this.#given += rest.length
    if (taken && pooled !== undefined) giveBuffer(pooled)
  }

  #lend(rest: Uint8Array, bytes: number, pooled: Uint8Array | undefined): void {
    this.#lent.push({ rest, bytes, pooled })
    this.#budget?.take(bytes)
  }

  /** Bytes of bytes[0, end) that the kernel took. What is wrong with the socket, the event loop finds out and tells. */
  #sendNow(bytes: Uint8Array, end: number): number {
    if (this.#socket.writableLength !== 0) return 0
    const sent = Math.max(0, socketIo.sendNow(this.#fd, bytes, 0, end))
    if (sent === end || !this.#grows()) return sent
    return sent + Math.max(0, socketIo.sendNow(this.#fd, bytes, sent, end - sent))
  }

  /** The first time that the kernel does not take all, it is given more room. */
  #grows(): boolean {
    const mayGrow = this.#mayGrow
    this.#mayGrow = false
    return mayGrow && enlargeSendBuffer(this.#socket, this.#fd)
  }

  /**
   * Sends a reply that has its own buffers, which are the socket's from here on; `pooled` is the pool's buffer behind
   * them, given back when the last part has left. Order among replies is free.
   */
  send(parts: readonly Uint8Array[], pooled?: Uint8Array): void {
    this.flush()
    if (this.#socket.destroyed || this.#socket.writableEnded) {
      if (pooled !== undefined) giveBuffer(pooled)
      return
    }
    const last = parts.length - 1
    if (last === 0 && parts[0] !== undefined) return this.#give(parts[0], parts[0].length, pooled)
    // Many small parts leave in one writev(2) of libuv's.
    this.#socket.cork()
    for (const [index, part] of parts.entries()) {
      if (index === last) this.#write(part, pooled)
      else this.#write(part, undefined, pooled === undefined ? part.length : 0)
    }
    this.#socket.uncork()
  }

  /**
   * A copy of what the kernel has not taken, in order: for another process, which sends it after this socket was
   * destroyed in the same turn.
   */
  unsent(): Uint8Array {
    this.flush()
    const taken = takenBytes(this.#socket)
    if (taken === undefined) throw new TypeError('this Node does not tell what a socket has sent')
    const all = Buffer.concat(this.#lent.map(({ rest }) => rest))
    return all.subarray(all.length - (this.#given - taken))
  }

  /** Lets replies that come outside of a serving turn leave together, once this turn's promises are settled. */
  flushSoon(): void {
    if (this.#flushScheduled) return
    this.#flushScheduled = true
    process.nextTick(() => {
      this.#flushScheduled = false
      this.flush()
    })
  }

  /** The oldest write has ended: writes end in the order in which they began. */
  #reclaim(): void {
    const lent = this.#lent.shift()
    if (lent?.pooled !== undefined) giveBuffer(lent.pooled)
    if (lent !== undefined) this.#budget?.give(lent.bytes)
    if (this.#socket.writableLength === 0) this.#onDrained()
  }
}

/** Bytes of `socket.write` that the kernel has taken; libuv may hold a part of a write back. */
function takenBytes(socket: Socket): number | undefined {
  const { _handle } = socket as {
    readonly _handle?: { readonly bytesWritten?: number; readonly writeQueueSize?: number }
  }
  const { bytesWritten, writeQueueSize } = _handle ?? {}
  return bytesWritten === undefined || writeQueueSize === undefined ? undefined : bytesWritten - writeQueueSize
}
