// The Markdown that the benchmark prints: one row per job and server, ratios as medians of the per-round ratios.

import type { Job } from './jobs.js'
import type { JobResult, ServerResult } from './rounds.js'
import type { Server } from './servers.js'
import { median, pairwiseRatio, type Ratio } from './statistics.js'

/** One row per job and server, with its ratio to each peer. */
export function detailTable(results: readonly JobResult[], servers: readonly Server[]): string {
  const others = servers.filter((server) => server.name !== 'candor')
  const head = ['job', 'server', 'median', 'p99', 'CPU s per 1M requests', ...others.map((other) => `/ ${other.title}`)]
  const rows: string[][] = []
  for (const result of results) {
    for (const ours of result.servers) rows.push(detailRow(result, ours, others))
  }
  return markdown(head, rows)
}

/** candor against each peer, one row per job; undefined when candor took no part. */
export function summaryTable(results: readonly JobResult[], servers: readonly Server[]): string | undefined {
  const others = servers.filter((server) => server.name !== 'candor')
  if (others.length === servers.length || others.length === 0) return undefined
  const rows: string[][] = []
  for (const result of results) {
    const candor = result.servers.find(({ server }) => server.name === 'candor')
    if (candor !== undefined) {
      const ratios = others.map((other) => formatRatio(ratioTo(result, candor, other)))
      rows.push([result.job.title, candor.failure === undefined ? figureOf(result.job, candor) : 'FAILED', ...ratios])
    }
  }
  return markdown(['job', 'candor', ...others.map((other) => `candor / ${other.title}`)], rows)
}

/** One line for each job that a server failed or that was skipped, and what a job over TLS negotiated. */
export function remarks(results: readonly JobResult[]): string[] {
  return results.flatMap(({ job, servers, skipped }) => [
    ...(skipped === undefined ? [] : [`${job.name} was skipped: ${skipped}`]),
    ...ciphersOf(job, servers),
    ...servers.flatMap(({ server, failure }) =>
      failure === undefined ? [] : [`${job.name} FAILED on ${server.title}: ${failure}`],
    ),
  ])
}

/** What was negotiated in a job over TLS: one word where all agree, or else each server's. */
function ciphersOf(job: Job, servers: readonly ServerResult[]): string[] {
  const had = servers.flatMap(({ server, cipher }) => (cipher === undefined ? [] : [{ title: server.title, cipher }]))
  const [first, ...others] = had
  if (first === undefined) return []
  if (others.every(({ cipher }) => cipher === first.cipher)) return [`${job.name}: ${first.cipher} with each server`]
  const each = had.map(({ title, cipher }) => `${title} ${cipher}`).join('; ')
  return [`${job.name}: what was negotiated DIFFERS: ${each}`]
}

export function ratioTo(result: JobResult, ours: ServerResult, other: Server): Ratio | undefined {
  const theirs = result.servers.find(({ server }) => server.name === other.name)
  if (theirs === undefined || theirs === ours) return undefined
  return pairwiseRatio(ours.rounds.map(figure), theirs.rounds.map(figure))
}

/** CPU seconds per million requests; undefined when the client does not count its requests. */
export function cpuPerMillion({ rounds }: ServerResult): number | undefined {
  const values = rounds.flatMap(({ cpuSeconds, requests }) =>
    requests === null ? [] : [(cpuSeconds / requests) * 1_000_000],
  )
  return values.length === 0 ? undefined : median(values)
}

function detailRow(result: JobResult, ours: ServerResult, others: readonly Server[]): string[] {
  const { job } = result
  if (ours.failure !== undefined) return [job.title, ours.server.title, 'FAILED', '', '', ...others.map(() => '')]
  const ratios = others.map((other) => formatRatio(ratioTo(result, ours, other)))
  return [job.title, ours.server.title, figureOf(job, ours), latencyOf(ours), cpuOf(ours), ...ratios]
}

function figure({ figure }: { readonly figure: number }): number {
  return figure
}

function figureOf(job: Job, { rounds }: ServerResult): string {
  return `${Math.round(median(rounds.map(figure))).toLocaleString('en-US')} ${job.unit}`
}

function latencyOf({ rounds }: ServerResult): string {
  const values = rounds.flatMap(({ p99us }) => (p99us === null ? [] : [p99us]))
  if (values.length === 0) return '–'
  const us = median(values)
  return us < 1000 ? `${us.toFixed(0)} µs` : `${(us / 1000).toFixed(1)} ms`
}

function cpuOf(ours: ServerResult): string {
  const perMillion = cpuPerMillion(ours)
  if (perMillion !== undefined) return perMillion.toFixed(1)
  return `${median(ours.rounds.map(({ cpuSeconds }) => cpuSeconds)).toFixed(2)} s a copy`
}

function formatRatio(ratio: Ratio | undefined): string {
  return ratio === undefined ? '–' : `${ratio.median.toFixed(2)} (${ratio.min.toFixed(2)}–${ratio.max.toFixed(2)})`
}

function markdown(head: readonly string[], rows: readonly string[][]): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)))
  const line = (cells: readonly string[]) => `| ${cells.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join(' | ')} |`
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n')
}
