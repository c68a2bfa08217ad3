// Extended headers with libnbd 1.22, which Debian 12 does not have: it runs in a folder of Debian 13 that CANDOR_TRIXIE
// names (`./test/run --all` makes one), with candor's socket inside of it.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { startCandor } from '../support/candor.js'
import { needsDebian13, needsRoot } from '../support/requirements.js'

const trixie = process.env['CANDOR_TRIXIE'] ?? ''
const SCRIPT = fileURLToPath(new URL('../../../test/interop/libnbd_extended.py', import.meta.url))
const GIB = 2 ** 30
const HOLE = 3

test('libnbd 1.22 zeroes, trims and asks for the status of more than 4 GiB in one request', {
  skip: needsDebian13() || needsRoot('chroot'),
}, async (t) => {
  const folder = mkdtempSync(join(trixie, 'tmp/candor-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const image = join(folder, 'disk.img')
  const candor = await startCandor(['serve', image, '--create', '12G', '--listen', `unix:${join(folder, 'nbd')}`])
  t.after(() => candor.stop())
  copyFileSync(SCRIPT, join(folder, 'script.py'))
  const inside = `/tmp/${basename(folder)}`
  const uri = `nbd+unix:///disk.img?socket=${inside}/nbd`
  const output = execFileSync('chroot', [trixie, 'python3', `${inside}/script.py`, uri], { encoding: 'utf8' })
  const seen = JSON.parse(output)
  assert.equal(seen.extended, true)
  assert.deepEqual(seen.before, [
    [4096, 0],
    [11 * GIB - 4096, HOLE],
    [4096, 0],
    [GIB - 4096, HOLE],
  ])
  assert.deepEqual(seen.after, [[12 * GIB, HOLE]])
  assert.deepEqual([seen.zeroes, seen.data], [true, true])
})
