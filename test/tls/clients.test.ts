// Other people's clients inside TLS: what they copy in is in the image, and what they copy out is what the image holds.
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { patternBytes, scratchFolder } from '../support/guest-images.js'
import { runTool, useTool } from '../support/interop.js'
import { needs } from '../support/requirements.js'
import { makeTlsMaterial, PSK_USER, TLS_PROGRAMS } from '../support/tls-material.js'
import { serveTls } from '../support/tls-server.js'

const MIB = 2 ** 20
const SIZE = 8 * MIB
const skip = needs(...TLS_PROGRAMS, 'nbdinfo', 'nbdcopy', 'qemu-img', 'qemu-io')

if (skip === false) {
  const material = makeTlsMaterial({ after })
  const both = await serveTls({ after }, String(SIZE), '--tls-dir', material.server, '--tls-verify-client')
  const keys = await serveTls({ after }, String(SIZE), '--tls-psk', material.pskFile)

  const x509 = `tls-certificates=${material.client}`
  const psk = `tls-psk-file=${material.pskFile}`
  const dir = `dir=${material.client},endpoint=client`
  const pskDir = `dir=${material.pskFolder},endpoint=client,username=${PSK_USER}`

  /** The ways in: a URI for libnbd, the object and the options of QEMU. */
  const WAYS = [
    {
      name: 'certificates over TCP',
      served: both,
      uri: `nbds://127.0.0.1:${both.port}/disk?${x509}`,
      object: `tls-creds-x509,id=t,${dir}`,
      node: `driver=nbd,host=127.0.0.1,port=${both.port},export=disk,tls-creds=t`,
    },
    {
      name: 'certificates over a Unix socket',
      served: both,
      uri: `nbds+unix://localhost/disk?socket=${both.unix}&${x509}`,
      object: `tls-creds-x509,id=t,${dir}`,
      node: `driver=nbd,path=${both.unix},export=disk,tls-creds=t,tls-hostname=localhost`,
    },
    {
      name: 'pre-shared keys over TCP',
      served: keys,
      uri: `nbds://${PSK_USER}@127.0.0.1:${keys.port}/disk?${psk}`,
      object: `tls-creds-psk,id=t,${pskDir}`,
      node: `driver=nbd,host=127.0.0.1,port=${keys.port},export=disk,tls-creds=t`,
    },
    {
      name: 'pre-shared keys over a Unix socket',
      served: keys,
      uri: `nbds+unix://${PSK_USER}@/disk?socket=${keys.unix}&${psk}`,
      object: `tls-creds-psk,id=t,${pskDir}`,
      node: `driver=nbd,path=${keys.unix},export=disk,tls-creds=t`,
    },
  ]

  for (const [round, { name, served, uri, object, node }] of WAYS.entries()) {
    describe(name, () => {
      test('nbdinfo says that it came by TLS', async () => {
        const told = JSON.parse(await useTool('nbdinfo', ['--json', uri])) as Readonly<Record<string, unknown>>
        assert.equal(told['TLS'], true)
      })

      test('nbdcopy copies in and out, 64 requests in flight on each of four connections', async (scope) => {
        const folder = scratchFolder(scope)
        const content = patternBytes(SIZE + round).subarray(round)
        writeFileSync(join(folder, 'in'), content)
        const words = ['--requests=64', '--request-size=65536', '--connections=4']
        await useTool('nbdcopy', [...words, '--flush', join(folder, 'in'), uri])
        assert.ok(content.equals(readFileSync(served.image)), 'the image holds what was copied in')
        await useTool('nbdcopy', [...words, uri, join(folder, 'out')])
        assert.ok(content.equals(readFileSync(join(folder, 'out'))), 'what was copied out is what the image holds')
      })

      test('qemu-img copies in and out', async (scope) => {
        const folder = scratchFolder(scope)
        const content = patternBytes(SIZE + 97 + round).subarray(97 + round)
        writeFileSync(join(folder, 'in'), content)
        const target = ['--target-image-opts', '-n', join(folder, 'in'), node]
        await useTool('qemu-img', ['convert', '--object', object, '-f', 'raw', ...target])
        assert.ok(content.equals(readFileSync(served.image)), 'the image holds what was copied in')
        await useTool('qemu-img', [
          'convert',
          '--object',
          object,
          '--image-opts',
          node,
          '-O',
          'raw',
          join(folder, 'out'),
        ])
        assert.ok(content.equals(readFileSync(join(folder, 'out'))), 'what was copied out is what the image holds')
      })

      test('qemu-io writes, zeroes, discards, flushes and reads back', async () => {
        const commands = ['write -P 0x5a 0 1M', 'write -z 256k 256k', 'discard 4M 1M', 'flush', 'read -P 0x5a 0 256k']
        const checks = ['read -P 0 256k 256k', 'read -P 0x5a 512k 512k', 'read -P 0 4M 1M']
        const words = [...commands, ...checks].flatMap((command) => ['-c', command])
        await useTool('qemu-io', ['--object', object, '--image-opts', node, ...words])
      })
    })
  }

  test('libnbd refuses a server whose certificate it has no reason to trust, and the server serves on', async () => {
    const stranger = `tls-certificates=${join(material.folder, 'foreign-trust')}`
    await useTool('cp', ['-r', material.client, join(material.folder, 'foreign-trust')])
    const other = join(material.folder, 'other-ca', 'ca-cert.pem')
    await useTool('cp', [other, join(material.folder, 'foreign-trust', 'ca-cert.pem')])
    const { code, stderr } = await runTool('nbdinfo', ['--size', `nbds://127.0.0.1:${both.port}/disk?${stranger}`])
    assert.equal(code, 1)
    assert.match(stderr, /certificate/)
    await useTool('nbdinfo', ['--size', `nbds://127.0.0.1:${both.port}/disk?${x509}`])
  })

  test('a pre-shared key that is wrong, or of somebody unknown, opens nothing', async (scope) => {
    const folder = scratchFolder(scope)
    writeFileSync(join(folder, 'keys'), `${PSK_USER}:${'11'.repeat(32)}\nmallory:${'22'.repeat(32)}\n`)
    for (const user of [PSK_USER, 'mallory']) {
      const uri = `nbds://${user}@127.0.0.1:${keys.port}/disk?tls-psk-file=${join(folder, 'keys')}`
      assert.equal((await runTool('nbdinfo', ['--size', uri])).code, 1)
    }
    await useTool('nbdinfo', ['--size', `nbds://${PSK_USER}@127.0.0.1:${keys.port}/disk?${psk}`])
  })

  test('with certificates and pre-shared keys, a client may come with either', async (scope) => {
    const flags = ['--tls-dir', material.server, '--tls-psk', material.pskFile]
    const { port } = await serveTls(scope, '1M', ...flags)
    await useTool('nbdinfo', ['--size', `nbds://127.0.0.1:${port}/disk?tls-certificates=${material.trusting}`])
    await useTool('nbdinfo', ['--size', `nbds://${PSK_USER}@127.0.0.1:${port}/disk?${psk}`])
    const qemu = `driver=nbd,host=127.0.0.1,port=${port},export=disk,tls-creds=t`
    await useTool('qemu-img', ['info', '--object', `tls-creds-psk,id=t,${pskDir}`, '--image-opts', qemu])
  })
} else test('clients inside TLS', { skip })
