// Replies of one connection on their way out: what is served in one turn leaves in one write. Law: a buffer that the
// kernel has not taken whole stays the socket's until it has; nobody writes to it meanwhile.
import type { Socket } from 'node:net'
import { viewOf } from 'nbd-protocol'
import { giveBuffer, takeBuffer } from './buffer-pool.js'

/** Replies gather in a buffer of this size; a reply that needs more gets a larger one. */
export const BATCH_BYTES = 1 << 20

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
  readonly #onDrained: () => void
  readonly #written = () => this.#reclaim()
  #batch: Batch | undefined
  #end = 0
  /** One entry for each write that the socket has not told the end of: the buffer that it still holds, if any. */
  readonly #lent: (Uint8Array | undefined)[] = []
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
      giveBuffer(this.#batch.bytes)
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
    if (end === 0 || this.#socket.destroyed) return giveBuffer(batch.bytes)
    this.#socket.write(batch.bytes.subarray(0, end), this.#written)
    const taken = this.#socket.writableLength === 0
    this.#lent.push(taken ? undefined : batch.bytes)
    if (taken) giveBuffer(batch.bytes)
  }

  /** Sends a reply that has its own buffers, which are the socket's from here on. Order among replies is free. */
  send(parts: readonly Uint8Array[]): void {
    this.flush()
    if (this.#socket.destroyed) return
    this.#socket.cork()
    for (const part of parts) {
      this.#lent.push(undefined)
      this.#socket.write(part, this.#written)
    }
    this.#socket.uncork()
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
    const buffer = this.#lent.shift()
    if (buffer !== undefined) giveBuffer(buffer)
    if (this.#socket.writableLength === 0) this.#onDrained()
  }
}
