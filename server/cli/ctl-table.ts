// What `candor ctl` prints for people: tables of exports and sessions, a sentence for the rest.
import type { ExportSummary } from '../control/export-summary.js'
import type { Reloaded } from '../control/reload.js'
import type { Session } from '../nbd/guest.js'
import type { UpgradeResult } from '../upgrade/upgrading.js'
import { formatBytes } from './format.js'

/** What wants attention. */
function troubles({ name, reason, ...more }: ExportSummary): string[] {
  if (reason !== undefined) return [reason]
  const { suspectBytes, suspectRanges, held, heldSince, releasedSince } = more
  return [
    ...(suspectBytes === 0 ? [] : [`${formatBytes(suspectBytes)} suspect in ${suspectRanges} ranges`]),
    ...(held === 0 ? [] : [`${held} writes held for want of space since ${heldSince}`]),
    ...(releasedSince === undefined ? [] : [`released since ${releasedSince}: 'candor ctl resume ${name}' ends it`]),
  ]
}

function exportTable(summaries: readonly ExportSummary[]): string {
  if (summaries.length === 0) return 'nothing is served'
  const rows = summaries.map((each) => {
    const { name, state, reason, size, readOnly, allocated, reserve } = each
    const figures = [
      formatBytes(size),
      readOnly ? 'read-only' : 'writable',
      formatBytes(allocated),
      formatBytes(reserve),
    ]
    return [name, state, ...(reason === undefined ? figures : ['', '', '', '']), troubles(each).join(', ')]
  })
  return table([['NAME', 'STATE', 'SIZE', 'ACCESS', 'ALLOCATED', 'RESERVE', ''], ...rows])
}

function exportLine(summary: ExportSummary): string {
  const { name, state, reason, size, readOnly, allocated, reserve } = summary
  const told = troubles(summary)
  if (reason !== undefined) return `${name}: ${state}: ${reason}`
  const access = readOnly ? 'read-only' : 'writable'
  const space = `, ${formatBytes(allocated)} allocated${reserve === 0 ? '' : `, ${formatBytes(reserve)} in reserve`}`
  return [`${name}: ${state}, ${formatBytes(size)}, ${access}${space}`, ...told].join(', ')
}

/** Columns as wide as their longest word, two spaces between them. */
function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)))
  const line = (row: readonly string[]) => row.map((word, column) => word.padEnd(widths[column] ?? 0)).join('  ')
  return rows.map((row) => line(row).trimEnd()).join('\n')
}

function sessionTable(sessions: readonly Session[]): string {
  if (sessions.length === 0) return 'nobody is connected'
  const rows = sessions.map(({ id, peer, export: name, tls, ageSeconds, inFlight, subject }) => [
    String(id),
    peer,
    name ?? '(handshake)',
    tls ? 'yes' : 'no',
    `${Math.round(ageSeconds)} s`,
    String(inFlight ?? '?'),
    subject ?? '',
  ])
  return table([['ID', 'PEER', 'EXPORT', 'TLS', 'AGE', 'IN FLIGHT', 'SUBJECT'], ...rows])
}

function reloadLines({ added, removed, changed, failed, unapplied }: Reloaded): string {
  const lists = Object.entries({ added, removed, changed }).filter(([, names]) => names.length > 0)
  const lines = [
    ...lists.map(([what, names]) => `${what}: ${names.join(', ')}`),
    ...failed.map(({ name, reason }) => `failed: ${name}: ${reason}`),
    ...unapplied.map((what) => `not applied: ${what}`),
  ]
  return lines.length === 0 ? 'nothing has changed' : lines.join('\n')
}

function upgradeWords({ pid, pauseMs, ms }: UpgradeResult): string {
  return `process ${pid} serves: clients waited ${Math.ceil(pauseMs)} ms, all of it took ${Math.ceil(ms)} ms`
}

/** What is printed of a result, by the action that brought it. */
export function inWords(action: string, result: unknown): string {
  const { name = '', id = '', level = '' } = result as Readonly<Record<string, string>>
  if (action === 'sessions') return sessionTable(result as readonly Session[])
  if (action === 'reload') return reloadLines(result as Reloaded)
  if (action === 'remove') return `${name} is removed`
  if (action === 'disconnect') return `session ${id} is ended`
  if (action === 'log-level') return `logged from ${level} on`
  if (action === 'upgrade') return upgradeWords(result as UpgradeResult)
  return action === 'exports' ? exportTable(result as readonly ExportSummary[]) : exportLine(result as ExportSummary)
}
