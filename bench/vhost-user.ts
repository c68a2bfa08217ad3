// candor's vhost-user-blk against qemu-storage-daemon's and against candor's own NBD, in turn and in one run:
//   node dist/bench/vhost-user.js [FOLDER [SECONDS [ROUNDS]]]
// A ring driver in C stands for the guest (vhost-load.c), fio's nbd engine for the NBD client. Beside the requests per second
// stands the processor time of the server for each, which a busy machine changes less.
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { run, tellingLine } from './command.js'
import { measureWithFio } from './fio.js'
import { createImage, warmImage } from './images.js'
import type { FioJob } from './jobs.js'
import { keepChild, keepFolder, watchExit } from './leftovers.js'
import { median, pairwiseRatio, rotate } from './statistics.js'

const IMAGE_BYTES = 256 * 1024 ** 2
const START_MS = 10_000
const SEGMENT_BYTES = 16 * 1024

type Pattern = FioJob['pattern']
const JOBS: readonly (readonly [pattern: Pattern, kib: number, depth: number])[] = [
  ['randread', 4, 1],
  ['randread', 4, 32],
  ['randwrite', 4, 1],
  ['randwrite', 4, 32],
  ['read', 256, 8],
  ['write', 256, 8],
]

interface Figure {
  readonly iops: number
  readonly cpuUs: number
}

interface Entrant {
  readonly name: string
  readonly pid: number
  measure(pattern: Pattern, kib: number, depth: number, seconds: number): Promise<number>
}

class Failed extends Error {}

watchExit()
const [folder = tmpdir(), seconds = '2', rounds = '5'] = process.argv.slice(2)
const home = mkdtempSync(join(resolve(folder), 'candor-bench-'))
keepFolder(home)
try {
  await main(Number(seconds), Number(rounds))
} catch (error) {
  if (!(error instanceof Failed)) throw error
  process.stderr.write(`bench: ${error.message}\n`)
  process.exitCode = 1
} finally {
  rmSync(home, { recursive: true, force: true })
}
process.exit()

async function main(seconds: number, rounds: number): Promise<void> {
  if (!(seconds > 0) || !(rounds >= 1)) throw new Failed('SECONDS and ROUNDS are numbers above 0')
  const entrants = await startAll(await compile())
  process.stdout.write(
    '| job | vhost-user | q-s-d | ratio | NBD | ratio | µs of processor: vhost-user, q-s-d, NBD |\n|---|',
  )
  process.stdout.write('---:|---:|---|---:|---|---|\n')
  for (const [pattern, kib, depth] of JOBS) {
    const figures: Figure[][] = entrants.map(() => [])
    for (let round = 0; round < rounds; round++) {
      for (const [index, entrant] of rotate([...entrants.entries()], round)) {
        figures[index]?.push(await measured(entrant, pattern, kib, depth, seconds))
      }
    }
    process.stdout.write(`| ${kib} KiB ${pattern}, depth ${depth} | ${line(figures)} |\n`)
  }
}

async function measured(
  entrant: Entrant,
  pattern: Pattern,
  kib: number,
  depth: number,
  seconds: number,
): Promise<Figure> {
  const before = cpuSeconds(entrant.pid)
  const iops = await entrant.measure(pattern, kib, depth, seconds)
  return { iops, cpuUs: ((cpuSeconds(entrant.pid) - before) / (iops * seconds)) * 1e6 }
}

function line([ours = [], daemon = [], nbd = []]: readonly Figure[][]): string {
  const iops = (figures: readonly Figure[]) => figures.map((figure) => figure.iops)
  const ratio = (theirs: readonly Figure[]) => {
    const { median: middle = 0, min = 0, max = 0 } = pairwiseRatio(iops(ours), iops(theirs)) ?? {}
    return `${middle.toFixed(2)} (${min.toFixed(2)}–${max.toFixed(2)})`
  }
  const costs = [ours, daemon, nbd].map((figures) => median(figures.map(({ cpuUs }) => cpuUs)).toFixed(1))
  const figure = (figures: readonly Figure[]) => Math.round(median(iops(figures)))
  return [figure(ours), figure(daemon), ratio(daemon), figure(nbd), ratio(nbd), costs.join(', ')].join(' | ')
}

/** The ring driver, compiled into the folder. */
async function compile(): Promise<string> {
  const source = (name: string) => fileURLToPath(new URL(`../../bench/${name}`, import.meta.url))
  const binary = join(home, 'vhost-load')
  const flags = ['-O2', '-std=gnu11', '-D_GNU_SOURCE', '-o', binary]
  const made = await run('cc', [...flags, source('vhost-load.c'), source('vhost-driver.c')], home, 60_000)
  if (!made.ok)
    throw new Failed(`the ring driver does not compile: ${made.missing ? 'no cc' : tellingLine(made.stderr)}`)
  return binary
}

async function startAll(driver: string): Promise<Entrant[]> {
  const socket = (name: string) => join(home, `${name}.sock`)
  const images = { candor: join(home, 'candor.img'), daemon: join(home, 'daemon.img') }
  for (const image of Object.values(images)) {
    await createImage(image, 'full', IMAGE_BYTES)
    await warmImage(image)
  }
  const program = fileURLToPath(new URL('../server/main.js', import.meta.url))
  const listen = ['--listen', `vhost-user:${socket('candor')}`, '--listen', `unix:${socket('nbd')}`]
  const settings = ['--http', 'off', '--state-dir', join(home, 'state')]
  const ours = await start(
    process.execPath,
    [program, 'serve', `bench=${images.candor}`, ...listen, ...settings],
    [socket('candor'), socket('nbd')],
  )
  const nodes = [`driver=file,filename=${images.daemon},node-name=file`, 'driver=raw,file=file,node-name=disk']
  const blockdevs = nodes.flatMap((node) => ['--blockdev', node])
  const address = `addr.type=unix,addr.path=${socket('daemon')}`
  const exported = ['--export', `type=vhost-user-blk,id=disk,node-name=disk,${address},writable=on`]
  const theirs = await start('qemu-storage-daemon', [...blockdevs, ...exported], [socket('daemon')])
  const vhost = (name: string, pid: number): Entrant => ({
    name,
    pid,
    measure: (...job) => load(driver, socket(name), ...job),
  })
  const uri = `nbd+unix:///bench?socket=${socket('nbd')}`
  return [
    vhost('candor', ours),
    vhost('daemon', theirs),
    { name: 'nbd', pid: ours, measure: (...job) => nbd(uri, ...job) },
  ]
}

async function start(file: string, args: readonly string[], sockets: readonly string[]): Promise<number> {
  const child = spawn(file, args, { cwd: home, stdio: 'ignore' })
  keepChild(child)
  let end: string | undefined
  child.once('error', (error) => {
    end = error.message
  })
  child.once('exit', (code) => {
    end = `${file} ended with code ${code}`
  })
  const deadline = performance.now() + START_MS
  while (!sockets.every((path) => existsSync(path))) {
    if (end !== undefined || performance.now() > deadline) throw new Failed(end ?? `${file} did not listen in time`)
    await sleep(20)
  }
  return child.pid ?? 0
}

async function load(
  driver: string,
  socket: string,
  pattern: Pattern,
  kib: number,
  depth: number,
  seconds: number,
): Promise<number> {
  const bytes = kib * 1024
  // As a guest's page cache hands large requests over: in pieces.
  const segments = Math.max(1, bytes / SEGMENT_BYTES)
  const job = [pattern, bytes, depth, seconds, `segments=${segments}`].map(String)
  const finished = await run(driver, [socket, ...job], home, (seconds + 60) * 1000)
  if (!finished.ok) throw new Failed(tellingLine(finished.stderr) || 'the ring driver failed without a word')
  const { iops, errors } = JSON.parse(finished.stdout) as { iops: number; errors: number }
  if (errors > 0) throw new Failed(`${errors} requests failed`)
  return iops
}

async function nbd(uri: string, pattern: Pattern, kib: number, depth: number, seconds: number): Promise<number> {
  const title = `${kib} KiB ${pattern}`
  const job: FioJob = {
    tool: 'fio',
    name: 'nbd',
    title,
    image: 'full',
    unit: 'IOPS',
    pattern,
    blockKiB: kib,
    depth,
    connections: 1,
    cold: false,
    tls: false,
  }
  return (await measureWithFio(job, uri, seconds * 1000, { dir: home, tls: undefined })).figure
}

/** User and system time of all threads until now. */
function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}
