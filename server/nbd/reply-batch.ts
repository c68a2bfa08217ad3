// Replies of one connection on their way out: what is served in one turn leaves in one write. Law: a buffer that the
// kernel has not taken whole stays the socket's until it has; nobody writes to it meanwhile.
import type { Socket } from 'node:net'
import { viewOf } from 'nbd-protocol'

/** Replies gather in a buffer of this size; a reply that needs more gets a buffer of its own. */
export const BATCH_BYTES = 1 << 20
/** Spare buffers kept in this thread; more are left to the garbage collector. */
const SPARE_BATCHES_MAX = 8

interface Batch {
  readonly bytes: Uint8Array
  readonly view: DataView
}

const spare: Batch[] = []

function takeBatch(bytesNeeded: number): Batch {
  const reused = bytesNeeded <= BATCH_BYTES ? spare.pop() : undefined
  if (reused !== undefined) return reused
  const bytes = Buffer.allocUnsafeSlow(Math.max(BATCH_BYTES, bytesNeeded))
  return { bytes, view: viewOf(bytes) }
}

function giveBatch(batch: Batch): void {
  if (batch.bytes.length === BATCH_BYTES && spare.length < SPARE_BATCHES_MAX) spare.push(batch)
}

/**
 * Gathers replies: `reserve` room, write at the returned place of `bytes` and `view`, `commit` the end; `flush` sends.
 * Between reserve and commit nothing else may be reserved.
 */
export class ReplyBatch {
  readonly #socket: Socket
  readonly #onDrained: () => void
  readonly #written = () => this.#reclaim()
  #batch: Batch | undefined
  #end = 0
  /** Batches that the kernel has not taken whole. */
  #lent: Batch[] = []
  #flushScheduled = false

  /** `onDrained` is called whenever the socket has taken everything that it was given. */
  constructor(socket: Socket, onDrained: () => void) {
    this.#socket = socket
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

  /** The place at which the next `bytesNeeded` bytes may be written; sends what is there first when it is full. */
  reserve(bytesNeeded: number): number {
    if (this.#batch !== undefined && this.#batch.bytes.length - this.#end < bytesNeeded) this.flush()
    this.#batch ??= takeBatch(bytesNeeded)
    if (this.#batch.bytes.length < bytesNeeded) {
      giveBatch(this.#batch)
      this.#batch = takeBatch(bytesNeeded)
    }
    return this.#end
  }

  /** Everything up to `end` is a whole number of replies. */
  commit(end: number): void {
    this.#end = end
  }

  /** Sends what was committed. Called at the end of every turn that served something. */
  flush(): void {
    const batch = this.#batch
    if (batch === undefined) return
    this.#batch = undefined
    const end = this.#end
    this.#end = 0
    if (end === 0 || this.#socket.destroyed) return giveBatch(batch)
    this.#socket.write(batch.bytes.subarray(0, end), this.#written)
    if (this.#socket.writableLength === 0) giveBatch(batch)
    else this.#lent.push(batch)
  }

  /** Sends a reply that has its own buffer, which is the socket's from here on. Order among replies is free. */
  send(reply: Uint8Array): void {
    this.flush()
    if (!this.#socket.destroyed) this.#socket.write(reply, this.#written)
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

  #reclaim(): void {
    if (this.#socket.writableLength !== 0) return
    if (this.#lent.length > 0) {
      for (const batch of this.#lent) giveBatch(batch)
      this.#lent = []
    }
    this.#onDrained()
  }
}
