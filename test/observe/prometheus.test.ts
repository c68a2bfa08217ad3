// A real Prometheus scrapes two servers while a disk fills and faults are injected: the alerts that should fire do, and
// every query of the dashboard has data to show.
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Client, NBD_EIO } from 'nbd-protocol'
import { FAMILIES } from '../../server/observe/metric-families.js'
import { type RunningCandor, runCandor, temporaryFolder } from '../support/candor.js'
import { attach, lastFirst, MIB, refused, type Scope, serve, stamped } from '../support/faults.js'
import { mountLoopDisk, sparseFile } from '../support/loop-disk.js'
import { type Prometheus, projectFile, startPrometheus } from '../support/prometheus.js'
import { RawClient } from '../support/raw-client.js'
import { needsRoot } from '../support/requirements.js'

const DISK_MIB = 64
const NOISY_PEERS = 60
const BROKEN_PEERS = 15
const PAGE = 4096

/** As they are delivered, but that nothing has to last for minutes, and that 3 s are long for a request. */
const RULES = readFileSync(projectFile('deploy/prometheus/candor.rules.yml'), 'utf8')
  .replaceAll(/for: \dm/g, 'for: 2s')
  .replace('candor_oldest_request_age_seconds > 30', 'candor_oldest_request_age_seconds > 3')

/** Metrics that rules and dashboard may speak of: candor's own, and those of Prometheus and of the process. */
const known = new Set(FAMILIES.map(({ name }) => name))
/** Those of space, whose queries are checked as soon as they are there. */
const AWAITED =
  /^candor_(?:backing_\w+|export_(?:allocated|reserve)_bytes|writes_refused_by_reserve_total|requests_held_since)$/

function isThere(name: string): boolean {
  return known.has(name) || !AWAITED.test(name)
}

function metricsIn(expression: string): string[] {
  const names = [...expression.matchAll(/\bcandor_\w+/g)].map((match) => match[0])
  return names.map((name) => (known.has(name) ? name : name.replace(/_(?:bucket|sum|count)$/, '')))
}

interface Panel {
  readonly title: string
  readonly targets?: readonly { readonly expr: string }[]
}

function dashboardQueries(): { title: string; expr: string }[] {
  const { panels } = JSON.parse(readFileSync(projectFile('deploy/grafana/candor.json'), 'utf8')) as { panels: Panel[] }
  return panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => ({ title, expr })))
}

test('rules and dashboard speak of no metric that does not exist', () => {
  const rules = [
    ...readFileSync(projectFile('deploy/prometheus/candor.rules.yml'), 'utf8').matchAll(/expr:.*?(?=for:|labels:)/gs),
  ]
  const expressions = [...rules.map((match) => match[0]), ...dashboardQueries().map(({ expr }) => expr)]
  assert.ok(expressions.length > 60)
  assert.deepEqual(
    expressions.flatMap(metricsIn).filter((name) => !known.has(name) && isThere(name)),
    [],
  )
})

interface Stage {
  readonly candor: RunningCandor
  readonly holding: RunningCandor
  /** Where the first server listens too. */
  readonly socket: string
  readonly state: string
  readonly goneImage: string
}

/** Two servers over one small disk: the one tells of a want of space, the other holds. */
async function setTheStage(scope: Scope): Promise<Stage> {
  const disk = mountLoopDisk(scope, { type: 'ext4', sizeMiB: DISK_MIB })
  const folder = temporaryFolder()
  scope.after(() => folder.remove())
  const state = join(folder.path, 'state')
  const goneImage = sparseFile(join(folder.path, 'gone.img'), 64 * MIB)
  const full = sparseFile(join(disk.folder, 'full.img'), 1024 * MIB)
  const held = sparseFile(join(disk.folder, 'held.img'), 1024 * MIB)
  const faulty = sparseFile(join(folder.path, 'faulty.img'), 64 * MIB)
  const images = [`disk=${full}`, `faulty=${faulty}`, `gone=${goneImage}`]
  const socket = join(folder.path, 'nbd')
  const listen = ['--listen', 'tcp:127.0.0.1:0', '--listen', `unix:${socket}`]
  const candor = await serve(scope, [...images, ...listen, '--state-dir', state])
  const holding = await serve(scope, [`held=${held}`, '--on-enospc', 'hold=5m'])
  return { candor, holding, socket, state, goneImage }
}

/** Reads, overwrites and flushes until the server is gone. */
async function load(client: Client): Promise<void> {
  for (let at = 0; ; at = (at + 1) % 64) {
    await client.write(at * PAGE, stamped(at * PAGE, PAGE))
    await client.read(at * PAGE, PAGE)
    if (at % 16 === 0) await client.flush()
  }
}

async function fillDisk(client: Client): Promise<void> {
  for (let at = 0; at < 2 * DISK_MIB; at++) await client.write(at * MIB, stamped(at * MIB, MIB)).catch(() => {})
}

/** A sync and a read that fail, a read that hangs, and writes that were not synced when the sync failed. */
async function injectFaults({ candor, state }: Stage): Promise<void> {
  const rules = ['read:EIO@32M-33M', 'flush:EIO,count=1', 'trim:delay=5m']
  assert.equal((await runCandor(['ctl', 'inject', 'faulty', ...rules, '--state-dir', state])).code, 0)
  const client = await attach(candor.uris[2] ?? '')
  await client.write(0, stamped(0, MIB))
  await refused(client.read(32 * MIB, PAGE), NBD_EIO)
  await refused(client.flush(), NBD_EIO)
  client.trim(48 * MIB, MIB).catch(() => {})
}

/** Peers that connect and leave, and clients that break the protocol. */
async function makeNoise({ candor, socket: path }: Stage): Promise<void> {
  const { hostname, port } = new URL(candor.uris[0] ?? '')
  for (let peer = 0; peer < NOISY_PEERS; peer++) {
    const socket = connect(Number(port), hostname)
    await new Promise((resolve) =>
      socket
        .once('connect', () => socket.end())
        .once('close', resolve)
        .resume(),
    )
  }
  for (let peer = 0; peer < BROKEN_PEERS; peer++) {
    const client = await RawClient.enter(path, 'simple')
    client.send(Buffer.alloc(28, 0xff))
    await client.closed
  }
}

/** What is waited for; a test that times out tells of it. */
const pending = new Set<string>()

async function awaited<T>(what: string, promise: Promise<T>): Promise<T> {
  pending.add(what)
  const result = await promise
  pending.delete(what)
  return result
}

async function expectAlerts(
  prometheus: Prometheus,
  expected: Readonly<Record<string, string | undefined>>,
): Promise<void> {
  await Promise.all(
    Object.entries(expected).map(async ([alert, exportName]) => {
      const { annotations } = await awaited(alert, prometheus.fired(alert, exportName))
      if (exportName !== undefined) assert.match(annotations['description'] ?? '', new RegExp(exportName))
      assert.equal(annotations['runbook'], `docs/errors.md#${alert.toLowerCase()}`)
    }),
  )
}

/** Data that can be drawn: a series with a number. Scrapes come five times a second. */
async function untilData(prometheus: Prometheus, { title, expr }: { title: string; expr: string }): Promise<void> {
  const query = expr
    .replaceAll('$__rate_interval', '30s')
    .replaceAll('$__range', '1m')
    .replaceAll(/\$(?:instance|export)\b/g, '.*')
  assert.doesNotMatch(query, /\$/, title)
  while (!(await prometheus.query(query)).some(({ value }) => !Number.isNaN(value))) {}
}

test('alerts fire while a disk fills and faults are injected, and every query of the dashboard has data', {
  skip: needsRoot('prometheus', 'mkfs.ext4', 'losetup', 'setpriv'),
  timeout: 180_000,
}, async (t) => {
  const scope = lastFirst(t)
  scope.after(() => pending.size > 0 && t.diagnostic(`never came: ${[...pending].join('; ')}`))
  const stage = await setTheStage(scope)
  const { candor, holding, state, goneImage } = stage
  const prometheus = await startPrometheus(scope, [candor.httpUrl ?? '', holding.httpUrl ?? ''], RULES)
  const full = await attach(candor)
  load(await attach(candor)).catch(() => {})
  while ((await prometheus.query('sum(increase(candor_requests_total[10s])) > 0')).length === 0) {}
  // Rules are evaluated before the first scrape too, and rightly find no target then.
  while ((await prometheus.query('ALERTS{alertname="CandorDown"}')).length > 0) {}
  assert.deepEqual(await prometheus.query('ALERTS{alertstate="firing",severity="critical"}'), [])

  // A folder in the ledger's place: its entries cannot be written.
  mkdirSync(join(state, 'errors-disk.jsonl'))
  await fillDisk(full)
  const held = await attach(holding)
  for (let at = 0; at < 4; at++) held.write(at * MIB, stamped(at * MIB, MIB)).catch(() => {})
  await injectFaults(stage)
  const gone = await attach(candor.uris[4] ?? '')
  rmSync(goneImage)
  await refused(gone.flush(), NBD_EIO)
  await makeNoise(stage)

  await expectAlerts(prometheus, {
    CandorWritesFailed: 'disk',
    CandorLedgerFailed: 'disk',
    CandorReadsFailed: 'faulty',
    CandorSyncFailed: 'faulty',
    CandorExportDegraded: 'faulty',
    CandorSuspectBytes: 'faulty',
    CandorFaultsInjected: 'faulty',
    CandorRequestStuck: 'faulty',
    CandorExportDetached: 'gone',
    CandorWritesHeld: 'held',
    CandorHandshakesFail: undefined,
    CandorProtocolErrors: undefined,
  })
  const queries = dashboardQueries().filter(({ expr }) => metricsIn(expr).every(isThere))
  await Promise.all(queries.map((query) => awaited(query.expr, untilData(prometheus, query))))

  candor.kill('SIGKILL')
  await expectAlerts(prometheus, { CandorDown: undefined })
})
