// Write-back that would be begun while an image is being let go of. Law: nothing is begun then, and nothing waits for the image
// to come back.
import assert from 'node:assert/strict'
import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { DONE, openBackend } from '../../backends/index.js'
import { temporaryFolder } from '../support/candor.js'
import { MIB } from '../support/large-writes.js'

const folder = temporaryFolder()
after(() => folder.remove())

/** So long behind its first byte write-back of a stream is begun. */
const STEP_MS = 1000

test('an image that is let go of as its write-back comes due is quiet, and is taken up again', {
  timeout: 30_000,
}, async () => {
  const path = join(folder.path, 'disk.img')
  writeFileSync(path, '')
  truncateSync(path, 64 * MIB)
  const image = await openBackend('sparse-file', { path, readOnly: false })
  const quiet = image.quiet ?? assert.fail('an image in a file knows when it is quiet')
  const began = performance.now()
  const bytes = Buffer.alloc(MIB, 7)
  for (let at = 0; at < 64 * MIB; at += MIB) {
    if (image.writeNow(bytes, 0, MIB, at) !== DONE) assert.equal(await image.write(bytes, 0, MIB, at, false), DONE)
  }
  await pause(Math.max(0, STEP_MS - 10 - (performance.now() - began)))
  assert.equal(await image.release(), DONE)
  await quiet()
  assert.equal(await image.reopen(), DONE)
  await quiet()
  await image.close()
})
