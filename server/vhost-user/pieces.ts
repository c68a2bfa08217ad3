// Where the data of a request lies: in the guest's memory where it is one piece there, else in a copy. Law: the scratch
// buffer belongs to one turn, and so does what a guest wants written: what waits is a copy, which the guest's memory cannot
// change any more, not even by going away.
import type { VhostMemory, VhostQueue } from '../../backends/index.js'
import type { BlockRequest } from './block-request.js'

export interface Placed {
  readonly buffer: Uint8Array
  readonly start: number
}

/** Larger requests, which are rare, get a buffer each. */
const SCRATCH_BYTES = 1 << 20

/** One for all rings of the thread: nothing in it outlives the turn. */
let scratch: Uint8Array | undefined

function bufferFor(length: number): Uint8Array {
  if (length > SCRATCH_BYTES) return Buffer.allocUnsafeSlow(length)
  scratch ??= Buffer.allocUnsafeSlow(SCRATCH_BYTES)
  return scratch
}

export class Pieces {
  readonly #memory: VhostMemory
  readonly #queue: VhostQueue

  constructor(memory: VhostMemory, queue: VhostQueue) {
    this.#memory = memory
    this.#queue = queue
  }

  /** Where a READ is to put its data. */
  forRead({ window, start, inLength }: BlockRequest): Placed {
    const there = window < 0 ? undefined : this.#memory.window(window)
    return there === undefined ? { buffer: bufferFor(inLength), start: 0 } : { buffer: there, start }
  }

  /** The data of a WRITE for this turn; undefined when the guest's memory is not there any more. */
  forWrite({ id, window, start, outLength }: BlockRequest): Placed | undefined {
    const there = window < 0 ? undefined : this.#memory.window(window)
    if (there !== undefined) return this.#memory.lost ? undefined : { buffer: there, start }
    const buffer = bufferFor(outLength)
    return this.#queue.gather(id, buffer, 0, outLength, 0) === 0 ? { buffer, start: 0 } : undefined
  }

  /** Where a READ that waits is to put its data. */
  keptRead(data: Placed, length: number): Placed {
    return data.buffer === scratch ? { buffer: Buffer.allocUnsafeSlow(length), start: 0 } : data
  }

  /** The data of a WRITE that waits; undefined when the guest's memory is not there any more. */
  keptWrite({ id }: BlockRequest, length: number): Placed | undefined {
    const buffer = Buffer.allocUnsafeSlow(length)
    return this.#queue.gather(id, buffer, 0, length, 0) === 0 ? { buffer, start: 0 } : undefined
  }

  /** Brings what was read to the guest; false when its memory is not there any more. */
  deliver({ id, window, inLength }: BlockRequest, { buffer, start }: Placed): boolean {
    if (window >= 0 && buffer === this.#memory.window(window)) return true
    return this.#queue.scatter(id, buffer, start, inLength, 0) === 0
  }
}
