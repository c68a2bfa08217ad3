// Waiting I/O as promises, in a ring or threads of our own: libuv's pool is shared with DNS and TLS, and one hung disk
// would starve them and every other export. One for each device, in each thread that does I/O.
import type { Outcome } from '../outcome.js'
import { fileIo, type NativeQueue } from './file-io.js'
import type { IoEngine } from './io-engine.js'

/** Threads for one device: deep enough for a queue of 32 cold reads. They start as they are needed. */
export const POOL_THREADS_MAX = 32
const RESULTS = 512

type Settle = (outcome: Outcome) => void

export class IoPool {
  readonly #native: NativeQueue
  readonly #results = new Int32Array(RESULTS)
  /** By ticket: who waits, and the buffer that the kernel may be writing to, kept alive until then. */
  readonly #settle: (Settle | undefined)[] = []
  readonly #buffers: (Uint8Array | null)[] = []
  readonly #free: number[] = []

  constructor(threadsMax: number, engine: IoEngine) {
    const ring = engine === 'uring' ? 1 : 0
    this.#native = fileIo.createQueue(threadsMax, ring, this.#results, (count) => this.#complete(count))
  }

  /** Runs one operation of io-ops.h and resolves with its outcome; never rejects. */
  run(
    kind: number,
    flags: number,
    fd: number,
    bytes: Uint8Array | null,
    start: number,
    length: number,
    offset: number,
  ): Promise<Outcome> {
    return new Promise((settle) => {
      const ticket = this.#free.pop() ?? this.#settle.length
      this.#settle[ticket] = settle
      this.#buffers[ticket] = bytes
      const refused = fileIo.submit(this.#native, ticket, kind, flags, fd, bytes, start, length, offset)
      if (refused !== 0) this.#finish(ticket, refused)
    })
  }

  #complete(count: number): void {
    for (let index = 0; index < count; index++) {
      this.#finish(this.#results[2 * index] ?? 0, this.#results[2 * index + 1] ?? 0)
    }
  }

  #finish(ticket: number, outcome: Outcome): void {
    const settle = this.#settle[ticket]
    this.#settle[ticket] = undefined
    this.#buffers[ticket] = null
    this.#free.push(ticket)
    settle?.(outcome)
  }
}

const pools = new Map<string, IoPool>()

/** The pool of the device that holds an image (st_dev), shared by all its images. */
export function poolForDevice(device: number, engine: IoEngine): IoPool {
  const key = `${device} ${engine}`
  let pool = pools.get(key)
  if (pool === undefined) {
    pool = new IoPool(POOL_THREADS_MAX, engine)
    pools.set(key, pool)
  }
  return pool
}
