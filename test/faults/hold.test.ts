// Writes that are held on a real file system that is full, until it is made larger: the client notices nothing.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { assertHolds, attach, command, errorsCounted, lastFirst, MIB, serve, stamped } from '../support/faults.js'
import { mountLoopDisk, sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'

const DISK_MIB = 320
const WRITTEN_MIB = 400
const IN_FLIGHT = 16
const HELD = 'candor_requests_held{export="disk"}'

test('writes beyond a full file system wait, reads and overwrites go on, and all succeed when it is enlarged', {
  skip: needsRoot('mkfs.xfs', 'losetup', 'setpriv'),
}, async (t) => {
  const scope = lastFirst(t)
  const disk = mountLoopDisk(scope, { type: 'xfs', sizeMiB: DISK_MIB })
  const image = sparseFile(join(disk.folder, 'disk.img'), 1024 * MIB)
  const candor = await serve(scope, [`disk=${image}`, '--on-enospc', 'hold=5m'])
  const client = await attach(candor)
  let next = 0
  const writer = async () => {
    for (let at = next++; at < WRITTEN_MIB; at = next++) await client.write(at * MIB, stamped(at * MIB, MIB))
  }
  const writers = Array.from({ length: IN_FLIGHT }, writer)
  while (((await candor.metrics()).get(HELD) ?? 0) < IN_FLIGHT) {}

  await assertHolds(client, 0, 16 * MIB)
  await client.write(0, stamped(0, MIB, 1))
  await client.flush()
  assert.ok(next < WRITTEN_MIB, 'the file system is full before everything is written')
  disk.grow(DISK_MIB * 3)
  await Promise.all(writers)
  await client.flush()
  await assertHolds(client, 0, MIB, 1)
  await assertHolds(client, MIB, (WRITTEN_MIB - 1) * MIB)
  assert.equal(await errorsCounted(candor, { export: 'disk', command: 'write', errno: 'ENOSPC' }), 0)
  assert.equal((await candor.metrics()).get(HELD), 0)
  assert.equal((await candor.stop()).code, 0)
})

test('SIGTERM ends what is held with ESHUTDOWN, and the server leaves clean', {
  skip: needsRoot('mkfs.xfs', 'losetup', 'setpriv'),
}, async (t) => {
  const scope = lastFirst(t)
  const disk = mountLoopDisk(scope, { type: 'xfs', sizeMiB: DISK_MIB })
  const image = sparseFile(join(disk.folder, 'disk.img'), 1024 * MIB)
  const candor = await serve(scope, [`disk=${image}`, '--on-enospc', 'hold'])
  const client = await attach(candor)
  const answers = Array.from({ length: WRITTEN_MIB }, (_, at) =>
    client.write(at * MIB, stamped(at * MIB, MIB)).then(
      () => 'done',
      (error: Error) => error.message,
    ),
  )
  while (((await candor.metrics()).get(HELD) ?? 0) === 0) {}
  const { code } = await candor.stop()
  const told = new Set(await Promise.all(answers))
  assert.equal(code, 0)
  assert.ok(told.has('done'))
  assert.ok([...told].some((answer) => answer.includes('NBD_ESHUTDOWN')))
  assert.ok(![...told].some((answer) => answer.includes('NBD_ENOSPC')))
})

test('a policy that is none is refused in a sentence', async () => {
  const end = await command(['serve', 'x.img', '--on-enospc', 'wait'])
  assert.equal(end.code, 1)
  assert.match(end.stderr, /^candor: --on-enospc is 'wait': write report, hold or hold=10m\n$/)
})
