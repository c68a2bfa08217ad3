// A server that is replaced while a guest is attached: it is asked twice whether that is meant, and the guest that comes again
// finds what it had in flight.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { VIRTIO_BLK_S_OK, VIRTIO_BLK_T_OUT } from 'vhost-user-protocol'
import { imageAt } from '../support/controlled.js'
import { lastFirst, MIB } from '../support/faults.js'
import { startLineage, untilGone } from '../support/lineage.js'
import { attachGuest, CACHED } from '../support/vhost-user-guest.js'
import { GuestMachine } from '../support/vhost-user-machine.js'
import { patternOf, readBack, until } from '../support/vhost-user-served.js'

test('an upgrade is refused while a guest is attached, and with --force the guest comes again to the new process', async (t) => {
  const scope = lastFirst(t)
  const server = await startLineage(scope, (folder) => [
    `disk=${imageAt(join(folder, 'disk'), 64 * MIB)}`,
    ...['--listen', `vhost-user:${join(folder, 'guest')}`, '--listen', 'tcp:127.0.0.1:0'],
    ...['--inject', 'write:ENOSPC@1M-2M', '--on-enospc', 'hold=5m'],
  ])
  const socket = join(server.folder, 'guest')
  const machine = new GuestMachine()
  scope.after(() => machine.close())
  const before = await attachGuest(socket, machine, CACHED)
  assert.equal((await before.do(VIRTIO_BLK_T_OUT, 0, patternOf(4096, 1), 0)).status, VIRTIO_BLK_S_OK)
  const held = before.submit(VIRTIO_BLK_T_OUT, 2048, patternOf(4096, 2), 0)
  const name = 'candor_requests_held{export="disk"}'
  await until(async () => (await server.candor.metrics()).get(name) === 1)
  assert.match(await server.refused(), /1 guests are attached by vhost-user.*--force/)
  assert.equal((await before.do(VIRTIO_BLK_T_OUT, 8, patternOf(4096, 3), 0)).status, VIRTIO_BLK_S_OK)
  const old = server.pid
  const reply = await server.ask({ command: 'upgrade', flags: { force: true } })
  assert.ok(reply.ok, JSON.stringify(reply))
  await untilGone(old)
  await before.untilEnded()
  const released = await server.ask({ command: 'inject', name: 'disk', words: ['off'] })
  assert.ok(released.ok, JSON.stringify(released))
  const after = await attachGuest(socket, machine, CACHED)
  scope.after(() => after.close())
  after.inherit(before)
  assert.equal((await after.answer(held)).status, VIRTIO_BLK_S_OK)
  for (const [sector, seed] of [
    [0, 1],
    [2048, 2],
    [8, 3],
  ] as const) {
    assert.ok((await readBack(after, sector, 4096)).equals(patternOf(4096, seed)))
  }
})
