// The configuration file: the words of the command line with policies for single exports, and every mistake told with
// file, line and key before anything is opened.
import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { configOf } from '../../server/config.js'
import { addedExport, type ExportFlags } from '../../server/config-added.js'
import { withConfigFile } from '../../server/config-file.js'
import { KEYS } from '../../server/config-keys.js'
import { UsageError } from '../../server/values.js'
import { runCandor, startCandor, temporaryFolder } from '../support/candor.js'

const MIB = 1 << 20
const NO_FLAGS = { images: [] }
const PLACES = { server: 'top', export: 'export', both: 'both' } as const

function written(t: TestContext, text: string): string {
  const { path, remove } = temporaryFolder()
  t.after(remove)
  const file = join(path, 'candor.yaml')
  writeFileSync(file, text)
  return file
}

function configOfFile(t: TestContext, text: string) {
  return configOf(withConfigFile({ ...NO_FLAGS, config: written(t, text) }))
}

const WHOLE = `
listen: [unix:/run/a, tcp:127.0.0.1:0]
http: off
state-dir: none
on-enospc: hold=5m
reserve: 1G
connections-max: 7
allow-clients: [10.0.0.0/8]
exports:
  one:
    image: one.img
    create: 1M
  two:
    image: /srv/two.img
    read-only: true
    on-enospc: report
    reserve: 2G
    suspect-reads: allow
    allow-clients: [192.168.0.0/16]
    inject: ['read:EIO,count=1']
`

describe('a configuration file', () => {
  test('gives each export its own policies, and the words at the top to those that have none', (t) => {
    const { exports, listen, http, limits, stateDirectory } = configOfFile(t, WHOLE)
    const [one, two] = exports
    assert.equal(listen.length, 2)
    assert.equal(http, undefined)
    assert.equal(stateDirectory, undefined)
    assert.equal(limits.connectionsMax, 7)
    assert.deepEqual(one?.onSpace, { kind: 'hold', timeoutMs: 300_000 })
    assert.deepEqual([one?.create, one?.reserve, one?.readsSuspects, one?.readOnly], [1 << 20, 1 << 30, false, false])
    assert.ok(one?.path.endsWith('/one.img') && one.path.startsWith('/'), 'beside the file')
    assert.deepEqual(two?.onSpace, { kind: 'report' })
    assert.deepEqual([two?.create, two?.reserve, two?.readsSuspects, two?.readOnly], [undefined, 2 ** 31, true, true])
    assert.deepEqual(one.access.networks, ['10.0.0.0/8'])
    assert.deepEqual(two?.access.networks, ['10.0.0.0/8', '192.168.0.0/16'])
    assert.deepEqual(
      two?.inject.map(({ text }) => text),
      ['read:EIO,count=1'],
    )
    assert.deepEqual(one.inject, [])
  })

  test('makes one export writable where all others are read-only, unless the command line says read-only', (t) => {
    const text =
      'read-only: true\nexports:\n  a:\n    image: a\n  b:\n    image: b\n    read-only: false\n    create: 1M\n'
    const config = written(t, text)
    const readOnly = (flags: object) =>
      configOf(withConfigFile({ ...NO_FLAGS, config, ...flags })).exports.map((each) => each.readOnly)
    assert.deepEqual(readOnly({}), [true, false])
    assert.throws(() => readOnly({ 'read-only': true }), /--create and --read-only exclude each other/)
  })

  test('has its own words for reading and writing where one more image is added beside images that are made', (t) => {
    const config = configOfFile(t, 'exports:\n  a:\n    image: a\n    create: 1M\n')
    const added = (own: ExportFlags, base = config) => addedExport(base, 'b=/b.img', own)
    assert.deepEqual([added({}).readOnly, added({ 'read-only': true }).readOnly], [false, true])
    const readers = configOfFile(t, 'read-only: true\nexports:\n  a:\n    image: a\n')
    assert.deepEqual([added({}, readers).readOnly, added({ 'read-only': false }, readers).readOnly], [true, false])
    const useless = /--create and --read-only exclude each other/
    assert.throws(() => added({ 'read-only': true, create: ['1M'] }), useless)
    assert.throws(() => added({ create: ['1M'] }, readers), useless)
    assert.equal(added({ 'read-only': false, create: ['1M'] }, readers).create, MIB)
  })

  test('stands behind the words of the command line', (t) => {
    const flags = { images: ['three=/srv/three.img'], config: written(t, WHOLE), reserve: ['3G'], http: '127.0.0.1:1' }
    const { exports, http } = configOf(withConfigFile(flags))
    assert.deepEqual(
      exports.map(({ name, reserve }) => [name, reserve]),
      ['one', 'two', 'three'].map((name) => [name, 3 * 2 ** 30]),
    )
    assert.deepEqual(http, { host: '127.0.0.1', port: 1 })
  })

  const MISTAKES: readonly (readonly [text: string, line: number, sentence: RegExp])[] = [
    ['lisen: [unix:/a]', 1, /there is no key 'lisen' here: did you mean 'listen'\?$/],
    ['exports:\n  a:\n    image: x\n    reserv: 1G', 4, /there is no key 'reserv' here: did you mean 'reserve'\?$/],
    ['exports:\n  a:\n    image: x\n    http: off', 4, /'http' belongs to the top of the file, not here$/],
    ['image: x', 1, /'image' belongs under an export, not here$/],
    ['\nreserve: lots', 2, /reserve is 'lots', which is no size/],
    ['exports:\n  a:\n    image: x\n    on-enospc: wait', 4, /on-enospc is 'wait': write report, hold or hold=10m$/],
    ['listen: [nowhere]', 1, /listen: 'nowhere': write tcp:HOST:PORT, unix:PATH or vhost-user:PATH$/],
    ['read-only: perhaps', 1, /read-only has to be true or false$/],
    ['tls: maybe', 1, /tls is 'maybe': write off, allow, require$/],
    ['http: {}', 1, /http has to be written as 127\.0\.0\.1:9809$/],
    ['exports:\n  a: {}', 2, /export 'a' has no image: add image: PATH$/],
    ['exports:\n  a/b:\n    image: x', 2, /'a\/b' is no name for an export/],
    ['exports: [a]', 1, /'exports' has to be a table of names/],
    ['reserve: 1G\nreserve: 2G', 2, /this is no YAML: Map keys must be unique$/],
    ['reserve: [1G', 1, /this is no YAML/],
  ]
  for (const [text, line, sentence] of MISTAKES) {
    test(`with ${JSON.stringify(text)} is refused by file, line ${line} and key`, (t) => {
      const file = written(t, text)
      assert.throws(
        () => withConfigFile({ ...NO_FLAGS, config: file }),
        (error) =>
          error instanceof UsageError && error.message.startsWith(`${file}:${line}: `) && sentence.test(error.message),
      )
    })
  }

  test('that cannot be read, is no table, or is no configuration by its size is refused by its name', (t) => {
    for (const [file, sentence] of [
      ['/nowhere/candor.yaml', /cannot be read/],
      [written(t, '- a'), /is no table of keys/],
      [written(t, `# ${'x'.repeat(4 << 20)}`), /has more than 4194304 bytes/],
    ] as const) {
      assert.throws(() => withConfigFile({ ...NO_FLAGS, config: file }), sentence)
    }
  })

  test('serves what it says; --check opens nothing, and a mistake ends with exit code 1', async (t) => {
    const { path, remove } = temporaryFolder()
    t.after(remove)
    const file = join(path, 'candor.yaml')
    const words = `listen: [unix:${path}/nbd]\nhttp: 127.0.0.1:0\nexports:\n  disk:\n    image: disk.img\n    create: 1M\n`
    writeFileSync(file, words)
    const checked = await runCandor(['serve', '--config', file, '--check'])
    assert.deepEqual([checked.code, checked.stdout], [0, `${file} is sound: 1 exports\n`])
    assert.ok(!existsSync(join(path, 'disk.img')))
    const candor = await startCandor(['serve', '--config', file])
    assert.deepEqual(candor.uris, [`nbd+unix:///disk?socket=${path}/nbd`])
    assert.equal((await candor.stop()).code, 0)
    writeFileSync(file, `${words}    creat: 2M\n`)
    const refused = await runCandor(['serve', '--config', file, '--check'])
    assert.equal(refused.code, 1)
    assert.equal(refused.stderr, `candor: ${file}:7: there is no key 'creat' here: did you mean 'create'?\n`)
  })

  test('has every key in docs/configuration.md, whose example is sound', (t) => {
    const page = readFileSync(new URL('../../../docs/configuration.md', import.meta.url), 'utf8')
    const rows = Object.entries(KEYS).map(
      ([key, { place, example, describe }]) => `| \`${key}\` | ${PLACES[place]} | \`${example}\` | ${describe} |`,
    )
    assert.deepEqual(
      page.split('\n').filter((line) => line.startsWith('| `')),
      rows,
    )
    const [, example = ''] = /```yaml\n([\s\S]*?)```/.exec(page) ?? []
    assert.equal(configOfFile(t, example).exports.length, 3)
  })
})
