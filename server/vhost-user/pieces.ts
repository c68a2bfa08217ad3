// Where the data of a request lies: in the guest's memory where it is one piece there or storage takes pieces, else in a copy. Law: the scratch
// buffer belongs to one turn, and so does what a guest wants written: what waits is a copy, which the guest's memory cannot
// change any more, not even by going away.
import type { IoData, VhostMemory, VhostQueue } from '../../backends/index.js'
import type { BlockRequest } from './block-request.js'

export interface Placed<Data extends IoData = IoData> {
  readonly buffer: Data
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
  readonly #vectors: boolean

  /** `vectors`: storage takes data in pieces. */
  constructor(memory: VhostMemory, queue: VhostQueue, vectors: boolean) {
    this.#memory = memory
    this.#queue = queue
    this.#vectors = vectors
  }

  /** Where a READ is to put its data. */
  forRead({ id, window, start, inLength }: BlockRequest): Placed {
    const there = window < 0 ? undefined : this.#memory.window(window)
    if (there !== undefined) return { buffer: there, start }
    return { buffer: this.#vectors ? this.#queue.vector(id) : bufferFor(inLength), start: 0 }
  }

  /** The data of a WRITE for this turn; undefined when the guest's memory is not there any more. */
  forWrite({ id, window, start, outLength }: BlockRequest): Placed | undefined {
    const there = window < 0 ? undefined : this.#memory.window(window)
    if (there !== undefined) return this.#memory.lost ? undefined : { buffer: there, start }
    if (this.#vectors) return { buffer: this.#queue.vector(id), start: 0 }
    const buffer = bufferFor(outLength)
    return this.#queue.gather(id, buffer, 0, outLength, 0) === 0 ? { buffer, start: 0 } : undefined
  }

  /** Where a READ that waits is to put its data. */
  keptRead({ buffer, start }: Placed, length: number): Placed<Uint8Array> {
    if (buffer instanceof Uint8Array && buffer !== scratch) return { buffer, start }
    return { buffer: Buffer.allocUnsafeSlow(length), start: 0 }
  }

  /** The data of a WRITE that waits; undefined when the guest's memory is not there any more. */
  keptWrite({ id }: BlockRequest, length: number): Placed<Uint8Array> | undefined {
    const buffer = Buffer.allocUnsafeSlow(length)
    return this.#queue.gather(id, buffer, 0, length, 0) === 0 ? { buffer, start: 0 } : undefined
  }

  /** The data are not in the guest's memory, but in ours. */
  isCopy({ window }: BlockRequest, { buffer }: Placed): boolean {
    return buffer instanceof Uint8Array && (window < 0 || buffer !== this.#memory.window(window))
  }

  /** Brings what was read to the guest; false when its memory is not there any more. */
  deliver(request: BlockRequest, { buffer, start }: Placed): boolean {
    if (!(buffer instanceof Uint8Array) || !this.isCopy(request, { buffer, start })) return true
    return this.#queue.scatter(request.id, buffer, start, request.inLength, 0) === 0
  }
}
