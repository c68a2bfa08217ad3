// The two forms in which a run is handed over: Markdown for people, JSON with every figure of every round.

import type { Machine } from './machine.js'
import type { Options } from './options.js'
import type { JobResult } from './rounds.js'
import type { Server } from './servers.js'
import { median } from './statistics.js'
import { cpuPerMillion, detailTable, ratioTo, remarks, summaryTable } from './table.js'

export interface Report {
  readonly started: string
  readonly options: Options
  readonly machine: Machine
  readonly tools: Readonly<Record<'fio' | 'nbdcopy', string | undefined>>
  readonly servers: readonly Server[]
  readonly notes: readonly string[]
  readonly results: readonly JobResult[]
}

export function markdownReport(report: Report): string {
  const { machine, options, servers, results, tools } = report
  const versions = servers.map(({ title, version }) => `${title} (${version})`).join(', ')
  const minimum = options.rounds < 5 ? ' Few rounds: take the ratios for a hint only.' : ''
  const lines = [
    `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, Linux ${machine.kernel}, Node ${machine.node},`,
    `${tools.fio ?? 'no fio'}, ${tools.nbdcopy ?? 'no nbdcopy'}; images on ${machine.fileSystem};`,
    `load average before the run ${machine.loadBefore.toFixed(2)}.`,
    `Servers: ${versions}.`,
    `${options.rounds} rounds of ${options.seconds} s, the servers in turn, each round starting with another one.`,
    `Figures are medians; a ratio is the median of the ratios within each round (min–max).${minimum}`,
    '',
    detailTable(results, servers),
    '',
  ]
  const summary = summaryTable(results, servers)
  if (summary !== undefined) lines.push(summary, '')
  for (const note of [...report.notes, ...remarks(results)]) lines.push(`- ${note}`)
  return `${lines.join('\n').trimEnd()}\n`
}

export function jsonReport(report: Report): string {
  const { started, machine, tools, servers, notes, results } = report
  const { rounds, seconds, imageBytes, copyBytes } = report.options
  const document = {
    version: 1,
    started,
    machine,
    tools,
    options: { rounds, seconds, imageBytes, copyBytes },
    servers: servers.map(({ name, version }) => ({ name, version })),
    notes,
    jobs: results.map((result) => jsonJob(result, servers)),
  }
  return `${JSON.stringify(document, null, 2)}\n`
}

function jsonJob(result: JobResult, servers: readonly Server[]) {
  const { job, skipped } = result
  return {
    job,
    skipped,
    servers: result.servers.map((ours) => ({
      name: ours.server.name,
      failure: ours.failure,
      cipher: ours.cipher,
      // Of no rounds at all the median is NaN, which JSON writes as null.
      median: median(ours.rounds.map(({ figure }) => figure)),
      cpuSecondsPerMillionRequests: cpuPerMillion(ours),
      ratioTo: Object.fromEntries(servers.map((other) => [other.name, ratioTo(result, ours, other)])),
      rounds: ours.rounds,
    })),
  }
}
