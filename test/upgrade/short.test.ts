// Descriptors that run out in the middle of an upgrade. Law: it is called off with the reason, and whoever is connected is
// served on.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, openSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { openBackend } from '../../backends/index.js'
import { openFilesMax } from '../../server/descriptor-room.js'
import { CANDOR_MAIN } from '../support/candor.js'
import { imageAt } from '../support/controlled.js'
import { assertHolds, attach, KIB, lastFirst, MIB, stamped } from '../support/faults.js'
import { serveInProcess } from '../support/in-process.js'
import { startLineage } from '../support/lineage.js'
import { needs } from '../support/requirements.js'

/** Until the result is called, this process cannot open anything. */
function exhaustDescriptors(): () => void {
  const limit = (soft: number | string) => execFileSync('prlimit', ['--pid', String(process.pid), `--nofile=${soft}:`])
  const before = openFilesMax()
  limit(readdirSync('/proc/self/fd').length + 20)
  const opened: number[] = []
  try {
    for (;;) opened.push(openSync('/dev/null', 'r'))
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'EMFILE')
  }
  return () => {
    for (const fd of opened) closeSync(fd)
    limit(Number.isFinite(before) ? before : 'unlimited')
  }
}

test('a thread that cannot take its connections out for want of descriptors says so, and serves them on', {
  skip: needs('prlimit'),
}, async (t) => {
  const scope = lastFirst(t)
  const served = await serveInProcess(await openBackend('memory', { size: MIB }))
  scope.after(() => served.close())
  const clients = [await served.client(), await served.client()]
  await clients[0]?.write(0, stamped(0, 4 * KIB))
  const restore = exhaustDescriptors()
  const frozen = await served.host.freeze(1000).finally(restore)
  assert.equal(frozen.kind, 'short')
  await served.host.goOn()
  for (const client of clients) await assertHolds(client, 0, 4 * KIB)
  assert.equal((await served.host.freeze(1000)).kind, 'frozen')
  await served.host.goOn()
  for (const client of clients) await assertHolds(client, 0, 4 * KIB)
})

test('an operator hears that the new process may not open as many files as are handed over', {
  skip: needs('prlimit'),
}, async (t) => {
  const scope = lastFirst(t)
  let program = ''
  const server = await startLineage(
    scope,
    (folder) => {
      program = join(folder, 'candor.mjs')
      symlinkSync(CANDOR_MAIN, program)
      return [`disk=${imageAt(join(folder, 'disk'), 8 * MIB)}`]
    },
    { wrapper: (folder) => ['sh', '-c', 'node="$1"; shift 2; exec "$node" "$0" "$@"', join(folder, 'candor.mjs')] },
  )
  const clients = await Promise.all(Array.from({ length: 100 }, () => attach(server.candor)))
  await clients[0]?.write(0, stamped(0, 4 * KIB))
  rmSync(program)
  writeFileSync(
    program,
    `import { execFileSync } from 'node:child_process'
    execFileSync('prlimit', ['--pid', String(process.pid), '--nofile=90:90'])
    await import(${JSON.stringify(CANDOR_MAIN)})`,
  )
  assert.match(await server.refused(), /the new process may not open as many files as are handed over: raise the limit/)
  for (const client of clients) await assertHolds(client, 0, 4 * KIB)
  assert.equal((await server.stop()).code, 0)
})
