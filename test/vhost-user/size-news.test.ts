// What a front-end is told of a disk that has another size than it knows, and when.
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import {
  decodeConfigAccess,
  encodeConfigAccess,
  encodeMessage,
  VHOST_USER_BACKEND_CONFIG_CHANGE_MSG,
  VHOST_USER_GET_CONFIG,
  VHOST_USER_SET_BACKEND_REQ_FD,
} from 'vhost-user-protocol'
import { SizeNews } from '../../server/vhost-user/size-news.js'
import { command, lastFirst, MIB } from '../support/faults.js'
import { newChannel } from '../support/vhost-user-channel.js'
import { CACHED, FrontEnd } from '../support/vhost-user-guest.js'
import { GuestMachine } from '../support/vhost-user-machine.js'
import { DISK_BYTES, SECTOR, serveGuests } from '../support/vhost-user-served.js'

const CONFIG_BYTES = 60
const QUIET_MS = 500

/** The whole configuration is asked for, as QEMU does it. Sectors. */
async function capacityOf(front: FrontEnd): Promise<number> {
  const question = { offset: 0, size: CONFIG_BYTES, flags: 0, data: new Uint8Array(CONFIG_BYTES) }
  const { payload } = await front.ask(VHOST_USER_GET_CONFIG, encodeConfigAccess(question))
  return Number(Buffer.from(decodeConfigAccess(payload)?.data ?? []).readBigUInt64LE())
}

test('a monitor that was not told, or not there, hears of another size when its device is started', async (t) => {
  const scope = lastFirst(t)
  const { socket, stateDirectory } = await serveGuests(scope)
  const resize = async (size: string) => {
    const { code, stderr } = await command(['ctl', 'resize', 'disk', size, '--state-dir', stateDirectory])
    assert.equal(code, 0, stderr)
  }
  const machine = new GuestMachine()
  scope.after(() => machine.close())
  const front = await FrontEnd.connect(socket, machine)
  scope.after(() => front.close())
  const { channel, fd } = await newChannel(scope)
  const isTold = async () => assert.equal((await channel.heard())?.request, VHOST_USER_BACKEND_CONFIG_CHANGE_MSG)
  await front.agree(CACHED)
  front.send(encodeMessage(VHOST_USER_SET_BACKEND_REQ_FD), [fd])
  // It came again, and asks nothing.
  await front.startRing(0)
  await isTold()
  assert.equal(await capacityOf(front), DISK_BYTES / SECTOR)
  const base = await front.stopRing()
  await resize('128M')
  await front.startRing(base)
  await isTold()
  assert.equal(await capacityOf(front), (128 * MIB) / SECTOR)
  await resize('192M')
  await isTold()
  assert.deepEqual(channel.heardNow(), [])
})

function sceneOf(t: TestContext) {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const device = { size: 2, sizeTold: 1 }
  const scene = { device, started: true, busy: false, told: 0 }
  const tell = () => {
    scene.told += 1
  }
  return { scene, news: new SizeNews({ device, isStarted: () => scene.started, isBusy: () => scene.busy, tell }) }
}

test('a front-end is told when it has been silent for a while: not amid what it says, and not after its end', (t) => {
  const { scene, news } = sceneOf(t)
  news.due()
  for (let message = 0; message < 5; message++) {
    t.mock.timers.tick(QUIET_MS - 1)
    news.heard()
  }
  assert.equal(scene.told, 0)
  t.mock.timers.tick(QUIET_MS)
  assert.equal(scene.told, 1)
  news.heard()
  t.mock.timers.tick(10 * QUIET_MS)
  assert.equal(scene.told, 1)
  news.due()
  news.end()
  t.mock.timers.tick(QUIET_MS)
  assert.equal(scene.told, 1)
})

test('a front-end that waits for an answer is told when it has had it, and was silent for a while', (t) => {
  const { scene, news } = sceneOf(t)
  scene.busy = true
  news.due()
  t.mock.timers.tick(10 * QUIET_MS + 1)
  assert.equal(scene.told, 0)
  scene.busy = false
  t.mock.timers.tick(QUIET_MS)
  assert.equal(scene.told, 1)
})

test('a front-end whose device is not started, or that knows the size, is told nothing', (t) => {
  const { scene, news } = sceneOf(t)
  scene.started = false
  news.due()
  t.mock.timers.tick(QUIET_MS)
  scene.started = true
  scene.device.sizeTold = scene.device.size
  news.due()
  t.mock.timers.tick(QUIET_MS)
  assert.equal(scene.told, 0)
})
