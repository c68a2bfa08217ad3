// Write-back that fails around an upgrade. Law: the kernel tells of it once for each open file description, so whichever
// process is told, what was lost is suspect in the one that serves.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NBD_EIO, NBD_ENOSPC } from 'nbd-protocol'
import { until } from '../support/controlled.js'
import { attach, exportState, lastFirst, MIB, refused } from '../support/faults.js'
import { startLineage } from '../support/lineage.js'
import { needsRoot } from '../support/requirements.js'
import { mountThinStack, readBack, THIN_STACK_NEEDS, writeBack, writeStamped } from '../support/thin-stack.js'

const SAFE = 16 * MIB
const LOST = 24 * MIB

test('write-back that failed before a new process took over, and was told to nobody, is known to the new one', {
  skip: needsRoot(...THIN_STACK_NEEDS),
}, async (t) => {
  const scope = lastFirst(t)
  const stack = mountThinStack(scope)
  const image = stack.provision('disk', 64 * MIB)
  const server = await startLineage(scope, () => [`disk=${image}`])
  const client = await attach(server.candor)
  await writeStamped(client, 0, SAFE)
  await client.flush()
  stack.exhaust()
  await writeStamped(client, SAFE, SAFE + LOST)
  const upgraded = server.upgrade()
  while (!/upgrade: the new process is prepared/.test(server.candor.stderr()))
    await new Promise((next) => setImmediate(next))
  // Somebody else's sync is told of the failure first; each of the server's descriptions is told on its own.
  writeBack(stack)
  await upgraded
  await until(
    'degraded',
    () => exportState(server.candor, 'disk'),
    (state) => state === 'degraded',
  )
  assert.equal((await server.summary('disk'))?.suspectBytes, LOST)
  const { right, refused: lost, wrong } = await readBack(client, 0, SAFE + LOST)
  assert.deepEqual([right.length * MIB, lost.length * MIB, wrong], [SAFE, LOST, []])
  await refused(client.flush(), NBD_ENOSPC)
  await server.upgrade()
  await refused(client.read(SAFE, 4096), NBD_EIO)
  assert.equal((await server.summary('disk'))?.suspectBytes, LOST)
})
