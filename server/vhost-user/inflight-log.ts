// The memory file in which the front-end keeps for us what is in flight ("Inflight I/O tracking"): a region for each ring, and
// behind them what else the next server has to know of the device.
//
//     |region 0|region 1| … |cache byte|
//
// Each region has room for the largest ring that QEMU runs: the log is asked for by the device's queue size, and a driver may run a ring of
// more entries than that (the firmware of QEMU 10's guests asks for 128, and runs 256).
// Law: a driver that turned the write cache off is not told of durability by a server that has forgotten it.
import { readSync, writeSync } from 'node:fs'
import type { InflightArea } from 'vhost-user-protocol'
import { closeForeign, inflightBytes, isMemoryFile, memoryFile, NoDescriptorError } from '../../backends/index.js'
import { QUEUES_MAX } from './device.js'

const TAIL_BYTES = 64
/** 0 in an area that nobody has written: the cache is on. */
const CACHE_OFF = 1
/** Entries of the largest ring that is kept in a log: QEMU's rings have no more. */
export const QUEUE_SIZE_MAX = 1024

export interface InflightRegion {
  readonly fd: number
  readonly offset: number
  readonly size: number
}

export class InflightLog {
  readonly fd: number
  readonly area: InflightArea
  /** The guest had turned its write cache off when the last server kept this log. */
  readonly cacheWasOff: boolean
  readonly #regionBytes: number

  private constructor(fd: number, area: InflightArea, regionBytes: number, cacheWasOff: boolean) {
    this.fd = fd
    this.area = area
    this.#regionBytes = regionBytes
    this.cacheWasOff = cacheWasOff
  }

  /** A new one, empty; a sentence when there can be none. */
  static make(queues: number, queueSize: number, packed: boolean): InflightLog | string {
    if (!fits(queues, queueSize)) return `an in-flight log of ${queues} rings of ${queueSize} entries cannot be made`
    const regionBytes = inflightBytes(QUEUE_SIZE_MAX, packed)
    const size = queues * regionBytes + TAIL_BYTES
    const area = { size: BigInt(size), offset: 0n, queues, queueSize }
    try {
      return new InflightLog(memoryFile(size), area, regionBytes, false)
    } catch (error) {
      if (!(error instanceof NoDescriptorError)) throw error
      return `an in-flight log of ${queues} rings cannot be made: ${error.message}`
    }
  }

  /** The one that the front-end kept; the descriptor is the log's from here on. A sentence when it is not ours. */
  static take(fd: number, area: InflightArea, packed: boolean): InflightLog | string {
    const { queues, queueSize, size, offset } = area
    const regionBytes = inflightBytes(QUEUE_SIZE_MAX, packed)
    const tail = new Uint8Array(1)
    try {
      const isOurs =
        isMemoryFile(fd) === 1 &&
        fits(queues, queueSize) &&
        offset === 0n &&
        size === BigInt(queues * regionBytes + TAIL_BYTES)
      if (isOurs && readSync(fd, tail, 0, 1, queues * regionBytes) === 1) {
        return new InflightLog(fd, area, regionBytes, tail[0] === CACHE_OFF)
      }
    } catch {
      // Not a file that can be read: told below, as every other area that was not made here.
    }
    closeForeign(fd)
    return `an in-flight log of ${size} bytes for ${queues} rings of ${queueSize} entries is not one that was made here`
  }

  /** Where a ring's region lies; undefined for a ring that the log has none for. */
  regionOf(index: number): InflightRegion | undefined {
    if (index >= this.area.queues) return undefined
    return { fd: this.fd, offset: index * this.#regionBytes, size: this.#regionBytes }
  }

  /** Remembers for the next server whether the guest has its write cache on; false when it cannot. */
  noteCache(on: boolean): boolean {
    try {
      return writeSync(this.fd, Uint8Array.of(on ? 0 : CACHE_OFF), 0, 1, this.area.queues * this.#regionBytes) === 1
    } catch {
      // The descriptor came from outside, and may be of a file that nobody may write.
      return false
    }
  }

  /** Nothing is in flight any more, and no ring has a region mapped; false when it cannot be written. */
  clear(): boolean {
    const nothing = new Uint8Array(this.#regionBytes)
    try {
      for (let index = 0; index < this.area.queues; index++) {
        if (writeSync(this.fd, nothing, 0, nothing.length, index * nothing.length) !== nothing.length) return false
      }
      return true
    } catch {
      // As in `noteCache`.
      return false
    }
  }

  close(): void {
    closeForeign(this.fd)
  }
}

function fits(queues: number, queueSize: number): boolean {
  return queues > 0 && queues <= QUEUES_MAX && queueSize > 0 && queueSize <= QUEUE_SIZE_MAX
}
