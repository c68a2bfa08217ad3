// Large buffers that are used again and again in one thread: memory that the kernel has just given is slow to touch
// for the first time.

/** Sizes are powers of two from 128 KiB on; buffers above 4 MiB are rare, and left to the garbage collector. */
const CLASS_MIN = 17
const CLASS_MAX = 22
/** Spare bytes kept for each size. */
const SPARE_BYTES_MAX = 8 << 20

const spares: Uint8Array[][] = []

function classOf(bytes: number): number {
  return Math.max(CLASS_MIN, Math.ceil(Math.log2(bytes)))
}

/** A buffer of at least `bytes` bytes, whose contents are whatever they are. */
export function takeBuffer(bytes: number): Uint8Array {
  const size = classOf(bytes)
  return spares[size]?.pop() ?? Buffer.allocUnsafeSlow(size > CLASS_MAX ? bytes : 2 ** size)
}

/** Gives a buffer from `takeBuffer` back; nobody may use it afterwards. */
export function giveBuffer(buffer: Uint8Array): void {
  const size = classOf(buffer.length)
  if (size > CLASS_MAX) return
  spares[size] ??= []
  if (spares[size].length * buffer.length < SPARE_BYTES_MAX) spares[size].push(buffer)
}

/** Bytes of one's own: Buffer's `slice` would share memory with the slab. */
export function copyOf(bytes: Uint8Array, at: number, length: number): Uint8Array {
  return Uint8Array.prototype.slice.call(bytes, at, at + length)
}
