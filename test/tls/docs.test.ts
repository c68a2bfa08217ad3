// The commands of docs/security.md make credentials that candor and its clients take.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { formatLimit, LIMITS } from '../../server/limits.js'
import { scratchFolder } from '../support/guest-images.js'
import { useTool } from '../support/interop.js'
import { needs } from '../support/requirements.js'
import { CLIENT_SUBJECT } from '../support/tls-material.js'
import { serveTls } from '../support/tls-server.js'

const guide = readFileSync(join(import.meta.dirname, '../../../docs/security.md'), 'utf8')

/** The first block of commands below a heading. */
function commands(heading: string): string {
  const [, block] = guide.split(`## ${heading}\n`)[1]?.match(/```sh\n([^`]*)```/) ?? []
  assert.ok(block !== undefined, `no commands below '${heading}'`)
  return block
}

test('the commands for certificates and keys, pasted, make what server and clients need', {
  skip: needs('openssl', 'nbdinfo', 'qemu-img'),
}, async (scope) => {
  const cwd = scratchFolder(scope)
  for (const heading of ['TLS with certificates', 'TLS with pre-shared keys']) {
    execFileSync('sh', ['-eu', '-c', commands(heading)], { cwd, stdio: 'pipe' })
  }
  const at = (name: string) => join(cwd, name)
  const verified = ['--tls-dir', at('tls/server'), '--tls-verify-client', '--allow-subjects', CLIENT_SUBJECT]
  const certificates = await serveTls(scope, '1M', ...verified)
  const keys = await serveTls(scope, '1M', '--tls-psk', at('keys.psk'))
  const byAddress = `nbds://127.0.0.1:${certificates.port}/disk?tls-certificates=${at('tls/client')}`
  const byName = `nbds+unix://localhost/disk?socket=${certificates.unix}&tls-certificates=${at('tls/client')}`
  for (const uri of [byAddress, byName]) assert.equal(await useTool('nbdinfo', ['--size', uri]), '1048576\n')
  const credentials = `tls-creds-x509,id=t,dir=${at('tls/client')},endpoint=client`
  const node = `driver=nbd,host=127.0.0.1,port=${certificates.port},export=disk,tls-creds=t`
  await useTool('qemu-img', ['info', '--object', credentials, '--image-opts', node])
  await useTool('nbdinfo', ['--size', `nbds://alice@127.0.0.1:${keys.port}/disk?tls-psk-file=${at('keys.psk')}`])
})

test('the table of limits has every flag, with its default', () => {
  const rows = [...guide.matchAll(/^\| `--([a-z-]+)` \| (\S+) \|/gm)].map(([, flag, value]) => [flag, value])
  assert.deepEqual(
    rows,
    Object.entries(LIMITS).map(([flag, rule]) => [flag, formatLimit(rule)]),
  )
})
