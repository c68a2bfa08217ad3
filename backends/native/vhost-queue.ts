// One virtqueue of a vhost-user session, in the thread that makes it: requests out of guest memory, completions into it.
// Laws: everything that a guest can write is checked and read once; what breaks a rule breaks its queue and nothing else;
// a request is completed exactly once.
import { fileIo, type VhostQueueNative } from './file-io.js'
import type { IoVector } from './io-vector.js'
import type { VhostMemory } from './vhost-memory.js'

/** Words of an entry of `table`. */
export const REQUEST_WORDS = 8
/** Names the request, until it is complete. Below the queue's size. */
export const REQUEST_ID = 0
/** struct virtio_blk_req: type, and sector as it stands there (not checked; above 2^53 it is rounded). */
export const REQUEST_TYPE = 1
export const REQUEST_SECTOR = 2
/** Bytes that the guest hands over, after the header. */
export const REQUEST_OUT_LENGTH = 3
/** Bytes that the guest wants, before the status byte. */
export const REQUEST_IN_LENGTH = 4
/** Pieces of guest memory that the data lies in. */
export const REQUEST_SEGMENTS = 5
/** Index of VhostMemory.window when the data is one piece (and of one direction), else -1; and where in the window. */
export const REQUEST_WINDOW = 6
export const REQUEST_START = 7

/** Entries that one `requests` tells of at most: one guest does not keep the thread to itself. */
export const REQUESTS_BATCH_MAX = 128

export interface QueueOptions {
  readonly memory: VhostMemory
  /** Descriptors: 1 to 32768; a power of 2 unless the ring is packed. */
  readonly size: number
  readonly packed: boolean
  /** VIRTIO_RING_F_EVENT_IDX was negotiated. */
  readonly eventIdx: boolean
  /** VIRTIO_RING_F_INDIRECT_DESC was negotiated: otherwise an indirect descriptor breaks the queue. */
  readonly indirect: boolean
  /** User addresses, as SET_VRING_ADDR has them: descriptor, available and used; packed: ring, driver and device area. */
  readonly descriptors: bigint
  readonly driver: bigint
  readonly device: bigint
  /** What SET_VRING_BASE said. Packed: with wrap counters, bits 0 to 15 available, 16 to 31 used. */
  readonly base: number
  /** An eventfd each; duplicated, and the caller's to close. -1: none (no kick: `poll` asks; no call: nobody is told). */
  readonly kick: number
  readonly call: number
  /** This queue's region of the in-flight log: `inflightBytes` bytes at `offset` of the file; duplicated too. */
  readonly inflight?: { readonly fd: number; readonly offset: number; readonly size: number } | undefined
  /** Requests that may be out at once; above it the ring is not read until some are complete. At most `size`. */
  readonly requestsMax: number
}

export interface QueueEvents {
  /** That many new entries stand at the start of `table`, until this returns. */
  requests(count: number): void
  /** Once: the guest, or whoever shares its memory, broke a rule. Nothing more is read; what is out is still completed
   * (`complete` then writes nothing). */
  broken(reason: string): void
}

type TransferNow = (
  queue: VhostQueueNative,
  id: number,
  fd: number,
  start: number,
  length: number,
  offset: number,
  nowait: 0 | 1,
) => number

export interface VhostQueueDoors {
  openVhostQueue(
    memory: VhostMemory['native'],
    words: Float64Array,
    addresses: BigUint64Array,
    inflight: Float64Array,
    table: Float64Array,
    told: (count: number, reason: string | undefined) => void,
  ): VhostQueueNative | number
  vhostQueueStart(queue: VhostQueueNative): void
  vhostQueuePoll(queue: VhostQueueNative): void
  vhostQueueAwait(queue: VhostQueueNative, ns: number, hold: boolean): boolean
  vhostQueueGather(
    queue: VhostQueueNative,
    id: number,
    target: Uint8Array,
    start: number,
    length: number,
    from: number,
  ): number
  vhostQueueScatter(
    queue: VhostQueueNative,
    id: number,
    source: Uint8Array,
    start: number,
    length: number,
    at: number,
  ): number
  vhostQueueReadNow: TransferNow
  vhostQueueWriteNow: TransferNow
  vhostQueueComplete(queue: VhostQueueNative, id: number, status: number, written: number): void
  vhostQueueNotify(queue: VhostQueueNative): void
  vhostQueueSetCall(queue: VhostQueueNative, fd: number): number
  vhostQueueSetKick(queue: VhostQueueNative, fd: number): number
  vhostQueueStop(queue: VhostQueueNative): number
  vhostQueueClose(queue: VhostQueueNative): void
  vhostInflightBytes(size: number, packed: boolean): number
}

/** Bytes of one queue's region of the in-flight log, a multiple of 64. */
export function inflightBytes(size: number, packed: boolean): number {
  return fileIo.vhostInflightBytes(size, packed)
}

export class VhostQueue {
  /** REQUEST_WORDS words for each entry. */
  readonly table: Float64Array
  #native: VhostQueueNative | undefined

  private constructor(native: VhostQueueNative, table: Float64Array) {
    this.#native = native
    this.table = table
  }

  /**
   * Finds the ring in the guest's memory. Returns an errno instead of a queue: EINVAL for a size, base or alignment that
   * cannot be, EFAULT for addresses outside of the memory, EBADF for a kick or call that is no eventfd, ENXIO for an
   * in-flight log that is too short or of other dimensions, else what mmap(2) or dup(2) says. Reads nothing before `start`.
   */
  static open(options: QueueOptions, events: QueueEvents): VhostQueue | number {
    const { memory, size, packed, eventIdx, indirect, base, kick, call, inflight, requestsMax } = options
    const table = new Float64Array(REQUEST_WORDS * REQUESTS_BATCH_MAX)
    const flags = (packed ? 1 : 0) | (eventIdx ? 2 : 0) | (indirect ? 4 : 0)
    const native = fileIo.openVhostQueue(
      memory.native,
      new Float64Array([size, flags, base, kick, call, requestsMax]),
      new BigUint64Array([options.descriptors, options.driver, options.device]),
      inflight === undefined ? new Float64Array() : new Float64Array([inflight.fd, inflight.offset, inflight.size]),
      table,
      (count, reason) => (reason === undefined ? events.requests(count) : events.broken(reason)),
    )
    return typeof native === 'number' ? native : new VhostQueue(native, table)
  }

  get #open(): VhostQueueNative {
    if (this.#native === undefined) throw new Error('this queue is closed')
    return this.#native
  }

  /**
   * Begins to watch the kick, and reads the ring once without one. With an in-flight log the requests that a former
   * back-end left unanswered come first, in the order of their counters.
   */
  start(): void {
    fileIo.vhostQueueStart(this.#open)
  }

  /** Reads the ring as if it had been kicked. The requests come in a later turn of the event loop. */
  poll(): void {
    fileIo.vhostQueuePoll(this.#open)
  }

  /**
   * Within `requests`, when all of them are complete: waits in place until the guest has more, for `ns` nanoseconds at most
   * (up to 2^32 - 1) and no longer than the turn lasts, and says whether it has. Those come in the same turn, and without a
   * kick. Not while a ring of this thread has requests out, or another one has something to be read: the event loop brings
   * what they wait for.
   */
  await(ns: number): boolean {
    return fileIo.vhostQueueAwait(this.#open, ns, false)
  }

  /** The same while there are answers that the guest was not told of; false where there are none. */
  hold(ns: number): boolean {
    return fileIo.vhostQueueAwait(this.#open, ns, true)
  }

  /** Copies bytes that the guest hands over, from byte `from` of them. EFAULT beyond them, or from lost memory; else 0. */
  gather(id: number, target: Uint8Array, start: number, length: number, from: number): number {
    return fileIo.vhostQueueGather(this.#open, id, target, start, length, from)
  }

  /** Copies bytes to where the guest wants them, from byte `at` of that on. EFAULT beyond it, or into lost memory; else 0. */
  scatter(id: number, source: Uint8Array, start: number, length: number, at: number): number {
    return fileIo.vhostQueueScatter(this.#open, id, source, start, length, at)
  }

  /**
   * The data of a request as a vector, to be used until it is complete: what the guest wants for `readNow`, what it hands
   * over for `writeNow`. EFAULT beyond it, or when its memory is lost.
   */
  vector(id: number): IoVector {
    const native = this.#open
    return {
      readNow: (fd, start, length, offset, nowait) =>
        fileIo.vhostQueueReadNow(native, id, fd, start, length, offset, nowait),
      writeNow: (fd, start, length, offset, nowait) =>
        fileIo.vhostQueueWriteNow(native, id, fd, start, length, offset, nowait),
    }
  }

  /**
   * Answers a request: the status byte, then the used ring; `written` is what was put into the guest's memory from the front
   * of its data on, without the status byte. Once for each id that `requests` told of, also after `broken` and `stop`, when
   * it writes nothing.
   * @throws for an id that is not out
   */
  complete(id: number, status: number, written: number): void {
    fileIo.vhostQueueComplete(this.#open, id, status, written)
  }

  /** At the end of a batch of `complete`: signals the call, if the driver wants to know. */
  notify(): void {
    fileIo.vhostQueueNotify(this.#open)
  }

  /** Another call eventfd, duplicated; -1 for none. Signalled once at once, as the old one may have been missed. Returns an errno: EBADF. */
  setCall(fd: number): number {
    return fileIo.vhostQueueSetCall(this.#open, fd)
  }

  /**
   * Another kick eventfd, duplicated; the ring is read as if it had been kicked. -1 for none: nothing more is read until
   * `poll` asks for it. Returns an errno: EBADF.
   */
  setKick(fd: number): number {
    return fileIo.vhostQueueSetKick(this.#open, fd)
  }

  /**
   * The ring is not touched any more. Returns what GET_VRING_BASE answers. Requests that are still out are dropped for the
   * guest (with an in-flight log the next back-end finds them), so wait for them first.
   */
  stop(): number {
    return fileIo.vhostQueueStop(this.#open)
  }

  /** `stop`, and gives back what it holds; requests that are out are completed before, or their windows are not used again. */
  close(): void {
    if (this.#native !== undefined) fileIo.vhostQueueClose(this.#native)
    this.#native = undefined
  }
}
