// Large buffers that are used again and again in one thread: memory that the kernel has just given is slow to touch
// for the first time.

/** Sizes are powers of two from 128 KiB on; buffers above 4 MiB are rare, and left to the garbage collector. */
const CLASS_MIN = 17
const CLASS_MAX = 22
/** Spare bytes kept in all; what is given beyond them is left to the garbage collector. */
const SPARE_BYTES_MAX = 32 << 20

const spares: Uint8Array[][] = []
let spareBytes = 0

function classOf(bytes: number): number {
  return bytes <= 2 ** CLASS_MIN ? CLASS_MIN : 32 - Math.clz32(bytes - 1)
}

/** A buffer of at least `bytes` bytes, whose contents are whatever they are. */
export function takeBuffer(bytes: number): Uint8Array {
  const size = classOf(bytes)
  const spare = spares[size]?.pop()
  if (spare === undefined) return Buffer.allocUnsafeSlow(size > CLASS_MAX ? bytes : 2 ** size)
  spareBytes -= spare.length
  return spare
}

/** Gives a buffer from `takeBuffer` back; nobody may use it afterwards. */
export function giveBuffer(buffer: Uint8Array): void {
  const size = classOf(buffer.length)
  if (size > CLASS_MAX || spareBytes + buffer.length > SPARE_BYTES_MAX) return
  spareBytes += buffer.length
  spares[size] ??= []
  spares[size].push(buffer)
}

/** A part of a larger buffer that somebody else owns now; `pooled` is given back when it is of no use any more. */
export interface OwnedPayload {
  readonly bytes: Uint8Array
  readonly pooled: Uint8Array | undefined
}

/** Below this a buffer of its own is cheaper than one of the pool. */
const POOLED_COPY_MIN = 64 << 10

/** A copy that is given back with `giveBuffer` where it came from the pool. */
export function ownedCopy(bytes: Uint8Array, at: number, length: number): OwnedPayload {
  if (length < POOLED_COPY_MIN) return { bytes: copyOf(bytes, at, length), pooled: undefined }
  const pooled = takeBuffer(length)
  pooled.set(bytes.subarray(at, at + length))
  return { bytes: pooled.subarray(0, length), pooled }
}

/** Bytes of one's own: Buffer's `slice` would share memory with the slab. */
export function copyOf(bytes: Uint8Array, at: number, length: number): Uint8Array {
  return Uint8Array.prototype.slice.call(bytes, at, at + length)
}
