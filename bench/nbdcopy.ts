// One nbdcopy run in either direction. What comes from the server is dropped by nbdcopy itself (null:), so that no
// local disk is part of the figure; holes are asked for and skipped as in a real copy.

import { run, tellingLine } from './command.js'
import type { CopyJob } from './jobs.js'
import { type Measurement, MeasurementFailed } from './measurement.js'

export async function nbdcopyVersion(dir: string): Promise<string | undefined> {
  const finished = await run('nbdcopy', ['--version'], dir)
  return finished.ok ? (finished.stdout.split('\n')[0] ?? '').trim() : undefined
}

/** `source` is the local image that a copy to the server reads; `bytes` is the size of either image, holes included. */
export async function measureCopy(
  job: CopyJob,
  uri: string,
  source: string,
  bytes: number,
  dir: string,
): Promise<Measurement> {
  const [from, to] = job.direction === 'from-server' ? [uri, 'null:'] : [source, uri]
  const finished = await run('nbdcopy', [from, to], dir, 120_000)
  if (finished.timedOut) throw new MeasurementFailed('nbdcopy hung and was killed')
  if (!finished.ok) throw new MeasurementFailed(tellingLine(finished.stderr) || 'nbdcopy failed without a word')
  return { figure: bytes / 1024 ** 2 / finished.seconds, p99us: null, requests: null }
}
