// /metrics of a server under load and faults: what it counts, what it keeps apart, and whether others can read it.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { NBD_CMD_FLAG_FUA, NBD_EINVAL, NBD_EIO, NBD_ENOSPC } from 'nbd-protocol'
import { FAMILIES } from '../../server/observe/metric-families.js'
import { temporaryFolder } from '../support/candor.js'
import { familyOf, OPEN_METRICS, scrape } from '../support/exposition.js'
import { attach, lastFirst, MIB, refused, type Scope, serve } from '../support/faults.js'
import { projectFile } from '../support/prometheus.js'
import { FLAGS, option, request } from '../support/raw-bytes.js'
import { RawClient } from '../support/raw-client.js'
import { needs } from '../support/requirements.js'

const DURATION = 'candor_request_duration_seconds'
const PAGE = Buffer.alloc(4096, 1)
const PYTHON = '/usr/bin/python3'

async function serveDisk(scope: Scope, ...args: readonly string[]) {
  const folder = temporaryFolder()
  scope.after(() => folder.remove())
  const socket = join(folder.path, 'nbd')
  const images = [`disk=${join(folder.path, 'disk.img')}`, `idle=${join(folder.path, 'idle.img')}`]
  const places = ['--create', '64M', '--listen', `unix:${socket}`, '--state-dir', join(folder.path, 'state')]
  const candor = await serve(scope, [...images, ...places, ...args])
  return { candor, socket, state: join(folder.path, 'state') }
}

/** Requests of every kind and outcome, and peers that are none. */
async function makeTrouble({ candor, socket }: Awaited<ReturnType<typeof serveDisk>>): Promise<void> {
  const client = await attach(candor)
  await client.write(0, PAGE)
  await client.read(0, PAGE.length)
  await client.write(0, PAGE, NBD_CMD_FLAG_FUA)
  await client.trim(MIB, MIB)
  await client.flush()
  await refused(client.read(2 ** 40, PAGE.length), NBD_EINVAL)
  for (let at = 0; at < 5; at++) await refused(client.write(16 * MIB, PAGE), NBD_ENOSPC)
  const noise = await RawClient.enter(socket, 'simple')
  noise.send(Buffer.alloc(28, 0xff))
  await noise.closed
}

const TROUBLE = ['--inject', 'write:ENOSPC@16M-32M']

describe('what is counted', () => {
  test('durations keep apart what succeeded, what storage failed and what was refused, and count every request once', async (t) => {
    const place = await serveDisk(lastFirst(t), ...TROUBLE)
    await makeTrouble(place)
    const { sum } = await scrape(place.candor.httpUrl)
    const times = (command: string, outcome: string) => sum(`${DURATION}_count`, { export: 'disk', command, outcome })
    assert.deepEqual([times('read', 'ok'), times('read', 'refused'), times('read', 'failed')], [1, 1, 0])
    assert.deepEqual([times('write', 'ok'), times('write', 'refused'), times('write', 'failed')], [2, 0, 5])
    assert.deepEqual([times('trim', 'ok'), times('flush', 'ok')], [1, 1])
    assert.equal(sum(`${DURATION}_count`), sum('candor_requests_total'))
    assert.equal(sum(`${DURATION}_bucket`, { le: '+Inf' }), sum('candor_requests_total'))
    assert.ok(sum(`${DURATION}_sum`) > 0)
  })

  test('every request of a batch is counted, and one that had to wait is timed by itself', async (t) => {
    const { candor, socket } = await serveDisk(lastFirst(t), '--inject', 'read:EIO@32M-33M,delay=300ms')
    const client = await RawClient.enter(socket, 'simple')
    const reads = Array.from({ length: 64 }, (_, at) =>
      request('simple', { type: 0, cookie: BigInt(at), offset: at === 20 ? 32 * MIB : 0, length: 512 }),
    )
    client.send(Buffer.concat(reads))
    for (let replies = 0; replies < reads.length; replies++) await client.reply(() => 512)
    const { sum } = await scrape(candor.httpUrl)
    assert.equal(sum(`${DURATION}_count`, { outcome: 'ok' }), 63)
    // The delay comes in front of storage: whatever the machine does, the one read took no less.
    assert.equal(sum(`${DURATION}_bucket`, { outcome: 'failed', le: '+Inf' }), 1)
    assert.equal(sum(`${DURATION}_bucket`, { outcome: 'failed', le: '0.1' }), 0)
    assert.ok(sum(`${DURATION}_sum`, { outcome: 'failed' }) > 0.29)
    assert.equal(sum('candor_requests_deferred_total', { command: 'read' }), 1)
  })

  test('a write for which storage is waited for is told from one that ends in its turn', async (t) => {
    const { candor } = await serveDisk(lastFirst(t))
    const client = await attach(candor)
    for (let at = 0; at < 10; at++) await client.write(at * PAGE.length, PAGE, NBD_CMD_FLAG_FUA)
    const { sum } = await scrape(candor.httpUrl)
    assert.equal(sum('candor_requests_deferred_total', { command: 'write' }), 10)
  })

  test('lines that the log sums up are counted, and so are entries that the ledger cannot write', {
    timeout: 30_000,
  }, async (t) => {
    const { candor, state } = await serveDisk(lastFirst(t), '--inject', 'write:EIO')
    // A folder in the ledger's place takes no entry, whoever writes.
    mkdirSync(join(state, 'errors-disk.jsonl'))
    const client = await attach(candor)
    for (let at = 0; at < 20; at++) await refused(client.write(at * MIB, PAGE), NBD_EIO)
    const { sum } = await scrape(candor.httpUrl)
    assert.equal(sum('candor_log_lines_suppressed_total', { reason: 'repeated' }), 19)
    while ((await scrape(candor.httpUrl)).sum('candor_ledger_entries_lost_total', { export: 'disk' }) < 20) {}
  })

  test('an export that no client has used shows its size, state, suspect bytes and thread, and nothing else', async (t) => {
    const place = await serveDisk(lastFirst(t))
    const client = await attach(place.candor)
    await client.read(0, 512)
    const { samples } = await scrape(place.candor.httpUrl)
    const shown = (name: string) =>
      new Set(samples.filter(({ labels }) => labels['export'] === name).map((s) => s.name))
    assert.ok(shown('idle').has('candor_export_size_bytes') && shown('idle').has('candor_export_state'))
    for (const name of shown('idle'))
      assert.match(name, /^candor_(export_(size_bytes|state|suspect_bytes|allocated_bytes)|thread_pulse_age_seconds)$/)
    assert.ok(shown('disk').size > 10)
  })
})

/** Names of metrics in the table of docs/metrics.md, with type and labels. */
function documented(): Map<string, { type: string; labels: string[] }> {
  const rows = readFileSync(projectFile('docs/metrics.md'), 'utf8').matchAll(/^\| (`.*?) \| (\w+) \| ?(.*?) ?\|/gm)
  return new Map(
    [...rows].flatMap(([, names = '', type = '', labels = '']) => {
      const row = { type, labels: labels.split(', ').filter((label) => label !== '') }
      return [...names.matchAll(/`(\w+)`/g)].map((name) => [name[1] ?? '', row] as const)
    }),
  )
}

describe('who reads it', () => {
  test('promtool has nothing to say against it', { skip: needs('promtool') }, async (t) => {
    const place = await serveDisk(lastFirst(t), ...TROUBLE)
    await makeTrouble(place)
    const { text, contentType } = await scrape(place.candor.httpUrl)
    const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' })
    assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: '', stderr: '' })
    assert.match(contentType, /^text\/plain; version=0\.0\.4/)
  })

  test("OpenMetrics is there for who asks, and Prometheus's own strict parser takes it", {
    skip: needsParser(),
  }, async (t) => {
    const place = await serveDisk(lastFirst(t), ...TROUBLE)
    await makeTrouble(place)
    const { text, contentType } = await scrape(place.candor.httpUrl, `${OPEN_METRICS}, text/plain;q=0.5`)
    assert.match(contentType, /^application\/openmetrics-text; version=1\.0\.0/)
    const script =
      'import sys\nfrom prometheus_client.openmetrics import parser\n' +
      'for f in parser.text_string_to_metric_families(sys.stdin.read()): print(f.type, f.name)'
    const { stdout, stderr, status } = spawnSync(PYTHON, ['-c', script], { input: text, encoding: 'utf8' })
    assert.equal(status, 0, stderr)
    assert.match(stdout, /^counter candor_requests$/m)
    assert.match(stdout, /^histogram candor_request_duration_seconds$/m)
    assert.match(text, /\n# EOF\n$/)
    const names = stdout.trim().split('\n')
    assert.equal(new Set(names.map((line) => line.split(' ')[1])).size, names.length, 'no family comes twice')
  })

  test('docs/metrics.md has every metric, with its type and its labels', async (t) => {
    const table = documented()
    const place = await serveDisk(lastFirst(t), ...TROUBLE)
    await makeTrouble(place)
    const { types, samples } = await scrape(place.candor.httpUrl)
    assert.deepEqual(
      [...types.keys()].filter((name) => !table.has(name)),
      [],
      'not in docs/metrics.md',
    )
    for (const { name, type } of FAMILIES) assert.equal(table.get(name)?.type, type, name)
    for (const name of table.keys()) assert.ok(types.has(name), `docs/metrics.md tells of ${name}`)
    for (const { name, labels } of samples) {
      const family = familyOf(name, types)
      const shown = Object.keys(labels).filter((label) => label !== 'le')
      assert.deepEqual(shown, table.get(family)?.labels, family)
    }
  })

  test('whatever clients send, labels have the same few values', async (t) => {
    const { candor, socket } = await serveDisk(lastFirst(t))
    const series = async () =>
      new Set((await scrape(candor.httpUrl)).samples.map((s) => `${s.name} ${JSON.stringify(s.labels)}`))
    const noise = async (round: number) => {
      const client = await RawClient.enter(socket, 'simple')
      for (let type = 0; type < 200; type++) {
        if (type === 2) continue
        client.send(
          request('simple', { type: type + (type > 8 ? round * 200 : 0), cookie: 1n, offset: 2 ** 50, length: 0 }),
        )
        assert.notEqual((await client.reply(() => 0))?.error, undefined)
      }
      client.vanish()
      const stranger = await RawClient.connect(socket)
      const name = `export ${round}\n"\\`
      stranger.send(Buffer.concat([Buffer.from(FLAGS, 'hex'), option(1, Buffer.from(name))]))
      await stranger.closed
    }
    await noise(1)
    const before = await series()
    for (let round = 2; round < 6; round++) await noise(round)
    assert.deepEqual(
      [...(await series())].filter((one) => !before.has(one)),
      [],
    )
    const commands = (await scrape(candor.httpUrl)).samples.map(({ labels }) => labels['command'])
    assert.ok(commands.includes('unknown'))
  })
})

function needsParser(): string | false {
  const there = spawnSync(PYTHON, ['-c', 'import prometheus_client.openmetrics'], { stdio: 'ignore' }).status === 0
  return there ? false : needs('python3-prometheus-client')
}
