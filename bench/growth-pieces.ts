// Axes of what an image falls into: runs of data, and intervals that are suspect.
import { closeSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Client } from 'nbd-protocol'
import { SuspectRanges } from '../server/exports/suspect-ranges.js'
import { openRecord } from '../server/state/image-record.js'
import { emptyImage } from './growth-axes.js'
import type { Axis } from './growth-axis.js'
import { MIB, startGrown, timesOf } from './growth-server.js'
import { median } from './statistics.js'

const BLOCK = 4096
const SPACING = 2 * BLOCK
const EXTENTS_MAX = 1_000_000
/** The most that a BLOCK_STATUS may ask about in 32 bits, in whole blocks. */
const STATUS_BYTES_MAX = 2 ** 32 - BLOCK
const WATCH_MS = 2000
const MARKS_MIN = 100_000
const JUDGED = 200_000
const STORES = 7

/** Data in every other block, so often. */
function writeExtents(path: string, count: number): void {
  const fd = openSync(path, 'r+')
  const block = Buffer.alloc(BLOCK, 1)
  for (let index = 0; index < count; index++) writeSync(fd, block, 0, BLOCK, index * SPACING)
  closeSync(fd)
}

/** Asks about the whole image, on from where each answer ends. */
async function statusOfAll(client: Client): Promise<number> {
  let runs = 0
  for (let offset = 0; offset < client.size; ) {
    const answer = await client.blockStatus(offset, Math.min(client.size - offset, STATUS_BYTES_MAX))
    const descriptors = answer.get('base:allocation') ?? []
    if (descriptors.length === 0) throw new Error('a BLOCK_STATUS was answered with nothing')
    for (const { length } of descriptors) offset += Number(length)
    runs += descriptors.length
  }
  return runs
}

async function measureExtents(size: number, folder: string): Promise<number[]> {
  const image = emptyImage(folder, 'image', EXTENTS_MAX * SPACING)
  writeExtents(image, size)
  const server = await startGrown(folder, [`disk=${image}`])
  await sleep(WATCH_MS / 2)
  const before = server.cpuMs()
  await sleep(WATCH_MS)
  const watch = (server.cpuMs() - before) / (WATCH_MS / 1000)
  const client = await server.attach('disk')
  const rounds = size < EXTENTS_MAX / 10 ? 21 : 3
  const status = await timesOf(rounds, () => statusOfAll(client))
  const maps = await timesOf(rounds, (round) => server.map('disk', round))
  const rss = server.rssMiB()
  await client.abandon()
  await server.stop()
  return [median(status), median(maps), watch, rss]
}

export const extents: Axis = {
  name: 'extents',
  sizesName: 'extents',
  sizes: [1, 10, 100, 1000, 10_000, 100_000, EXTENTS_MAX],
  discardedMax: 10_000,
  sizeOf: (size) => size.toLocaleString('en-US'),
  how: `Every other 4 KiB block of an image of ${(EXTENTS_MAX * SPACING) / 1e9} GB written, so that there are as many holes. BLOCK_STATUS is asked until it has told of the whole image; the watch is what a server without clients, which looks after space and growth, takes of a processor in a second.`,
  columns: [
    { title: 'BLOCK_STATUS of all', unit: 'ms' },
    { title: 'map of all', unit: 'ms' },
    { title: 'watch per second', unit: 'ms' },
    { title: 'resident', unit: 'MiB' },
  ],
  measure: measureExtents,
}

/** Numbers below `count`, each once, in an order that is no order; the same in each run. */
function shuffled(count: number): number[] {
  const order = Array.from({ length: count }, (_, index) => index)
  for (let index = count - 1, state = 1; index > 0; index--) {
    state = (state * 48271) % 2147483647
    const other = state % (index + 1)
    const [a = 0, b = 0] = [order[index], order[other]]
    order[index] = b
    order[other] = a
  }
  return order
}

function marked(order: readonly number[]): SuspectRanges {
  const ranges = new SuspectRanges()
  for (const index of order) ranges.now.add(index * SPACING, index * SPACING + BLOCK)
  return ranges
}

/** Bytes of JavaScript in use, after a collection that nobody has asked for on the command line. */
function heapMiB(): number {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
  return process.memoryUsage().heapUsed / MIB
}

/** Microseconds of processor time; on a shared machine the clock tells more of its neighbours. */
async function workOf(run: () => unknown): Promise<number> {
  const before = process.cpuUsage()
  await run()
  const { user, system } = process.cpuUsage(before)
  return user + system
}

async function measureSuspects(count: number, folder: string): Promise<number[]> {
  const order = shuffled(count)
  const sets = Math.ceil(MARKS_MIN / count)
  const heapBefore = heapMiB()
  const all: SuspectRanges[] = []
  const mark = await workOf(() => {
    for (let set = 0; set < sets; set++) all.push(marked(order))
  })
  const heap = (heapMiB() - heapBefore) / sets
  const [first = marked(order)] = all
  const judge = await workOf(() => {
    for (let index = 0; index < JUDGED; index++) first.now.intersects((index % count) * SPACING, BLOCK)
  })
  const image = { identity: '1-2', path: join(folder, 'image'), size: count * SPACING }
  const { record } = await openRecord(join(folder, `record-${count}`), image)
  const stores: number[] = []
  for (let round = 0; round < STORES; round++) {
    stores.push(await workOf(() => record.store('degraded', 5, first.stored())))
  }
  await record.closed(false)
  let published = 0
  const rewrite = await workOf(() => {
    for (const ranges of all) {
      for (const index of order) {
        ranges.rewrite(index * SPACING, index * SPACING + BLOCK)
        published = ranges.now.bytes
      }
    }
  })
  if (published !== 0) throw new Error('all was rewritten, and something is suspect')
  return [mark / (sets * count), judge / JUDGED, rewrite / (sets * count), median(stores), heap]
}

async function measureSuspectAxis(size: number, folder: string): Promise<number[]> {
  if (size === 1) await measureSuspects(1000, folder)
  return measureSuspects(size, folder)
}

export const suspects: Axis = {
  name: 'suspects',
  sizesName: 'suspect intervals',
  sizes: [1, 10, 100, 1000, 10_000, 100_000],
  sizeOf: (size) => size.toLocaleString('en-US'),
  how: 'The set itself and its record, without a server: intervals of 4 KiB are marked and rewritten in no order, and the sum is taken after each as a write publishes it; then all are stored and synced. Processor time, and the heap of one set.',
  columns: [
    { title: 'mark one', unit: 'µs' },
    { title: 'judge a read', unit: 'µs' },
    { title: 'rewrite one', unit: 'µs' },
    { title: 'store all', unit: 'µs' },
    { title: 'heap', unit: 'MiB' },
  ],
  measure: measureSuspectAxis,
}
