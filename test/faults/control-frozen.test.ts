// `candor ctl` while storage stands still. Law: what an operator asks of one export keeps nobody else waiting, and what was
// promised is done when storage goes on.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { control, folderOf, imageAt, until } from '../support/controlled.js'
import { attach, lastFirst, MIB, stamped } from '../support/faults.js'
import { freeze } from '../support/hostile-freeze.js'
import { mountLoopDisk, sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'

test('an export whose thread stands still leaves when it goes on; others come and go meanwhile', {
  skip: needsRoot('mkfs.ext4', 'losetup', 'setpriv', 'fsfreeze'),
}, async (t) => {
  const scope = lastFirst(t)
  const disk = mountLoopDisk(scope, { type: 'ext4', sizeMiB: 64 })
  const image = sparseFile(join(disk.folder, 'disk.img'), 32 * MIB)
  const folder = folderOf(scope)
  const served = await control(scope, folder, { words: [`frozen=${image}`, `a=${imageAt(join(folder, 'a'), MIB)}`] })
  const client = await attach(served.uri('frozen'))
  await client.write(0, stamped(0, 4096))

  const thaw = await freeze(scope, disk.folder)
  const held = client.write(4096, stamped(4096, 4096))
  const isStalled = (summary: { state: string } | undefined) => summary?.state === 'stalled'
  await until('the thread', () => served.summary('frozen'), isStalled)
  const refused = await served.ctl('remove', 'frozen')
  assert.match(refused.stderr, /^candor: export frozen does not answer: its thread waits for its storage/)
  await served.told('add', imageAt(served.path('b'), MIB))
  await served.told('remove', 'a')
  await assert.rejects(attach(served.uri('frozen')), 'nobody is let in any more')
  await (await attach(served.uri('b'))).read(0, 512)

  await thaw()
  await held
  await until(
    'its end',
    () => served.summaries(),
    (all) => all.map(({ name }) => name).join() === 'b',
  )
  const bytes = readFileSync(image).subarray(0, 8192)
  assert.equal(stamped(0, 8192).compare(bytes), 0)
  assert.equal((await served.candor.stop()).code, 0)
})
