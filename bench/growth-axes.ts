// Axes along which a real server grows: clients that are attached, exports that are served, the length of an image.
import { mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Client } from 'nbd-protocol'
import type { Axis } from './growth-axis.js'
import { startGrown, timesOf } from './growth-server.js'
import { median } from './statistics.js'

const BLOCK = 4096
const GIB = 2 ** 30
const TIB = 2 ** 40
const SMALL_IMAGE_BYTES = 64 * 2 ** 20
/** What ext4 can hold in one file: a block less than 16 TiB. */
const IMAGE_BYTES_MAX = 16 * TIB - BLOCK
const READS = 2000
const FLUSHES = 15
const WRITES_PER_FLUSH = 16

export function emptyImage(folder: string, name: string, bytes: number): string {
  const path = join(folder, name)
  writeFileSync(path, '')
  truncateSync(path, bytes)
  return path
}

/** The same places in each run. */
function scattered(index: number, size: number): number {
  return ((index * 2654435761) % Math.floor(size / BLOCK)) * BLOCK
}

async function measureConnections(size: number, folder: string): Promise<number[]> {
  const server = await startGrown(folder, [`disk=${emptyImage(folder, 'image', SMALL_IMAGE_BYTES)}`])
  const clients: Client[] = []
  for (let index = 0; index < size; index++) clients.push(await server.attach('disk'))
  const [first] = clients
  const one = await timesOf(2 * READS, async (index) => first?.read(scattered(index, SMALL_IMAGE_BYTES), BLOCK))
  const each = await timesOf(size < 1000 ? 100 : 20, () => Promise.all(clients.map((client) => client.read(0, BLOCK))))
  const more = await timesOf(15, async () => clients.push(await server.attach('disk')))
  const rss = server.rssMiB()
  for (const client of clients) await client.abandon()
  await server.stop()
  return [median(one.slice(READS)), median(each.slice(each.length / 2)), median(more), rss]
}

export const connections: Axis = {
  name: 'connections',
  sizesName: 'connections',
  sizes: [1, 10, 100, 1000],
  sizeOf: (size) => size.toLocaleString('en-US'),
  how: 'All attached to one export over a Unix socket; 4 KiB reads from the page cache. One reads while the others rest; then each has one in flight.',
  columns: [
    { title: 'a read on one of them', unit: 'ms' },
    { title: 'a read on each', unit: 'ms' },
    { title: 'attach one more', unit: 'ms' },
    { title: 'resident', unit: 'MiB' },
  ],
  measure: measureConnections,
}

async function measureExports(size: number, folder: string): Promise<number[]> {
  const names = Array.from({ length: size }, (_, index) => `disk-${index}`)
  const images = names.map((name) => emptyImage(folder, name, SMALL_IMAGE_BYTES))
  const taken: { first: number; again: number; stop: number; scrapes: number[]; rss: number }[] = []
  for (let round = 0; round < 3; round++) {
    rmSync(join(folder, 'state'), { recursive: true, force: true })
    const server = await startGrown(folder, images)
    await server.stop()
    const next = await startGrown(folder, images)
    const page = async () => (await fetch(`${next.httpUrl}/metrics`)).text()
    const scrapes = await timesOf(7, page)
    const rss = next.rssMiB()
    const [stop = 0] = await timesOf(1, next.stop)
    taken.push({ first: server.startMs, again: next.startMs, stop, scrapes: scrapes.slice(2), rss })
  }
  const scrapes = median(taken.flatMap((round) => round.scrapes))
  const of = (pick: (round: (typeof taken)[number]) => number) => median(taken.map(pick))
  return [of(({ first }) => first), of(({ again }) => again), scrapes, of(({ stop }) => stop), of(({ rss }) => rss)]
}

export const exports: Axis = {
  name: 'exports',
  sizesName: 'exports',
  sizes: [1, 10, 100, 1000],
  sizeOf: (size) => size.toLocaleString('en-US'),
  how: 'Each an image of its own. A start ends when the server says that it is ready; the first one makes all records of the state directory.',
  columns: [
    { title: 'first start', unit: 'ms' },
    { title: 'start again', unit: 'ms' },
    { title: 'scrape', unit: 'ms' },
    { title: 'stop', unit: 'ms' },
    { title: 'resident', unit: 'MiB' },
  ],
  measure: measureExports,
}

async function measureImages(size: number, folder: string): Promise<number[]> {
  const server = await startGrown(folder, [`disk=${emptyImage(folder, 'image', size)}`])
  const client = await server.attach('disk')
  const reads = await timesOf(2 * READS, (index) => client.read(scattered(index, size), BLOCK))
  const data = Buffer.alloc(BLOCK, 1)
  const flushes: number[] = []
  for (let round = 0; round < FLUSHES; round++) {
    for (let index = 0; index < WRITES_PER_FLUSH; index++) {
      await client.write(scattered(round * WRITES_PER_FLUSH + index, size), data)
    }
    flushes.push(...(await timesOf(1, () => client.flush())))
  }
  const maps = await timesOf(7, (round) => server.map('disk', round))
  const rss = server.rssMiB()
  await client.abandon()
  await server.stop()
  return [server.startMs, median(reads.slice(READS)), median(flushes), median(maps.slice(2)), rss]
}

export const images: Axis = {
  name: 'images',
  sizesName: 'bytes of the image',
  sizes: [GIB, 16 * GIB, 256 * GIB, 4 * TIB, IMAGE_BYTES_MAX],
  sizeOf: (size) => (size < TIB ? `${size / GIB} GiB` : `${Math.round(size / TIB)} TiB`),
  how: 'A sparse file; 16 TiB less one block is what ext4 holds. Reads and writes of 4 KiB all over it, a FLUSH after 16 such writes, the map of the whole image by `/api`.',
  columns: [
    { title: 'start', unit: 'ms' },
    { title: 'random read', unit: 'ms' },
    { title: 'FLUSH', unit: 'ms' },
    { title: 'map', unit: 'ms' },
    { title: 'resident', unit: 'MiB' },
  ],
  measure: measureImages,
}

/** A folder of one size's own, which is gone afterwards. */
export async function inFolder<T>(parent: string, use: (folder: string) => Promise<T>): Promise<T> {
  const folder = join(parent, 'grown')
  mkdirSync(folder)
  try {
    return await use(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
