// A thread that keeps the disk busy until somebody ends it: reads that wait, writes, durable writes, zeroing and syncs,
// all in flight at once. What it reads is compared; a difference is an error of the thread.
import { openSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import {
  fileIo,
  IO_EXTENTS,
  IO_FLAG_DURABLE,
  IO_FLAG_RING,
  IO_FLUSH,
  IO_READ,
  IO_READ_SPARSE,
  IO_WRITE,
  IO_WRITE_DURABLE,
  IO_ZERO_RANGE,
} from '../../backends/native/file-io.js'
import type { IoEngine } from '../../backends/native/io-engine.js'
import { IoPool } from '../../backends/native/io-pool.js'
import { RUNS_MAX, sparseReadRoom } from '../../backends/sparse-file/runs.js'
import { cool, isStamped, PAGE_BYTES, pagesFor } from './cold-images.js'

export interface IoWorkerData {
  /** The first half is read only, and stamped; the second is written. */
  readonly path: string
  readonly engine: IoEngine
}

const READERS = 48
const SPARSE_BYTES = 24 * PAGE_BYTES
const EXTENTS_MAX = 100

const { path, engine } = workerData as IoWorkerData
const fd = openSync(path, 'r+')
const half = openHalf()
const pool = new IoPool(8, engine)

function openHalf(): number {
  const status = new Float64Array(2)
  fileIo.lookAt(fd, status)
  return (status[0] ?? 0) / 2
}

function somewhere(below: number): number {
  return Math.floor((Math.random() * below) / PAGE_BYTES) * PAGE_BYTES
}

/** Everything that the pool does is expected to succeed. */
async function done(kind: number, flags: number, bytes: Uint8Array | null, start: number, length: number, at: number) {
  const outcome = await pool.run(kind, flags, fd, bytes, start, length, at)
  if (outcome !== 0) throw new Error(`operation ${kind} at ${at} for ${length} bytes failed: ${outcome}`)
}

async function reads(): Promise<never> {
  for (;;) {
    const offset = somewhere(half - SPARSE_BYTES)
    const data = new Uint8Array(PAGE_BYTES)
    await done(IO_READ, IO_FLAG_RING, data, 0, PAGE_BYTES, offset)
    if (!isStamped(data, offset)) throw new Error(`the data at ${offset} differ`)
  }
}

async function sparseReads(): Promise<never> {
  for (;;) {
    const offset = somewhere(half - SPARSE_BYTES)
    const room = sparseReadRoom(20, SPARSE_BYTES)
    const data = Buffer.allocUnsafeSlow(room.bytes)
    await done(IO_READ_SPARSE, RUNS_MAX, data, room.start, SPARSE_BYTES, offset)
    if (!isStamped(data.subarray(room.start, room.start + SPARSE_BYTES), offset)) throw new Error('the data differ')
    await done(IO_EXTENTS, EXTENTS_MAX, new Uint8Array(8 * (1 + 2 * EXTENTS_MAX)), 0, 2 * half, 0)
  }
}

async function changes(kind: number): Promise<never> {
  for (;;) {
    const offset = half + somewhere(half)
    fileIo.writeNow(fd, pagesFor(offset, PAGE_BYTES), 0, PAGE_BYTES, offset, 0)
    await done(kind, 0, pagesFor(offset, PAGE_BYTES), 0, PAGE_BYTES, offset)
    await done(IO_ZERO_RANGE, IO_FLAG_DURABLE, null, 0, PAGE_BYTES, half + somewhere(half))
    const bytes = new TextEncoder().encode(`${path}\0`)
    await done(IO_FLUSH, 0, bytes, 0, bytes.length, 0)
  }
}

/** What was read is in the page cache, and would not wait again. */
async function cools(): Promise<never> {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 20))
    cool(path)
  }
}

const readers = Array.from({ length: READERS }, (_, index) => (index % 4 === 0 ? sparseReads() : reads()))
parentPort?.postMessage('busy')
await Promise.race([...readers, changes(IO_WRITE), changes(IO_WRITE_DURABLE), cools()])
