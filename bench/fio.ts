// One fio run with its nbd engine: arguments out, JSON in. Any error that fio reports is a MeasurementFailed.

import { type Finished, run, tellingLine } from './command.js'
import type { FioJob } from './jobs.js'
import { type Measurement, MeasurementFailed } from './measurement.js'
import { negotiated, TALKATIVE, type TlsMaterial } from './tls.js'

/** Where fio runs, and what it needs where the server wants TLS. */
export interface FioPlace {
  readonly dir: string
  readonly tls: TlsMaterial | undefined
}

type Json = Readonly<Record<string, unknown>>

/** Returns fio's version, or undefined when fio or its nbd engine is missing. */
export async function fioVersion(dir: string): Promise<string | undefined> {
  const engine = await run('fio', ['--enghelp=nbd'], dir)
  if (!engine.ok || !engine.stdout.includes('uri')) return undefined
  return (await run('fio', ['--version'], dir)).stdout.trim()
}

export async function measureWithFio(job: FioJob, uri: string, ms: number, place: FioPlace): Promise<Measurement> {
  const { dir, tls } = place
  const finished = await run('fio', fioArguments(job, uri, ms), dir, ms + 30_000, tls?.clientEnvironment)
  const report = readReport(finished)
  const read = directionOf(report, 'read')
  const write = directionOf(report, 'write')
  const requests = read.requests + write.requests
  if (requests === 0) throw new MeasurementFailed('fio completed no request')
  const figure = job.unit === 'IOPS' ? read.iops + write.iops : (read.bytesPerSecond + write.bytesPerSecond) / 1024 ** 2
  return { figure, requests, p99us: Math.max(read.p99us, write.p99us) }
}

/** What one request of fio's negotiated over TLS; 'unknown' where its GnuTLS does not tell. */
export async function cipherOf(job: FioJob, uri: string, { dir, tls }: FioPlace): Promise<string> {
  const environment = { ...tls?.clientEnvironment, ...TALKATIVE }
  const finished = await run('fio', [...fioArguments(job, uri, 1000), '--number_ios=1'], dir, 30_000, environment)
  return negotiated(finished) ?? 'unknown'
}

function fioArguments(job: FioJob, uri: string, ms: number): string[] {
  return [
    `--name=${job.name}`,
    '--thread',
    '--ioengine=nbd',
    `--uri=${uri}`,
    `--rw=${job.pattern}`,
    '--rwmixread=70',
    `--bs=${job.blockKiB}k`,
    `--iodepth=${job.depth}`,
    `--numjobs=${job.connections}`,
    '--group_reporting',
    `--runtime=${ms}ms`,
    // On a cold cache no block is read twice, since the second time would be warm: fio's random map sees to that, and
    // the run ends when all were read. Otherwise the map would only cost the client time.
    ...(job.cold ? [] : ['--time_based', '--norandommap']),
    '--percentile_list=99',
    '--output-format=json',
  ]
}

function readReport(finished: Finished): Json {
  const { ok, timedOut, stdout, stderr } = finished
  if (timedOut) throw new MeasurementFailed('fio hung and was killed')
  const start = stdout.indexOf('{\n')
  if (!ok || start < 0) throw new MeasurementFailed(failureOf(stderr, stdout))
  const report = asJson(JSON.parse(stdout.slice(start)))
  const jobs = report['jobs']
  const job = asJson(Array.isArray(jobs) ? jobs[0] : undefined)
  if (job['error'] !== 0) throw new MeasurementFailed(failureOf(stderr, stdout))
  return job
}

function failureOf(stderr: string, stdout: string): string {
  return tellingLine(stderr) || tellingLine(stdout.split('{\n')[0] ?? '') || 'fio failed without a word'
}

function directionOf(report: Json, name: 'read' | 'write') {
  const direction = asJson(report[name])
  const percentiles = asJson(asJson(direction['clat_ns'])['percentile'] ?? {})
  return {
    iops: asNumber(direction['iops']),
    bytesPerSecond: asNumber(direction['bw_bytes']),
    requests: asNumber(direction['total_ios']),
    p99us: asNumber(percentiles['99.000000'] ?? 0) / 1000,
  }
}

function asJson(value: unknown): Json {
  if (typeof value !== 'object' || value === null) throw new MeasurementFailed('fio wrote a report without its jobs')
  return value as Json
}

function asNumber(value: unknown): number {
  if (typeof value !== 'number') throw new MeasurementFailed('fio wrote a report without its figures')
  return value
}
