// What an export that stalls costs one on another device: the latencies of a client that reads and writes 4 KiB on the one,
// by itself, while the other punches 200,000 extents, and while the other is written to faster than its disk keeps up.
//   node dist/bench/stall.js FOLDER OTHER_FOLDER      on two file systems, with 3 GiB free on the first
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, fsyncSync, mkdtempSync, openSync, rmSync, statSync, truncateSync, writeSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Client, connectClient } from 'nbd-protocol'
import { openStream, parseUri } from '../server/cli/connect.js'
import { keepChild, keepFolder, watchExit } from './leftovers.js'

const EXTENTS = 200_000
const BLOCK = 4096
const MIB = 1 << 20
const SPAN = 2 * EXTENTS * BLOCK
const IMAGE_BYTES = SPAN + 1024 * MIB
const OTHER_BYTES = 64 * MIB
const WINDOW_MS = 5000
const QUEUE = 16

watchExit()
const [folder, other] = process.argv.slice(2).map((path) => resolve(path))
if (folder === undefined || other === undefined || statSync(folder).dev === statSync(other).dev) {
  process.stderr.write('usage: node dist/bench/stall.js FOLDER OTHER_FOLDER, on two file systems\n')
  process.exit(1)
}
const homes = [folder, other].map((path) => mkdtempSync(join(path, 'candor-bench-')))
for (const home of homes) keepFolder(home)
try {
  await main(homes[0] ?? '', homes[1] ?? '')
} finally {
  for (const home of homes) rmSync(home, { recursive: true, force: true })
}
process.exit(0)

function emptyImage(path: string, bytes: number): number {
  const fd = openSync(path, 'w')
  truncateSync(path, bytes)
  return fd
}

async function main(home: string, otherHome: string): Promise<void> {
  const [image, steady] = [join(home, 'stalling.img'), join(otherHome, 'steady.img')]
  const fd = emptyImage(image, IMAGE_BYTES)
  const block = Buffer.alloc(BLOCK, 1)
  for (let index = 0; index < EXTENTS; index++) writeSync(fd, block, 0, BLOCK, 2 * index * BLOCK)
  fsyncSync(fd)
  closeSync(fd)
  closeSync(emptyImage(steady, OTHER_BYTES))
  const socket = join(otherHome, 'nbd')
  const flags = ['--listen', `unix:${socket}`, '--http', 'off', '--state-dir', join(otherHome, 'state')]
  const program = fileURLToPath(new URL('../server/main.js', import.meta.url))
  const images = [`stalling=${image}`, `steady=${steady}`]
  const child = spawn(process.execPath, [program, 'serve', ...images, ...flags], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  keepChild(child)
  for (let said = ''; !said.includes('ready'); ) said += String((await once(child.stdout, 'data'))[0])
  const attach = async (name: string): Promise<Client> =>
    connectClient(await openStream(parseUri(`nbd+unix:///${name}?socket=${socket}`)), name)
  const client = await attach('steady')
  const stalling = await attach('stalling')
  await latencies(client, () => false)
  report('by itself', await latencies(client, () => false))
  let punching = true
  const punch = stalling.trim(0, SPAN).finally(() => {
    punching = false
  })
  report('beside a punch', await latencies(client, () => !punching))
  await punch
  const stop = { now: false }
  const writing = Promise.all(Array.from({ length: QUEUE }, (_, index) => writeOn(stalling, index, stop)))
  report('beside a throttled writer', await latencies(client, () => false))
  stop.now = true
  await writing
  report('by itself again', await latencies(client, () => false))
  child.kill('SIGTERM')
  await once(child, 'exit')
}

/** Writes MiB after MiB, round and round, until it is told to stop. */
async function writeOn(client: Client, from: number, stop: { now: boolean }): Promise<void> {
  const data = Buffer.alloc(MIB, 2)
  const places = Math.floor(IMAGE_BYTES / MIB)
  for (let index = from; !stop.now; index += QUEUE) await client.write((index % places) * MIB, data)
}

/** ms of reads and writes in turn, one at a time, for a window or until it is over. */
async function latencies(client: Client, isOver: () => boolean): Promise<number[]> {
  const taken: number[] = []
  const data = Buffer.alloc(BLOCK, 3)
  const end = performance.now() + WINDOW_MS
  for (let index = 0; performance.now() < end && !isOver(); index++) {
    const offset = (index * 7919 * BLOCK) % OTHER_BYTES
    const began = performance.now()
    if (index % 2 === 0) await client.write(offset, data)
    else await client.read(offset, BLOCK)
    taken.push(performance.now() - began)
  }
  return taken
}

function report(what: string, taken: number[]): void {
  const sorted = taken.sort((a, b) => a - b)
  const at = (share: number) => (sorted[Math.floor(sorted.length * share)] ?? Number.NaN).toFixed(3)
  const figures = `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, p99.9 ${at(0.999)} ms, most ${sorted.at(-1)?.toFixed(1)} ms`
  process.stdout.write(`${what}: ${sorted.length} requests, ${figures}\n`)
}
