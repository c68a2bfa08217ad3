// `npm run bench`: candor against nbdkit, qemu-nbd and a C loop, in turn and in one run. Exit code 0: every figure was
// had; 1: the operator's mistake, or a server failed a job.

import { access, constants, mkdtemp, rm, statfs, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fioVersion } from './fio.js'
import { measureGrowth } from './growth.js'
import { createImage, imagePath } from './images.js'
import { type ImageKind, type Job, overTls } from './jobs.js'
import { keepFolder, watchExit } from './leftovers.js'
import { describeMachine, type Machine } from './machine.js'
import { nbdcopyVersion } from './nbdcopy.js'
import { type Options, OptionsError, parseOptions, USAGE } from './options.js'
import { jsonReport, markdownReport } from './report.js'
import { COPY_SOURCE, type JobResult, measureJob, type Setting } from './rounds.js'
import { ServerProcess, StartFailed } from './server-process.js'
import { findServers, type Server } from './servers.js'
import { makeTlsMaterial } from './tls.js'

const SOCKET_PATH_BYTES_MAX = 107
const MIB = 1024 ** 2
const TRIAL_IMAGE_BYTES = 16 * MIB

watchExit()
process.exitCode = await main(process.argv.slice(2))

async function main(argv: readonly string[]): Promise<number> {
  try {
    const options = parseOptions(argv)
    if (options === undefined) {
      process.stdout.write(USAGE)
      return 0
    }
    return await bench(options)
  } catch (error) {
    if (!(error instanceof OptionsError)) throw error
    process.stderr.write(`bench: ${error.message}\n`)
    return 1
  }
}

async function bench(options: Options): Promise<number> {
  const started = new Date().toISOString()
  if (options.json !== undefined) await mustBeWritable(dirname(options.json), '--json')
  const dir = await temporaryFolder(options.dir)
  const tls = options.jobs.some(overTls) ? await makeTlsMaterial(dir) : 'no job asks for it'
  const setting: Setting = { options, dir, tls, progress }
  const machine = await describeMachine(setting.dir)
  if (options.growth.length > 0) {
    await measureGrowth(options.growth, setting.dir, machine, progress)
    return 0
  }
  const tools = { fio: await fioVersion(setting.dir), nbdcopy: await nbdcopyVersion(setting.dir) }
  const found = await findServers(options, setting.dir)
  const notes = [...found.leftOut, ...fileSystemNotes(machine)]
  const servers = await whichStart(found.servers, setting, notes)
  if (servers.length === 0) throw new OptionsError(['no server can be measured', ...notes].join('; '))
  if (servers.some(({ sparse }) => !sparse) && options.jobs.some(({ tool }) => tool === 'nbdcopy')) {
    notes.push('the C loop takes no part in nbdcopy: it knows no holes')
  }
  if (servers.some(({ tls }) => !tls) && options.jobs.some(overTls)) {
    notes.push('the C loop takes no part in the jobs over TLS')
  }
  for (const note of notes) progress(note)

  const results = await measureAll(servers, setting, tools)
  const report = { started, options, machine, tools, servers, notes, results }
  process.stdout.write(markdownReport(report))
  if (options.json !== undefined) await writeFile(options.json, jsonReport(report))
  const candorStarted = !options.candor || servers.some(({ name }) => name === 'candor')
  const failed = results.some((result) => result.servers.some(({ failure }) => failure !== undefined))
  return candorStarted && !failed ? 0 : 1
}

async function measureAll(
  servers: readonly Server[],
  setting: Setting,
  tools: Readonly<Record<Job['tool'], string | undefined>>,
): Promise<JobResult[]> {
  const results: JobResult[] = []
  let kind: ImageKind | undefined
  for (const job of setting.options.jobs) {
    if (tools[job.tool] === undefined) {
      const skipped = `${job.tool}${job.tool === 'fio' ? ' with its nbd engine' : ''} is not installed`
      results.push({ job, servers: [], skipped })
      continue
    }
    if (kind !== job.image) await createImages(job.image, servers, setting)
    kind = job.image
    const entrants = servers.filter(({ sparse, tls }) => (sparse || job.tool !== 'nbdcopy') && (tls || !overTls(job)))
    results.push(await measureJob(job, entrants, setting))
  }
  return results
}

async function createImages(kind: ImageKind, servers: readonly Server[], { options, dir }: Setting): Promise<void> {
  const bytes = kind === 'copy' ? options.copyBytes : options.imageBytes
  const owners = servers.map(({ name }): string => name)
  if (kind === 'copy') owners.push(COPY_SOURCE)
  for (const owner of owners) await rm(imagePath(dir, owner), { force: true })
  const { bavail, bsize } = await statfs(dir)
  if (owners.length * bytes > bavail * bsize) {
    throw new OptionsError(`${owners.length} images of ${bytes / MIB} MiB do not fit into ${dirname(dir)}`)
  }
  progress(`writing ${owners.length} ${kind} images of ${bytes / MIB} MiB`)
  for (const owner of owners) await createImage(imagePath(dir, owner), kind, bytes)
}

/** Starts each server once on a small image, so that one which cannot start is named once and not by every job. */
async function whichStart(servers: readonly Server[], { dir }: Setting, notes: string[]): Promise<Server[]> {
  const able: Server[] = []
  for (const server of servers) {
    const image = imagePath(dir, 'trial')
    await createImage(image, 'sparse', TRIAL_IMAGE_BYTES)
    try {
      const running = await ServerProcess.start(server, image, dir)
      await running.stop()
      able.push(server)
    } catch (error) {
      if (!(error instanceof StartFailed)) throw error
      notes.push(`left out, since it does not start: ${error.message}`)
    }
    await rm(image)
  }
  return able
}

function fileSystemNotes({ fileSystem }: Machine): string[] {
  if (fileSystem === 'overlay') return ['overlay refuses preadv2(RWF_NOWAIT); take --dir on a disk file system']
  if (fileSystem === 'tmpfs') return ['tmpfs is no disk file system; take --dir on one']
  return []
}

async function temporaryFolder(parent: string): Promise<string> {
  await mustBeWritable(parent, '--dir')
  const dir = await mkdtemp(join(parent, 'candor-bench-'))
  keepFolder(dir)
  if (Buffer.byteLength(join(dir, 'qemu-nbd.sock')) > SOCKET_PATH_BYTES_MAX) {
    throw new OptionsError(`${parent} is too long a path for a Unix socket; take a shorter --dir`)
  }
  return dir
}

async function mustBeWritable(dir: string, flag: string): Promise<void> {
  try {
    await access(dir, constants.W_OK)
  } catch {
    throw new OptionsError(`${flag}: ${dir} is not a folder that can be written to`)
  }
}

function progress(line: string): void {
  process.stderr.write(`${line}\n`)
}
