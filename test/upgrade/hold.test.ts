// Writes that wait for space while their server is replaced. Law: they go on waiting, in their order and for what is left of
// their time, and each is answered once.
import assert from 'node:assert/strict'
import { unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { NBD_ENOSPC } from 'nbd-protocol'
import { until } from '../support/controlled.js'
import { attach, KIB, lastFirst, MIB, refused, stamped } from '../support/faults.js'
import { leaveFree } from '../support/guest-scenario.js'
import { startLineage } from '../support/lineage.js'
import { mountLoopDisk, sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'

const skip = needsRoot('mkfs.ext4', 'losetup', 'setpriv', 'fallocate')

async function fullHost(t: TestContext, policy: string) {
  const scope = lastFirst(t)
  const disk = mountLoopDisk(scope, { type: 'ext4', sizeMiB: 64 })
  const image = sparseFile(join(disk.folder, 'disk'), 128 * MIB)
  const server = await startLineage(scope, () => [`disk=${image}`, '--on-enospc', policy])
  const client = await attach(server.candor)
  await client.write(0, stamped(0, MIB))
  await client.flush()
  const filler = leaveFree(disk, 0)
  return { server, client, filler }
}

test('held writes, and those that wait behind them, are answered once and in their order when there is space', {
  skip,
}, async (t) => {
  const { server, client, filler } = await fullHost(t, 'hold')
  const other = await attach(server.candor)
  const first = client.write(8 * MIB, stamped(8 * MIB, MIB, 1))
  await until(
    'held',
    () => server.summary('disk'),
    (summary) => (summary?.held ?? 0) > 0,
  )
  const second = other.write(8.5 * MIB, stamped(8.5 * MIB, MIB / 4, 2))
  const third = (await attach(server.candor)).write(32 * MIB, stamped(32 * MIB, MIB, 3))
  const before = await until(
    'held',
    () => server.summary('disk'),
    (summary) => summary?.held === 2,
  )
  for (let upgrade = 0; upgrade < 2; upgrade++) {
    await server.upgrade()
    const after = await until(
      'held',
      () => server.summary('disk'),
      (summary) => summary?.held === 2,
    )
    assert.equal(after?.heldSince, before?.heldSince)
    assert.ok(stamped(0, MIB, upgrade).equals(await client.read(0, MIB)), 'reads go on')
    await client.write(0, stamped(0, MIB, upgrade + 1))
  }
  unlinkSync(filler)
  await Promise.all([first, second, third])
  const reader = await attach(server.candor)
  assert.ok(stamped(8 * MIB, MIB / 2, 1).equals(await reader.read(8 * MIB, MIB / 2)))
  assert.ok(stamped(8.5 * MIB, MIB / 4, 2).equals(await reader.read(8.5 * MIB, MIB / 4)), 'the later write came later')
  assert.ok(stamped(32 * MIB, MIB, 3).equals(await reader.read(32 * MIB, MIB)))
  assert.equal((await server.stop()).code, 0)
})

test('a held write whose time is up in the new process gets ENOSPC there, and the other process had not answered', {
  skip,
}, async (t) => {
  const { server, client } = await fullHost(t, 'hold=8s')
  const began = performance.now()
  const held = refused(client.write(8 * MIB, stamped(8 * MIB, 4 * MIB)), NBD_ENOSPC)
  await until(
    'held',
    () => server.summary('disk'),
    (summary) => summary?.held === 1,
  )
  await server.upgrade()
  await held
  const tookMs = performance.now() - began
  // Had its time begun anew, the upgrade's own would have been added.
  t.diagnostic(`answered after ${Math.round(tookMs)} ms`)
  await client.write(0, stamped(0, 4 * KIB, 9))
  assert.equal((await server.stop()).code, 0)
})
