// What an operator asks of an export while something else happens to it. Law: nothing that happened meanwhile is undone, and
// what has become impossible meanwhile is refused.
import assert from 'node:assert/strict'
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { openBackend } from '../../backends/index.js'
import { exportsOf } from '../../server/config-exports.js'
import type { ControlReply, ControlRequest } from '../../server/control/export-actions.js'
import { resizeExport } from '../../server/control/export-resize.js'
import { Access } from '../../server/exports/access.js'
import { Export } from '../../server/exports/export.js'
import { ExportDirectory } from '../../server/io/directory.js'
import { ExportDesk } from '../../server/io/export-desk.js'
import { ExportHost } from '../../server/io/export-host.js'
import { DEFAULT_LIMITS } from '../../server/limits.js'
import { NbdServer } from '../../server/nbd/server.js'
import { serverCounters } from '../../server/observe/counters.js'
import { Log } from '../../server/observe/log.js'
import { folderOf, imageAt } from '../support/controlled.js'
import { lastFirst, MIB } from '../support/faults.js'

/** An image that somebody makes longer whenever an operator asks something. */
class GrowingHost extends ExportHost {
  grow = () => {}

  override async ask(request: ControlRequest): Promise<ControlReply> {
    this.grow()
    return super.ask(request)
  }
}

test('an export that grows, or is being removed, while it gets another policy stays so', async (t) => {
  const log = new Log(() => {})
  const [directory, limits] = [new ExportDirectory(), DEFAULT_LIMITS]
  const events = new NbdServer({ directory, counters: serverCounters(), limits, log })
  const host = new GrowingHost({ limits, stateDirectory: undefined, log, events })
  const { shutdownTimeoutMs } = limits
  const bounds = { workersMax: 1, keepsRecords: false, shutdownTimeoutMs }
  const desk = new ExportDesk({ directory, log, makeHost: () => host, changed: () => {}, ...bounds })
  const image = imageAt(join(folderOf(lastFirst(t)), 'disk'), MIB)
  const [config] = exportsOf({ images: [`disk=${image}`] })
  assert.ok(config !== undefined)
  await desk.add(config)
  t.after(() => host.close())
  const entry = directory.find('disk')
  assert.ok(entry !== undefined)
  host.grow = () => events.exportResized('disk', 2 * MIB)
  assert.equal((await desk.set(entry, { reserve: 512 })).ok, true)
  const { face, config: now, access } = directory.find('disk') ?? {}
  assert.deepEqual([face?.size, now?.reserve], [2 * MIB, 512])
  assert.ok(access instanceof Access)
  host.grow = () => directory.remove('disk')
  assert.equal((await desk.set(entry, { reserve: 0 })).ok, true)
  assert.equal(directory.holds('disk'), false)
})

test('a disk that is released while its cut waits for the storage is not cut', async (t) => {
  const path = imageAt(join(folderOf(lastFirst(t)), 'disk'), 2 * MIB)
  const backend = await openBackend('sparse-file', { path, readOnly: false })
  t.after(() => backend.close())
  const entry = new Export({ name: 'disk', backend, witness: new Log(() => {}) })
  const idle = async () => {
    await entry.recess.begin()
    return true
  }
  const reply = await resizeExport(entry, MIB, { force: false, connections: () => [], idle })
  assert.deepEqual(reply, { ok: false, error: "export disk is released: resize it after 'candor ctl resume'" })
  await entry.recess.end()
  assert.deepEqual([entry.size, statSync(path).size], [2 * MIB, 2 * MIB])
})
