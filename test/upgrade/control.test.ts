// What an operator has changed before an upgrade is so after it: added exports, longer disks, folders, leases, policies.
import assert from 'node:assert/strict'
import { mkdirSync, rmSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { imageAt, until } from '../support/controlled.js'
import { assertHolds, attach, lastFirst, MIB, stamped } from '../support/faults.js'
import { startLineage } from '../support/lineage.js'

test('added exports, longer disks, folders and leases are where they were after an upgrade', async (t) => {
  const old = (path: string) => utimesSync(imageAt(path, MIB), 1, 1)
  const server = await startLineage(lastFirst(t), (folder) => {
    mkdirSync(join(folder, 'images'))
    old(join(folder, 'images', 'one'))
    return ['--dir', join(folder, 'images'), '--writers', '1', `disk=${imageAt(join(folder, 'disk'), 4 * MIB)}`]
  })
  await server.told('add', `own=${imageAt(server.path('own'), MIB)}`, '--on-enospc', 'hold=1m')
  const writer = await attach(server.uri('disk'))
  await server.told('resize', 'disk', '200M')
  await server.told('set', 'disk', '--suspect-reads', 'allow')
  await server.upgrade()

  await assert.rejects(attach(server.uri('disk')), /--writers 1/)
  await writer.write(0, stamped(0, MIB))
  await writer.disconnect()
  await until(
    'the sessions',
    () => server.sessions(),
    (sessions) => sessions.length === 0,
  )
  const next = await attach(server.uri('disk'))
  assert.equal(next.size, 200 * MIB)
  await assertHolds(next, 0, MIB)
  await next.write(150 * MIB, stamped(150 * MIB, MIB))
  await next.flush()
  assert.equal((await server.summary('disk'))?.suspectReads, 'allow')
  assert.equal((await server.summary('own'))?.onEnospc, 'hold=60s')

  rmSync(join(server.folder, 'images', 'one'))
  old(join(server.folder, 'images', 'two'))
  const names = async () => (await server.summaries()).map(({ name }) => name).sort()
  await until('the names', names, (found) => found.join() === 'disk,own,two')
  assert.equal((await server.stop()).code, 0)
})
