// Measures one job on all servers: every server is up for the whole job and idle but in its turn; each round measures
// all of them once, and every round starts with another one.

import { setTimeout as sleep } from 'node:timers/promises'
import { cipherOf, type FioPlace, measureWithFio } from './fio.js'
import { coolImage, imagePath, syncImage, warmImage } from './images.js'
import { type Job, overTls, writes } from './jobs.js'
import { type Measurement, MeasurementFailed, type ServerMeasurement } from './measurement.js'
import { measureCopy } from './nbdcopy.js'
import type { Options } from './options.js'
import { ServerProcess, StartFailed } from './server-process.js'
import type { Server } from './servers.js'
import { rotate } from './statistics.js'
import type { TlsMaterial } from './tls.js'

export interface ServerResult {
  readonly server: Server
  /** One entry per round; empty when `failure` is set. */
  readonly rounds: readonly ServerMeasurement[]
  readonly failure: string | undefined
  /** Protocol version and cipher of a job over TLS, if it was had. */
  readonly cipher: string | undefined
}

export interface JobResult {
  readonly job: Job
  readonly servers: readonly ServerResult[]
  readonly skipped: string | undefined
}

export interface Setting {
  readonly options: Options
  readonly dir: string
  /** Or why there are no jobs over TLS. */
  readonly tls: TlsMaterial | string
  readonly progress: (line: string) => void
}

/** The owner of the local image that nbdcopy reads from. */
export const COPY_SOURCE = 'source'

interface Entrant {
  readonly server: Server
  readonly rounds: ServerMeasurement[]
  running: ServerProcess | undefined
  failure: string | undefined
  cipher: string | undefined
}

type Step = (running: ServerProcess) => Promise<void>

/** The images of the job's kind must be there already, one by each server's name. */
export async function measureJob(job: Job, servers: readonly Server[], setting: Setting): Promise<JobResult> {
  const { options, dir, progress } = setting
  const none = { running: undefined, failure: undefined, cipher: undefined }
  const entrants: Entrant[] = servers.map((server) => ({ server, rounds: [], ...none }))
  const withoutTls = overTls(job) && typeof setting.tls === 'string' ? setting.tls : undefined
  const skipped = withoutTls ?? (await warmOrCool(job, servers, dir))
  if (skipped !== undefined) return { job, servers: [], skipped }
  try {
    for (const entrant of entrants) {
      await attempt(entrant, job, setting, async (running) => {
        await measure(job, running, setting, options.warmUpMs)
        if (job.tool === 'fio' && job.tls) entrant.cipher = await cipherOf(job, running.uri, placeOf(job, setting))
      })
    }
    for (let round = 0; round < options.rounds; round++) {
      for (const entrant of rotate(entrants, round)) {
        await attempt(entrant, job, setting, async (running) => {
          const measurement = await measure(job, running, setting, options.seconds * 1000)
          entrant.rounds.push(measurement)
          const figure = `${Math.round(measurement.figure)} ${job.unit}`
          progress(`${job.name} round ${round + 1} of ${options.rounds}, ${entrant.server.name}: ${figure}`)
        })
      }
    }
  } finally {
    for (const { running } of entrants) await running?.stop()
  }
  return { job, servers: entrants.map(resultOf), skipped: undefined }
}

/** Returns why the job cannot be measured here, if so. */
async function warmOrCool(job: Job, servers: readonly Server[], dir: string): Promise<string | undefined> {
  if (job.tool === 'nbdcopy') await warmImage(imagePath(dir, COPY_SOURCE))
  for (const { name } of servers) {
    const path = imagePath(dir, name)
    if (job.tool === 'nbdcopy' || !job.cold) await warmImage(path)
    else if (!(await coolImage(path, dir))) return 'neither fadvise nor drop_caches empties the page cache here'
  }
  return undefined
}

/** Takes one step with the entrant's server, started at need. After a failure the entrant takes no step any more. */
async function attempt(entrant: Entrant, job: Job, setting: Setting, step: Step): Promise<void> {
  if (entrant.failure !== undefined) return
  try {
    const { dir, tls } = placeOf(job, setting)
    const image = imagePath(dir, entrant.server.name)
    entrant.running ??= await ServerProcess.start(entrant.server, image, dir, tls?.serverDir)
    await step(entrant.running)
  } catch (error) {
    if (!(error instanceof MeasurementFailed || error instanceof StartFailed)) throw error
    // The client may notice the end of the server before this process does.
    await sleep(100)
    const end = error instanceof MeasurementFailed ? entrant.running?.end : undefined
    entrant.failure = end === undefined ? error.message : `${error.message}; the server ${end}`
  }
}

async function measure(job: Job, running: ServerProcess, setting: Setting, ms: number): Promise<ServerMeasurement> {
  const { dir } = setting
  if (job.tool === 'fio' && job.cold && !(await coolImage(running.image, dir))) {
    throw new MeasurementFailed('the image stayed in the page cache')
  }
  const before = running.cpuSeconds()
  const measurement = await runClient(job, running, setting, ms)
  const cpuSeconds = running.cpuSeconds() - before
  if (running.end !== undefined) throw new MeasurementFailed('the client saw no error')
  if (writes(job)) await syncImage(running.image)
  return { ...measurement, cpuSeconds }
}

function runClient(job: Job, running: ServerProcess, setting: Setting, ms: number): Promise<Measurement> {
  if (job.tool === 'fio') return measureWithFio(job, running.uri, ms, placeOf(job, setting))
  const source = imagePath(setting.dir, COPY_SOURCE)
  return measureCopy(job, running.uri, source, setting.options.copyBytes, setting.dir)
}

function placeOf(job: Job, { dir, tls }: Setting): FioPlace {
  return { dir, tls: overTls(job) && typeof tls !== 'string' ? tls : undefined }
}

function resultOf({ server, rounds, failure, cipher }: Entrant): ServerResult {
  return { server, failure, cipher, rounds: failure === undefined ? rounds : [] }
}
