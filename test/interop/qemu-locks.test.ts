// The byte locks of QEMU's file driver: its tools and candor keep each other from one image's writers.
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { runCandor, startCandor, temporaryFolder } from '../support/candor.js'
import { sparseFile } from '../support/loop-disk.js'
import { needs } from '../support/requirements.js'

const MIB = 1 << 20

function qemu(program: string, ...args: readonly string[]): { code: number | null; stderr: string } {
  const { status, stderr } = spawnSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'] })
  return { code: status, stderr }
}

describe('an image that candor serves', { skip: needs('qemu-io', 'qemu-img') }, () => {
  test('is refused to those who would write to it, and not to those who look at it', async (t) => {
    const folder = temporaryFolder()
    t.after(() => folder.remove())
    const image = sparseFile(join(folder.path, 'disk.img'), MIB)
    const candor = await startCandor(['serve', image, '--listen', `unix:${join(folder.path, 'nbd')}`])
    t.after(() => candor.stop())
    const write = qemu('qemu-io', '-f', 'raw', image, '-c', 'write 0 4k')
    assert.equal(write.code, 1)
    assert.match(write.stderr, /Failed to get "write" lock/)
    assert.match(qemu('qemu-img', 'resize', '-f', 'raw', image, '2M').stderr, /lock/)
    assert.equal(qemu('qemu-io', '-r', '-U', '-f', 'raw', image, '-c', 'read 0 4k').code, 0)
    assert.equal(qemu('qemu-img', 'info', '-U', image).code, 0)
  })

  test('can be written to by QEMU again as soon as candor has ended, however it ended', async (t) => {
    const folder = temporaryFolder()
    t.after(() => folder.remove())
    const image = sparseFile(join(folder.path, 'disk.img'), MIB)
    const candor = await startCandor(['serve', image, '--listen', `unix:${join(folder.path, 'nbd')}`])
    candor.kill('SIGKILL')
    await candor.ended
    assert.equal(qemu('qemu-io', '-f', 'raw', image, '-c', 'write 0 4k').code, 0)
  })
})

describe('an image that QEMU has open for writing', { skip: needs('qemu-io') }, () => {
  for (const flags of [[], ['--read-only']]) {
    test(`is refused to candor in one sentence, ${flags.join('') || 'writable'}`, async (t) => {
      const folder = temporaryFolder()
      t.after(() => folder.remove())
      const image = sparseFile(join(folder.path, 'disk.img'), MIB)
      const holder = spawn('qemu-io', ['-f', 'raw', image], { stdio: ['pipe', 'pipe', 'ignore'] })
      t.after(() => holder.kill('SIGKILL'))
      // Its answer shows that it is open, and so locked.
      holder.stdin.write('length\n')
      await once(holder.stdout, 'data')
      const args = ['serve', image, ...flags, '--state-dir', 'none', '--listen', `unix:${join(folder.path, 'nbd')}`]
      const { code, stderr } = await runCandor(args)
      assert.equal(code, 1)
      assert.equal(stderr, `candor: ${image} is in use by QEMU or one of its tools: stop that one first\n`)
    })
  }
})
