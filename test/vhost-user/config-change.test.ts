// What a front-end is told of a disk that has another size than it knows. Law under test: it hears of it when a ring starts,
// since before that it may not listen, or was not there.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  decodeConfigAccess,
  encodeConfigAccess,
  encodeMessage,
  VHOST_USER_BACKEND_CONFIG_CHANGE_MSG,
  VHOST_USER_GET_CONFIG,
  VHOST_USER_GET_FEATURES,
  VHOST_USER_SET_BACKEND_REQ_FD,
} from 'vhost-user-protocol'
import { command, lastFirst, MIB, type Scope } from '../support/faults.js'
import { newChannel } from '../support/vhost-user-channel.js'
import type { Conversation } from '../support/vhost-user-conversation.js'
import { CACHED, FrontEnd } from '../support/vhost-user-guest.js'
import { GuestMachine } from '../support/vhost-user-machine.js'
import { DISK_BYTES, SECTOR, serveGuests } from '../support/vhost-user-served.js'

const CONFIG_BYTES = 60

async function frontEndThatListens(scope: Scope, socket: string, machine: GuestMachine) {
  const front = await FrontEnd.connect(socket, machine)
  scope.after(() => front.close())
  const { channel, fd } = await newChannel(scope)
  await front.agree(CACHED)
  front.send(encodeMessage(VHOST_USER_SET_BACKEND_REQ_FD), [fd])
  return { front, channel }
}

/** The whole configuration is asked for, as QEMU does it. Sectors. */
async function capacityOf(front: FrontEnd): Promise<number> {
  const question = { offset: 0, size: CONFIG_BYTES, flags: 0, data: new Uint8Array(CONFIG_BYTES) }
  const { payload } = await front.ask(VHOST_USER_GET_CONFIG, encodeConfigAccess(question))
  return Number(Buffer.from(decodeConfigAccess(payload)?.data ?? []).readBigUInt64LE())
}

/** How many messages came by the channel until an answer came by the session, which was sent later. */
async function changesTold(front: FrontEnd, channel: Conversation): Promise<number> {
  await front.u64(VHOST_USER_GET_FEATURES)
  await front.u64(VHOST_USER_GET_FEATURES)
  const told = channel.heardNow()
  for (const { request } of told) assert.equal(request, VHOST_USER_BACKEND_CONFIG_CHANGE_MSG)
  return told.length
}

test('a monitor is told of another size when a ring starts, and only then', async (t) => {
  const scope = lastFirst(t)
  const { socket, stateDirectory } = await serveGuests(scope)
  const machine = new GuestMachine()
  scope.after(() => machine.close())
  const { front, channel } = await frontEndThatListens(scope, socket, machine)
  assert.equal(await capacityOf(front), DISK_BYTES / SECTOR)
  await front.startRing(0)
  assert.equal(await changesTold(front, channel), 0)
  const base = await front.stopRing()
  const resized = await command(['ctl', 'resize', 'disk', '128M', '--state-dir', stateDirectory])
  assert.equal(resized.code, 0, resized.stderr)
  assert.equal(await changesTold(front, channel), 1)
  // A device that is not started makes nothing of that.
  await front.startRing(base)
  assert.equal(await changesTold(front, channel), 1)
  assert.equal(await capacityOf(front), (128 * MIB) / SECTOR)
  await front.startRing(await front.stopRing())
  assert.equal(await changesTold(front, channel), 0)
})

test('a monitor that comes again, and asks nothing, is told when its ring starts', async (t) => {
  const scope = lastFirst(t)
  const { socket } = await serveGuests(scope)
  const machine = new GuestMachine()
  scope.after(() => machine.close())
  const { front, channel } = await frontEndThatListens(scope, socket, machine)
  assert.equal(await changesTold(front, channel), 0)
  await front.startRing(0)
  assert.equal(await changesTold(front, channel), 1)
})
