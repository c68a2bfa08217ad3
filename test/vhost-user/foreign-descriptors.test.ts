// Descriptors that a front-end hands over and that are not what they should be. Law under test: nobody waits for what is
// behind them, and no error of theirs is ours.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { closeSync, openSync, writeSync } from 'node:fs'
import { test } from 'node:test'
import {
  encodeInflightArea,
  encodeMemoryTable,
  encodeMessage,
  encodeU64,
  encodeVringFile,
  VHOST_USER_GET_FEATURES,
  VHOST_USER_GET_PROTOCOL_FEATURES,
  VHOST_USER_SET_FEATURES,
  VHOST_USER_SET_INFLIGHT_FD,
  VHOST_USER_SET_MEM_TABLE,
  VHOST_USER_SET_PROTOCOL_FEATURES,
  VHOST_USER_SET_VRING_KICK,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_T_IN,
} from 'vhost-user-protocol'
import { attach, lastFirst } from '../support/faults.js'
import { mountFuse, needsFuse } from '../support/fuse-disk.js'
import { needs } from '../support/requirements.js'
import { Conversation, socketTo } from '../support/vhost-user-conversation.js'
import { NOTHING, newGuest, patternOf, serveGuests, until } from '../support/vhost-user-served.js'

/** A server that hangs fails its test instead of hanging it. */
const WATCHDOG_MS = 60_000

/** The session of a front-end that says this, as far as it gets, ends. */
async function endsWith(socket: string, said: Uint8Array, descriptor: number): Promise<void> {
  const front = new Conversation(await socketTo(socket))
  const offered = await front.u64(VHOST_USER_GET_PROTOCOL_FEATURES)
  front.send(encodeMessage(VHOST_USER_SET_PROTOCOL_FEATURES, encodeU64(offered)))
  front.send(encodeMessage(VHOST_USER_SET_FEATURES, encodeU64(await front.u64(VHOST_USER_GET_FEATURES))))
  front.send(said, [descriptor])
  await front.untilEnded()
  front.close()
}

test('a file of a FUSE file system that hangs, or is gone, ends the session that brings it and delays nobody', {
  skip: needsFuse(),
  timeout: WATCHDOG_MS,
}, async (t) => {
  const scope = lastFirst(t)
  const { candor, socket } = await serveGuests(scope)
  const fuse = await mountFuse(scope, 1)
  const client = await attach(candor)
  const descriptor = openSync(fuse.image, 'r+')
  const region = { guestAddress: 0n, size: 4096n, userAddress: 0n, offset: 0n }
  const area = { size: 4096n, offset: 0n, queues: 1, queueSize: 128 }
  const said = [
    encodeMessage(VHOST_USER_GET_FEATURES),
    encodeMessage(VHOST_USER_SET_MEM_TABLE, encodeMemoryTable([region])),
    encodeMessage(VHOST_USER_SET_INFLIGHT_FD, encodeInflightArea(area)),
  ]
  const kick = encodeMessage(VHOST_USER_SET_VRING_KICK, encodeVringFile({ index: 0, hasDescriptor: true }))
  const ended = async () => {
    for (const bytes of said) await endsWith(socket, bytes, descriptor)
    const running = await newGuest(scope, socket)
    running.send(kick, [descriptor])
    await running.untilEnded()
    await client.write(0, patternOf(4096, 1))
  }
  fuse.stop()
  await ended()
  await fuse.die()
  await ended()
  assert.throws(() => closeSync(descriptor), /ENOTCONN/)
  await client.disconnect()
})

/** fcntl(2) on the open file description, which the server shares. */
function makeBlocking(descriptor: number): void {
  const program = 'import fcntl; fcntl.fcntl(3, fcntl.F_SETFL, 0)'
  const { status, stderr } = spawnSync('python3', ['-c', program], { stdio: ['ignore', 'ignore', 'pipe', descriptor] })
  assert.equal(status, 0, String(stderr))
}

test('a call that its front-end fills and sets to block delays nobody', {
  skip: needs('python3'),
  timeout: WATCHDOG_MS,
}, async (t) => {
  const scope = lastFirst(t)
  const { candor, socket } = await serveGuests(scope)
  const client = await attach(candor)
  const front = await newGuest(scope, socket)
  const id = front.submit(VIRTIO_BLK_T_IN, 0, NOTHING, 512)
  assert.equal((await front.answer(id)).status, VIRTIO_BLK_S_OK)
  // One or two below what an eventfd can count: whoever adds more waits until somebody reads.
  writeSync(front.machine.call, BigUint64Array.of(2n ** 64n - 3n))
  makeBlocking(front.machine.call)
  for (let request = 0; request < 3; request++) {
    front.submit(VIRTIO_BLK_T_IN, 0, NOTHING, 512)
    await until(async () => front.machine.ring.used().length === 1)
  }
  await client.write(0, patternOf(4096, 1))
  front.close()
  await client.disconnect()
})
