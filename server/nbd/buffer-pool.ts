// Large buffers that are used again and again in one thread: memory that the kernel has just given is slow to touch
// for the first time. Law: they begin at a line of the processor's cache, since the kernel copies from there in two thirds
// of the time (ARCHITECTURE.md).
import { LINE_BYTES, socketIo } from '../../backends/index.js'

/** Room for what stands in front of a payload: a power of two of data and its header make one buffer. */
const HEAD_BYTES = 2 * LINE_BYTES
/** Sizes are powers of two from 128 KiB to 4 MiB, and whole MiB above; and the head. */
const SIZE_MIN = 128 << 10
const POWERS_MAX = 4 << 20
const MIB = 1 << 20
/** Spare bytes kept in all; larger buffers are rare, and freed at once. */
const SPARE_BYTES_MAX = 24 << 20

const spares = new Map<number, Uint8Array[]>()
let spareBytes = 0

function sizeFor(needed: number): number {
  const bytes = needed - HEAD_BYTES
  if (bytes > POWERS_MAX) return Math.ceil(bytes / MIB) * MIB + HEAD_BYTES
  return (bytes <= SIZE_MIN ? SIZE_MIN : 1 << (32 - Math.clz32(bytes - 1))) + HEAD_BYTES
}

/** Where a header of so many bytes is to begin in a buffer of the pool, so that the payload behind it begins a line. */
export function headAt(headerBytes: number): number {
  return LINE_BYTES - (headerBytes % LINE_BYTES)
}

/** A buffer that begins a line. */
function lined(size: number): Uint8Array {
  const memory = Buffer.allocUnsafeSlow(size + LINE_BYTES)
  const at = socketIo.toLine(memory, LINE_BYTES)
  return memory.subarray(at, at + size)
}

/** A buffer of at least `bytes` bytes, whose contents are whatever they are. */
export function takeBuffer(bytes: number): Uint8Array {
  const size = sizeFor(bytes)
  const spare = spares.get(size)?.pop()
  if (spare === undefined) return lined(size)
  spareBytes -= size
  return spare
}

/** Gives a buffer from `takeBuffer` back; nobody may use it afterwards. */
export function giveBuffer(buffer: Uint8Array): void {
  const size = buffer.length
  if (size > POWERS_MAX + HEAD_BYTES || spareBytes + size > SPARE_BYTES_MAX) return socketIo.freeNow(buffer)
  spareBytes += size
  const same = spares.get(size)
  if (same === undefined) spares.set(size, [buffer])
  else same.push(buffer)
}

/** Frees a buffer that is of no use any more where that is worth a call and nobody shares its memory. */
export function discard({ buffer, length }: Uint8Array): void {
  if (length >= POOLED_COPY_MIN && length === buffer.byteLength) socketIo.freeNow(new Uint8Array(buffer))
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
