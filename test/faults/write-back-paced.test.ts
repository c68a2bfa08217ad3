// Write-back that candor begins by itself. Law: beginning it is no sync: it takes no error away from those who are to hear
// of it, and what fails on the way is known before any FLUSH is believed.
import assert from 'node:assert/strict'
import { closeSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { NBD_EIO, NBD_ENOSPC } from 'nbd-protocol'
import { fileIo, IO_WRITE_BACK } from '../../backends/native/file-io.js'
import { IoPool } from '../../backends/native/io-pool.js'
import { attach, exportState, lastFirst, MIB, serve, stamped } from '../support/faults.js'
import { sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'
import {
  errorOf,
  evictFile,
  mountThinStack,
  readBack,
  THIN_STACK_NEEDS,
  writeBack,
  writeStamped,
} from '../support/thin-stack.js'

const skip = needsRoot(...THIN_STACK_NEEDS)
const SIZE = 96 * MIB
const SAFE = 16 * MIB
/** Two steps of write-back, none of which there is room for. */
const MUCH = 72 * MIB

test('to begin write-back takes no pending error away: the probe of every description tells it afterwards', {
  skip,
}, async (t) => {
  const scope = lastFirst(t)
  const stack = mountThinStack(scope)
  const image = sparseFile(join(stack.folder, 'disk.img'), SIZE)
  const [writer, witness] = [openSync(image, 'r+'), openSync(image, 'r')]
  scope.after(() => {
    closeSync(writer)
    closeSync(witness)
  })
  const pool = new IoPool(1, 'pool')
  const begin = () => pool.run(IO_WRITE_BACK, 0, writer, null, 0, SIZE, 0)
  stack.exhaust()
  writeSync(writer, stamped(0, 8 * MIB), 0, 8 * MIB, 0)
  await begin()
  writeBack(stack)
  for (let again = 0; again < 3; again++) await begin()
  assert.notEqual(fileIo.probe(writer), 0, 'the error was swallowed')
  assert.equal(fileIo.probe(writer), 0, 'the kernel tells each description once')
  for (let again = 0; again < 3; again++) await begin()
  assert.notEqual(fileIo.probe(witness), 0, 'the second description was not told')
})

test('write-back that a server began, and that fails, degrades the export before any FLUSH; no read tells old data', {
  skip,
}, async (t) => {
  const scope = lastFirst(t)
  const stack = mountThinStack(scope)
  const image = sparseFile(join(stack.folder, 'disk.img'), SIZE)
  const candor = await serve(scope, [image])
  const client = await attach(candor)
  await writeStamped(client, 0, SAFE)
  await client.flush()
  stack.exhaust()
  await writeStamped(client, SAFE, SAFE + MUCH)
  while ((await exportState(candor, 'disk.img')) !== 'degraded') await pause(50)
  evictFile(image)
  const { right, refused, wrong } = await readBack(client, 0, SAFE + MUCH)
  assert.deepEqual(wrong, [], 'lost bytes were read as good')
  assert.deepEqual([right.length * MIB, refused.length * MIB], [SAFE, MUCH])
  assert.ok([NBD_EIO, NBD_ENOSPC].includes(await errorOf(client.flush())))
  assert.equal((await candor.stop()).code, 2)
})
