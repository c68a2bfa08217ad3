// TLS as a word of single exports: some over TLS alone, others in the clear, on one server. Law: nothing of an export that
// is had over TLS alone is told or served in the clear but that it is so.
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { control, folderOf, imageAt } from '../support/controlled.js'
import { lastFirst, MIB } from '../support/faults.js'
import { runTool, useTool } from '../support/interop.js'
import { needs } from '../support/requirements.js'
import { makeTlsMaterial, TLS_PROGRAMS } from '../support/tls-material.js'

describe('tls under an export', { skip: needs(...TLS_PROGRAMS, 'nbdinfo') }, () => {
  for (const [top, open, secret] of [
    ['require', 'tls: off', ''],
    ['allow', '', 'tls: require'],
    ['off', 'tls: allow', 'tls: require'],
  ] as const) {
    test(`goes before 'tls: ${top}' for all`, async (t) => {
      const scope = lastFirst(t)
      const folder = folderOf(scope)
      const { server, trusting } = makeTlsMaterial(scope)
      for (const name of ['open', 'secret']) imageAt(`${folder}/${name}`, MIB)
      const words = [`tls: ${top}`, `tls-dir: ${server}`, 'listen: [tcp:127.0.0.1:0]', 'http: off', 'exports:']
      const exports = [
        '  open:',
        '    image: open',
        `    ${open}`,
        '  secret:',
        '    image: secret',
        `    ${secret}`,
        '',
      ]
      writeFileSync(`${folder}/candor.yaml`, [...words, ...exports].join('\n'))
      const { candor, told, reload } = await control(scope, folder, {
        words: ['--config', `${folder}/candor.yaml`],
      }).then((served) => ({ ...served, reload: () => served.told('reload') }))
      const [openUri = '', secretUri = ''] = candor.uris
      assert.deepEqual([openUri.split(':')[0], secretUri.split(':')[0]], ['nbd', 'nbds'])
      assert.equal(await useTool('nbdinfo', ['--size', openUri]), `${MIB}\n`)
      const inTheClear = await runTool('nbdinfo', ['--size', secretUri.replace('nbds:', 'nbd:')])
      assert.notEqual(inTheClear.code, 0)
      assert.match(inTheClear.stderr, /TLS|tls|policy/i)
      for (const uri of [secretUri, openUri.replace('nbd:', 'nbds:')]) {
        assert.equal(await useTool('nbdinfo', ['--size', `${uri}?tls-certificates=${trusting}`]), `${MIB}\n`)
      }
      const list = await useTool('nbdinfo', ['--list', '--json', openUri])
      assert.deepEqual(
        (JSON.parse(list) as { exports: { 'export-name': string }[] }).exports.map((each) => each['export-name']),
        ['open'],
      )
      // With nothing left that is had in the clear, nothing is talked of before TLS; and the other way round.
      await told('remove', 'open')
      assert.notEqual((await runTool('nbdinfo', ['--list', openUri])).code, 0)
      await reload()
      assert.equal(await useTool('nbdinfo', ['--size', openUri]), `${MIB}\n`)
    })
  }

  test('needs credentials, told by the name of the export', async (t) => {
    const folder = folderOf(lastFirst(t))
    writeFileSync(`${folder}/candor.yaml`, 'exports:\n  a:\n    image: a\n    tls: require\n')
    const { code, stderr } = await runTool(process.execPath, [
      new URL('../../server/main.js', import.meta.url).pathname,
      ...['serve', '--check', '--config', `${folder}/candor.yaml`],
    ])
    assert.equal(code, 1)
    assert.match(stderr, /^candor: tls of export a needs certificates or keys: give --tls-dir DIR or --tls-psk FILE\n$/)
  })
})
