// A guest's memory as a driver sees it, for tests of the rings: written and read through the memory file, never through
// the mapping that is under test.
import { closeSync, ftruncateSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs'
import { memoryFile, VhostMemory } from '../../backends/index.js'

export const GUEST_BASE = 0x4000_0000n
export const USER_BASE = 0x7f12_3450_0000n

let files = 0

/** A file of shared memory that can be cut off, unlike a sealed memfd. */
export function shrinkableFile(bytes: number): number {
  const path = `/dev/shm/candor-test-${process.pid}-${files++}`
  const fd = openSync(path, 'wx+')
  unlinkSync(path)
  ftruncateSync(fd, bytes)
  return fd
}

/** One region in the middle of a file, and a place in it that grows: nothing is ever given back. */
export class GuestMemory {
  readonly fd: number
  readonly bytes: number
  readonly memory = new VhostMemory()
  /** Bytes of the file before the region, and after it. */
  readonly margin: number
  #top = 0

  constructor(bytes: number, margin = 0, fd = memoryFile(bytes + 2 * margin)) {
    this.bytes = bytes
    this.margin = margin
    this.fd = fd
    const errno = this.memory.add(this.region)
    if (errno !== 0) throw new Error(`the region was not mapped: errno ${errno}`)
  }

  get region() {
    return {
      guestAddress: GUEST_BASE,
      size: BigInt(this.bytes),
      userAddress: USER_BASE,
      offset: BigInt(this.margin),
      fd: this.fd,
    }
  }

  /** Offset in the memory of that many new bytes. */
  allocate(bytes: number, alignment = 16): number {
    const at = Math.ceil(this.#top / alignment) * alignment
    this.#top = at + bytes
    if (this.#top > this.bytes) throw new Error('the guest has no more memory')
    return at
  }

  /** As after a reset: zeroes, and all of it to be allocated again. */
  reset(): void {
    this.#top = 0
    this.write(0, new Uint8Array(this.bytes))
  }

  write(at: number, data: Uint8Array): void {
    writeSync(this.fd, data, 0, data.length, this.margin + at)
  }

  read(at: number, length: number): Buffer {
    const data = Buffer.alloc(length)
    readSync(this.fd, data, 0, length, this.margin + at)
    return data
  }

  read16(at: number): number {
    return this.read(at, 2).readUInt16LE()
  }

  write16(at: number, value: number): void {
    const data = Buffer.alloc(2)
    data.writeUInt16LE(value & 0xffff)
    this.write(at, data)
  }

  close(): void {
    this.memory.close()
    closeSync(this.fd)
  }
}

/** A descriptor as a driver writes it. */
export interface Descriptor {
  readonly address: bigint
  readonly length: number
  readonly writable: boolean
}

export const NEXT = 1
export const WRITE = 2
export const INDIRECT = 4

/** The 16 bytes of struct virtq_desc, or with `packed` of struct pvirtq_desc (whose `extra` is the buffer id). */
export function descriptorBytes(
  address: bigint,
  length: number,
  flags: number,
  extra: number,
  packed: boolean,
): Uint8Array {
  const bytes = Buffer.alloc(16)
  bytes.writeBigUInt64LE(BigInt.asUintN(64, address))
  bytes.writeUInt32LE(length, 8)
  bytes.writeUInt16LE(flags, packed ? 14 : 12)
  bytes.writeUInt16LE(extra, packed ? 12 : 14)
  return bytes
}
