// --read-only-export: one export that nobody writes to, beside others.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { connectClient, NBD_EPERM } from 'nbd-protocol'
import { openStream, parseUri } from '../../server/cli/connect.js'
import { refused, serve } from '../support/faults.js'
import { type Mistake, serving, testMistakes } from '../support/faults-mistakes.js'
import { scratchFolder } from '../support/guest-images.js'
import { runTool, useTool } from '../support/interop.js'
import { sparseFile } from '../support/loop-disk.js'
import { needs } from '../support/requirements.js'

const MIB = 2 ** 20

describe('--read-only-export', () => {
  test('refuses whatever writes to that export with EPERM, and nothing else', async (scope) => {
    const folder = scratchFolder(scope)
    const [fixed, free] = ['fixed', 'free'].map((name) => sparseFile(join(folder, name), MIB))
    const { uris } = await serve(scope, [`fixed=${fixed}`, `free=${free}`, '--read-only-export', 'fixed'])
    const clients = uris.map(async (uri) => connectClient(await openStream(parseUri(uri)), parseUri(uri).exportName))
    const [readOnly, writable] = await Promise.all(clients)
    assert.ok(readOnly !== undefined && writable !== undefined)
    const data = Buffer.alloc(512, 1)
    await refused(readOnly.write(0, data), NBD_EPERM)
    await refused(readOnly.trim(0, 512), NBD_EPERM)
    await refused(readOnly.writeZeroes(0, 512), NBD_EPERM)
    await readOnly.flush()
    assert.equal((await readOnly.read(0, MIB)).length, MIB)
    await writable.write(0, data)
    await writable.flush()
    assert.deepEqual(readFileSync(join(folder, 'fixed')), Buffer.alloc(MIB))
    assert.deepEqual(readFileSync(join(folder, 'free')).subarray(0, 512), data)
  })

  test('clients are told so, and several exports may be', {
    skip: needs('nbdinfo', 'qemu-io'),
  }, async (scope) => {
    const folder = scratchFolder(scope)
    const images = ['fixed', 'free'].map((name) => `${name}=${sparseFile(join(folder, name), MIB)}`)
    const { uris } = await serve(scope, [...images, '--read-only-export', 'fixed', '--read-only-export', 'free'])
    for (const uri of uris) {
      await useTool('nbdinfo', ['--is', 'read-only', uri])
      assert.notEqual((await runTool('qemu-io', ['-f', 'raw', '-c', 'write 0 512', uri])).code, 0)
      await useTool('qemu-io', ['-r', '-f', 'raw', '-c', 'read -P 0 0 1M', uri])
    }
  })
})

const MISTAKES: readonly Mistake[] = [
  {
    title: 'a name that no image has',
    words: (scene) => [...serving(scene, `disk=${scene.image}`), '--read-only-export', 'other'],
    says: ['--read-only-export', "'other'"],
  },
]

testMistakes('--read-only-export', MISTAKES)
