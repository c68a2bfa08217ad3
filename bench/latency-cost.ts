// What measuring latencies costs the hot loop: 4 KiB reads from the page cache through Transmission, with and without
// the clock, in processes that take turns. No socket takes part, so that the share told is larger than in a server.
//   node dist/bench/latency-cost.js [ROUNDS]
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { encodeRequest, NBD_CMD_READ, viewOf } from 'nbd-protocol'
import { openBackend } from '../backends/index.js'
import { Export } from '../server/exports/export.js'
import { DEFAULT_LIMITS } from '../server/limits.js'
import { PayloadBudget } from '../server/nbd/payload-budget.js'
import { ReplyBatch } from '../server/nbd/reply-batch.js'
import { Transmission } from '../server/nbd/transmission.js'
import { allowedFlags } from '../server/nbd/validation.js'
import { Log } from '../server/observe/log.js'
import { median } from './statistics.js'

const BLOCK = 4096
const BLOCKS = 1024
const REQUESTS = 400_000
const HEADER_BYTES = 28
const DEPTHS = [1, 32]
const ROUNDS = Number(process.argv[2] ?? 5)

/** Takes everything at once, and forgets it. */
const nowhere = { destroyed: false, writableLength: 0, write: () => true } as unknown as Socket
const unmeasured = { sinceMs: 0, arrived() {}, served() {}, refused() {}, failed() {}, handedOver() {}, answered() {} }

async function transmissionOver(image: string): Promise<Transmission> {
  const backend = await openBackend('sparse-file', { path: image, readOnly: true })
  const served = new Export({ name: 'bench', backend, witness: new Log(() => {}) })
  const terms = {
    size: served.size,
    readOnly: true,
    extended: false,
    minimumBlockSize: 1,
    payloadBytesMax: 32 << 20,
    allowedFlags: allowedFlags(served.transmissionFlags, false, 0),
  }
  const batch = new ReplyBatch(nowhere, -1, () => {})
  const budget = new PayloadBudget(Number.MAX_SAFE_INTEGER)
  const calls = { onRoom: () => {}, peerGone: () => false, stalled: () => {} }
  const limits = DEFAULT_LIMITS
  return new Transmission({
    served,
    style: 'simple',
    contexts: [],
    terms,
    batch,
    limits,
    budget,
    client: 'bench',
    ...calls,
  })
}

function frames(depth: number): Uint8Array {
  const bytes = new Uint8Array(depth * HEADER_BYTES)
  for (let index = 0; index < depth; index++) {
    const offset = ((index * 37) % BLOCKS) * BLOCK
    const request = { type: NBD_CMD_READ, flags: 0, cookieHigh: 0, cookieLow: index, offset, length: BLOCK }
    encodeRequest(viewOf(bytes), index * HEADER_BYTES, false, { ...request, payloadLength: 0 })
  }
  return bytes
}

/** Nanoseconds of processor time for each request: what else runs on the machine counts less than by the clock. */
function measure(transmission: Transmission, depth: number): number {
  const bytes = frames(depth)
  const view = viewOf(bytes)
  const turns = Math.ceil(REQUESTS / depth)
  const began = process.cpuUsage()
  for (let turn = 0; turn < turns; turn++) transmission.serve(bytes, view, 0, bytes.length)
  const { user, system } = process.cpuUsage(began)
  return ((user + system) * 1000) / (turns * depth)
}

async function child(image: string, measured: boolean): Promise<void> {
  const transmission = await transmissionOver(image)
  if (!measured) Object.defineProperty(transmission.answers, 'latency', { value: unmeasured })
  const figures = DEPTHS.map((depth) => {
    measure(transmission, depth)
    return measure(transmission, depth)
  })
  process.stdout.write(JSON.stringify(figures))
  process.exit(0)
}

function run(image: string, word: string): number[] {
  const { stdout, stderr } = spawnSync(process.execPath, [fileURLToPath(import.meta.url), word, image], {
    encoding: 'utf8',
  })
  if (stdout === '') throw new Error(stderr)
  return JSON.parse(stdout) as number[]
}

function parent(): void {
  const folder = mkdtempSync(join(tmpdir(), 'candor-bench-'))
  try {
    const image = join(folder, 'image')
    writeFileSync(image, new Uint8Array(BLOCKS * BLOCK).fill(1))
    const rounds = Array.from({ length: ROUNDS }, () => [run(image, 'without'), run(image, 'with')] as const)
    for (const [index, depth] of DEPTHS.entries()) {
      const without = median(rounds.map(([figures]) => figures[index] ?? 0))
      const measured = median(rounds.map(([, figures]) => figures[index] ?? 0))
      const share = ((measured - without) / without) * 100
      const text = `${without.toFixed(0)} ns a request without, ${measured.toFixed(0)} with: ${share.toFixed(1)} %`
      process.stdout.write(`batches of ${depth}: ${text}\n`)
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const [, , word, image] = process.argv
if (image !== undefined) await child(image, word === 'with')
else parent()
