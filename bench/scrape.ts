// What a scrape of a server with 1,000 exports, all of them used, costs those who do I/O meanwhile: the latencies of one
// client's 4 KiB reads, in windows with scrapes back to back and in windows without any, in turn. What the client and the
// I/O thread waited for a processor is taken off: on a shared machine it is mostly others' doing, and told by itself.
//   node dist/bench/scrape.js [EXPORTS] [ROUNDS]
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Client, connectClient } from 'nbd-protocol'
import { openStream, parseUri } from '../server/cli/connect.js'
import { keepChild, keepFolder, watchExit } from './leftovers.js'
import { median } from './statistics.js'

const EXPORTS = Number(process.argv[2] ?? 1000)
const ROUNDS = Number(process.argv[3] ?? 5)
const WINDOW_MS = 3000
const BLOCK = 4096
const IMAGE_BYTES = 1 << 20
const STALL_MS = 5

watchExit()
const folder = mkdtempSync(join(tmpdir(), 'candor-bench-'))
keepFolder(folder)
try {
  await main()
} finally {
  rmSync(folder, { recursive: true, force: true })
}
process.exit(0)

async function main(): Promise<void> {
  const { metricsUrl, socket, pid } = await startServer()
  const attach = async (name: string): Promise<Client> =>
    connectClient(await openStream(parseUri(`nbd+unix:///${name}?socket=${socket}`)), name)
  for (let index = 0; index < EXPORTS; index++) {
    const client = await attach(`disk-${index}`)
    await client.write(0, Buffer.alloc(BLOCK, 1))
    await client.read(0, BLOCK)
    await client.flush()
    await client.disconnect()
  }
  const client = await attach('disk-0')
  const queue = await runQueueOf(pid, client)
  const [quiet, scraped] = [[], []] as [Taken[], Taken[]]
  for (let round = 0; round < ROUNDS; round++) {
    await readFor(client, queue, quiet)
    const stopScraping = await startScraping(metricsUrl)
    await readFor(client, queue, scraped)
    await stopScraping()
  }
  report('without scrapes', quiet)
  report('scraped without a pause', scraped)
  const pages = scrapedPages()
  const sizeMiB = median(pages.map(({ bytes }) => bytes)) / 2 ** 20
  const took = median(pages.map(({ ms }) => ms))
  process.stdout.write(`${pages.length} scrapes of ${sizeMiB.toFixed(2)} MiB, ${took.toFixed(0)} ms each (median)\n`)
}

interface Page {
  readonly bytes: number
  readonly ms: number
}

async function startServer(): Promise<{ metricsUrl: string; socket: string; pid: number }> {
  const socket = join(folder, 'nbd')
  const images = Array.from({ length: EXPORTS }, (_, index) => {
    const image = join(folder, `disk-${index}`)
    writeFileSync(image, '')
    truncateSync(image, IMAGE_BYTES)
    return image
  })
  const flags = ['--listen', `unix:${socket}`, '--http', '127.0.0.1:0', '--state-dir', join(folder, 'state')]
  const main = fileURLToPath(new URL('../server/main.js', import.meta.url))
  const child = spawn(process.execPath, [main, 'serve', ...images, ...flags], { stdio: ['ignore', 'pipe', 'ignore'] })
  keepChild(child)
  let said = ''
  while (!said.includes('ready')) {
    const [text] = (await once(child.stdout, 'data')) as [Buffer]
    said += text.toString()
  }
  child.stdout.resume()
  return { metricsUrl: /^metrics: (\S+)$/m.exec(said)?.[1] ?? '', socket, pid: child.pid ?? 0 }
}

/** ms that threads have waited for a processor so far (the second figure of proc(5)'s schedstat). */
type RunQueue = () => number

function schedstat(path: string): { ran: number; waited: number } {
  const [ran = 0, waited = 0] = readFileSync(path, 'latin1').split(' ').map(Number)
  return { ran: ran / 1e6, waited: waited / 1e6 }
}

/** That of this client, and of the thread of the server that works for it. */
async function runQueueOf(pid: number, client: Client): Promise<RunQueue> {
  const threads = readdirSync(`/proc/${pid}/task`).map((thread) => `/proc/${pid}/task/${thread}/schedstat`)
  const before = threads.map((path) => schedstat(path).ran)
  for (let reads = 0; reads < 20_000; reads++) await client.read(0, BLOCK)
  const worked = threads.map((path, index) => schedstat(path).ran - (before[index] ?? 0))
  const busiest = threads[worked.indexOf(Math.max(...worked))] ?? ''
  const own = `/proc/self/task/${process.pid}/schedstat`
  return () => schedstat(busiest).waited + schedstat(own).waited
}

/** What a read took, and what of it was waiting for a processor. */
interface Taken {
  readonly ms: number
  readonly queued: number
}

async function readFor(client: Client, queue: RunQueue, taken: Taken[]): Promise<void> {
  const end = performance.now() + WINDOW_MS
  let waited = queue()
  while (performance.now() < end) {
    const began = performance.now()
    await client.read(0, BLOCK)
    const ms = performance.now() - began
    const now = queue()
    taken.push({ ms, queued: Math.min(ms, now - waited) })
    waited = now
  }
}

/** Scrapes back to back in processes of their own: nothing of it happens in the client that is measured. */
async function startScraping(url: string): Promise<() => Promise<void>> {
  const scrapeOnce = 'curl -s -o "$1/page" -w "%{size_download} %{time_total}\\n" "$0" >> "$1/pages"'
  const child = spawn('sh', ['-c', `${scrapeOnce}; echo; while :; do ${scrapeOnce}; done`, url, folder], {
    detached: true,
  })
  keepChild(child)
  await once(child.stdout, 'data')
  return async () => {
    process.kill(-(child.pid ?? 0), 'SIGKILL')
    await once(child, 'close')
  }
}

function scrapedPages(): Page[] {
  const lines = readFileSync(join(folder, 'pages'), 'utf8').trim().split('\n')
  return lines
    .map((line) => line.split(' ').map(Number))
    .map(([bytes = 0, seconds = 0]) => ({ bytes, ms: seconds * 1000 }))
}

function report(title: string, taken: readonly Taken[]): void {
  process.stdout.write(`${title}: ${taken.length} reads\n`)
  describe(
    'as the clock has it',
    taken.map(({ ms }) => ms),
  )
  describe(
    'without the wait for a processor',
    taken.map(({ ms, queued }) => ms - queued),
  )
}

function describe(title: string, latencies: number[]): void {
  const sorted = latencies.sort((a, b) => a - b)
  const at = (share: number) => (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0).toFixed(2)
  const stalled = sorted.filter((ms) => ms > STALL_MS).length
  const quantiles = `median ${at(0.5)} ms, 99 % ${at(0.99)}, 99.9 % ${at(0.999)}, longest ${at(1)}`
  process.stdout.write(`  ${title}: ${quantiles}; ${stalled} over ${STALL_MS} ms\n`)
}
