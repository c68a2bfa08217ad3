// The configuration read again on a real server, by `candor ctl reload` and SIGHUP. Laws: words that are wrong change
// nothing at all; sessions live on; what cannot be applied is told by name.
import assert from 'node:assert/strict'
import { copyFileSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { type TestContext, test } from 'node:test'
import { NBD_ENOSPC } from 'nbd-protocol'
import type { Reloaded } from '../../server/control/reload.js'
import { type Controlled, control, folderOf, imageAt, until } from '../support/controlled.js'
import { attach, lastFirst, logged, MIB, refused, stamped } from '../support/faults.js'
import { runTool } from '../support/interop.js'
import { needs } from '../support/requirements.js'
import { makeCertificate, makeTlsMaterial, TLS_PROGRAMS } from '../support/tls-material.js'

interface Configured extends Controlled {
  /** Writes the file anew: what stands at the top, and the exports with their lines. */
  write(exports: Readonly<Record<string, readonly string[]>>, ...top: readonly string[]): void
  reload(): Promise<Reloaded>
}

const NOTHING: Reloaded = { added: [], removed: [], changed: [], failed: [], unapplied: [] }
const FILE = 'candor.yaml'

/** A server of the images a and b from a file; c is there for later. */
async function configured(t: TestContext, ...top: readonly string[]): Promise<Configured> {
  const scope = lastFirst(t)
  const folder = folderOf(scope)
  for (const name of ['a', 'b', 'c']) imageAt(`${folder}/${name}`, 4 * MIB)
  const isOwn = top.some((line) => line.startsWith('listen:'))
  const always = ['http: 127.0.0.1:0', ...(isOwn ? [] : [`listen: [unix:${folder}/nbd]`])]
  const write: Configured['write'] = (exports, ...others) => {
    const each = Object.entries(exports).flatMap(([name, lines]) => {
      const image = lines.some((line) => line.startsWith('image:')) ? [] : [`image: ${name}`]
      return [`  ${name}:`, ...[...image, ...lines].map((line) => `    ${line}`)]
    })
    writeFileSync(`${folder}/${FILE}`, [...always, ...others, 'exports:', ...each, ''].join('\n'))
  }
  write({ a: [], b: [] }, ...top)
  const served = await control(scope, folder, { words: ['--config', `${folder}/${FILE}`] })
  return { ...served, write, reload: () => served.told<Reloaded>('reload') }
}

test('exports come, go and get other policies; those who are connected notice nothing', async (t) => {
  const served = await configured(t)
  const client = await attach(served.uri('a'))
  const [session] = await served.sessions()
  served.write({ a: ['reserve: 1000T', 'suspect-reads: allow'], c: ['on-enospc: hold=1m'] })
  assert.deepEqual(await served.reload(), { ...NOTHING, added: ['c'], removed: ['b'], changed: ['a'] })
  assert.deepEqual((await served.summaries()).map(({ name }) => name).sort(), ['a', 'c'])
  assert.equal((await served.summary('c'))?.onEnospc, 'hold=60s')
  await refused(client.write(0, stamped(0, 4096)), NBD_ENOSPC)
  served.write({ a: [], c: ['on-enospc: hold=1m'] })
  assert.deepEqual(await served.reload(), { ...NOTHING, changed: ['a'] })
  await client.write(0, stamped(0, 4096))
  assert.equal((await served.sessions())[0]?.id, session?.id)
  assert.deepEqual(await served.reload(), NOTHING)
  assert.equal((await served.ctl('reload')).stdout, 'nothing has changed\n')
})

test('SIGHUP does the same, and the log tells what came of it', async (t) => {
  const served = await configured(t)
  served.write({ a: [], b: [], c: [] }, 'log-level: error')
  served.candor.kill('SIGHUP')
  await until(
    'the export',
    () => served.summary('c'),
    (summary) => summary?.state === 'ok',
  )
  served.write({ a: [] }, 'lisen: x')
  served.candor.kill('SIGHUP')
  const sentence =
    /^the configuration was not read again, and nothing is changed: .*candor\.yaml:3: there is no key 'lisen'/
  await until(
    'the log',
    async () => logged(served.candor, sentence),
    (lines) => lines.length === 1,
  )
  assert.deepEqual(logged(served.candor, /was read again/), [], 'the level is another since the first')
})

test('what an operator has said at run time is put back to what the file says; what he added stays', async (t) => {
  const served = await configured(t)
  await served.told('set', 'a', '--reserve', '1M')
  await served.told('remove', 'b')
  await served.told('add', `own=${served.path('c')}`)
  assert.deepEqual(await served.reload(), { ...NOTHING, added: ['b'], changed: ['a'] })
  assert.deepEqual(
    (await served.summaries()).map(({ name, reserve }) => [name, reserve]),
    [
      ['a', 0],
      ['own', 0],
      ['b', 0],
    ],
  )
})

test('rules of access hold for those who come from then on', async (t) => {
  const listen = 'listen: [tcp:127.0.0.1:0]'
  const served = await configured(t, listen)
  const [uri = ''] = served.candor.uris
  const client = await attach(uri)
  served.write({ a: ['allow-clients: [10.0.0.0/8]'], b: [] }, listen)
  assert.deepEqual(await served.reload(), { ...NOTHING, changed: ['a'] })
  await assert.rejects(attach(uri))
  await client.read(0, 512)
  served.write({ a: ['allow-clients: [127.0.0.0/8]'], b: [] }, listen)
  await served.reload()
  await attach(uri)
})

test('certificates that were renewed are those of the next client; unusable ones change nothing', {
  skip: needs(...TLS_PROGRAMS, 'nbdinfo'),
}, async (t) => {
  const material = makeTlsMaterial(lastFirst(t))
  const top = ['listen: [tcp:127.0.0.1:0]', `tls-dir: ${material.server}`]
  const served = await configured(t, ...top)
  const [uri = ''] = served.candor.uris
  const trusts = async (folder: string) => (await runTool('nbdinfo', [`${uri}?tls-certificates=${folder}`])).code === 0
  const trustsOther = `${material.folder}/trusts-other`
  mkdirSync(trustsOther)
  copyFileSync(`${material.folder}/other-ca/ca-cert.pem`, `${trustsOther}/ca-cert.pem`)
  assert.deepEqual([await trusts(material.trusting), await trusts(trustsOther)], [true, false])
  const names = 'subjectAltName=DNS:localhost,IP:127.0.0.1'
  makeCertificate(material.server, 'server', '/CN=localhost', `${material.folder}/other-ca`, names)
  assert.deepEqual(await served.reload(), NOTHING)
  assert.deepEqual([await trusts(material.trusting), await trusts(trustsOther)], [false, true])
  writeFileSync(`${material.server}/server-cert.pem`, 'no certificate')
  served.write({ a: [], c: [] }, ...top)
  assert.match((await served.ctl('reload')).stderr, /nothing is changed: the certificates in .* are of no use/)
  assert.equal(await trusts(trustsOther), true)
  assert.equal(await served.summary('c'), undefined)
})

test('TLS that comes or goes with the file waits for a restart: exports ask for what they asked for before', {
  skip: needs(...TLS_PROGRAMS),
}, async (t) => {
  const material = makeTlsMaterial(lastFirst(t))
  const [listen, credentials] = ['listen: [tcp:127.0.0.1:0]', `tls-dir: ${material.server}`]
  const unapplied = ['tls-dir is another: restart candor for it']
  for (const [before, after] of [
    [[listen], [listen, credentials, 'tls: require']],
    [[listen, credentials], [listen]],
  ] as const) {
    const served = await configured(t, ...before)
    const [uri = ''] = served.candor.uris
    const plain = () => Promise.all(['a', 'c'].map((name) => attach(new URL(`/${name}`, uri).href).then(() => 'plain')))
    served.write({ a: [], b: [], c: [] }, ...after)
    assert.deepEqual(await served.reload(), { ...NOTHING, added: ['c'], unapplied })
    assert.deepEqual(await served.reload(), { ...NOTHING, unapplied })
    await served.told('add', `own=${imageAt(served.path('own'), MIB)}`)
    if (before.length === 1) assert.deepEqual(await plain(), ['plain', 'plain'])
    else await assert.rejects(plain())
  }
})

test('what takes a restart is told by its name, again and again, and the rest is applied', async (t) => {
  const served = await configured(t)
  const top = ['workers: 1', 'handshake-timeout: 3s', 'connections-max: 5']
  served.write({ a: [], b: [], c: [] }, ...top)
  const unapplied = ['workers', 'connections-max', 'handshake-timeout'].map(
    (key) => `${key} is another: restart candor for it`,
  )
  assert.deepEqual(await served.reload(), { ...NOTHING, added: ['c'], unapplied })
  assert.deepEqual(await served.reload(), { ...NOTHING, unapplied })
  assert.match((await served.ctl('reload')).stdout, /^not applied: workers is another: restart candor for it\n/)
  assert.equal(logged(served.candor, /^not applied: workers is another/).length, 3)
})

test('a file that is wrong changes nothing, and is told by file, line, key and remedy', async (t) => {
  const served = await configured(t)
  const before = await served.summaries()
  served.write({ c: [], a: ['reserve: 1M', 'on-enospc: wait'] })
  const { code, stderr } = await served.ctl('reload')
  assert.equal(code, 1)
  const where = `${served.path(FILE)}:9: on-enospc is 'wait': write report, hold or hold=10m`
  assert.equal(stderr, `candor: the configuration was not read again, and nothing is changed: ${where}\n`)
  rmSync(served.path(FILE))
  assert.match(
    (await served.ctl('reload')).stderr,
    /nothing is changed: --config .*candor\.yaml cannot be read: ENOENT/,
  )
  assert.deepEqual(await served.summaries(), before)
})

test('an export whose image is gone is listed as failed, everywhere, until it is back; others go on', async (t) => {
  const served = await configured(t)
  const client = await attach(served.uri('a'))
  renameSync(served.path('c'), served.path('elsewhere'))
  served.write({ a: [], b: [], c: [] })
  const reason = `there is no image at ${served.path('c')}: give the right path, or --create SIZE to make it`
  assert.deepEqual(await served.reload(), { ...NOTHING, failed: [{ name: 'c', reason }] })
  const row = (await served.ctl('exports')).stdout.split('\n').at(-2) ?? ''
  assert.deepEqual(row.split(/ {2,}/), ['c', 'failed', reason])
  const api = async (path: string) => (await fetch(`${served.candor.httpUrl}${path}`)).json()
  const view = await until(
    'the API',
    () => api('/api/exports/c') as Promise<Record<string, unknown>>,
    ({ name }) => name === 'c',
  )
  assert.deepEqual([view['health'], view['state'], view['reason']], ['failed', 'failed', reason])
  const { problems } = (await api('/api/problems')) as { problems: { export: string; title: string; detail: string }[] }
  assert.deepEqual(
    problems.map((each) => [each.export, each.title]),
    [['c', 'its image cannot be served']],
  )
  assert.ok(problems[0]?.detail.includes(reason))
  const metrics = await served.candor.metrics()
  assert.equal(metrics.get('candor_export_state{export="c",state="failed"}'), 1)
  assert.equal(metrics.get('candor_export_state{export="a",state="ok"}'), 1)
  assert.match((await served.ctl('resume', 'c')).stderr, /^candor: export c is not served: there is no image at/)
  await assert.rejects(attach(served.uri('c')))
  await client.write(0, stamped(0, 4096))

  renameSync(served.path('elsewhere'), served.path('c'))
  assert.deepEqual(await served.reload(), { ...NOTHING, added: ['c'] })
  assert.equal((await attach(served.uri('c'))).size, 4 * MIB)
  assert.equal((await served.candor.metrics()).get('candor_export_state{export="c",state="failed"}'), 0)
})

test('a failed export is given up by remove', async (t) => {
  const served = await configured(t)
  served.write({ a: [], b: [], d: [] })
  await served.reload()
  assert.equal((await served.ctl('remove', 'd')).stdout, 'd is removed\n')
  assert.equal(await served.summary('d'), undefined)
})

test('another image under the same name waits until nobody is connected', async (t) => {
  const served = await configured(t)
  const client = await attach(served.uri('b'))
  await client.write(0, stamped(0, 4096))
  served.write({ a: ['read-only: true'], b: ['image: c'] })
  const result = await served.reload()
  assert.deepEqual(result.unapplied, [
    "export b: image (1 clients are connected: 'candor ctl remove b', then 'candor ctl reload')",
  ])
  assert.deepEqual([result.removed, result.added], [['a'], ['a']])
  assert.equal((await served.summary('a'))?.readOnly, true)
  assert.equal(stamped(0, 4096).compare(await client.read(0, 4096)), 0)
  await client.disconnect()
  await until(
    'the sessions',
    () => served.sessions(),
    (sessions) => sessions.length === 0,
  )
  assert.deepEqual(await served.reload(), { ...NOTHING, added: ['b'], removed: ['b'] })
  assert.equal(Buffer.alloc(4096).compare(await (await attach(served.uri('b'))).read(0, 4096)), 0)
})
