// Front-ends other than QEMU's, by the order of what they say. Law: nothing here may be easier than the program itself:
// cloud-hypervisor asks for a reply to everything, and only turns rings off where QEMU asks where they stand; crosvm asks
// for none, and takes the largest rings of virtio.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  bits,
  decodeConfigAccess,
  decodeU64,
  encodeConfigAccess,
  encodeMemoryTable,
  encodeMessage,
  encodeU64,
  encodeVringAddress,
  encodeVringFile,
  encodeVringState,
  VIRTIO_BLK_S_IOERR as IOERR,
  VIRTIO_BLK_S_OK as OK,
  VHOST_USER_CONFIG_OFFSET,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VHOST_USER_GET_CONFIG,
  VHOST_USER_GET_FEATURES,
  VHOST_USER_GET_PROTOCOL_FEATURES,
  VHOST_USER_GET_QUEUE_NUM,
  VHOST_USER_GET_VRING_BASE,
  VHOST_USER_NEED_REPLY_FLAG,
  VHOST_USER_PROTOCOL_F_BACKEND_REQ,
  VHOST_USER_PROTOCOL_F_CONFIG,
  VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
  VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD,
  VHOST_USER_PROTOCOL_F_MQ,
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
  VHOST_USER_SET_BACKEND_REQ_FD,
  VHOST_USER_SET_FEATURES,
  VHOST_USER_SET_MEM_TABLE,
  VHOST_USER_SET_OWNER,
  VHOST_USER_SET_PROTOCOL_FEATURES,
  VHOST_USER_SET_VRING_ADDR,
  VHOST_USER_SET_VRING_BASE,
  VHOST_USER_SET_VRING_CALL,
  VHOST_USER_SET_VRING_ENABLE,
  VHOST_USER_SET_VRING_KICK,
  VHOST_USER_SET_VRING_NUM,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_OUT,
  VIRTIO_F_VERSION_1,
} from 'vhost-user-protocol'
import { lastFirst, MIB, type Scope } from '../support/faults.js'
import type { GuestMemory } from '../support/vhost-guest.js'
import { turnCache } from '../support/vhost-user-cache.js'
import { newChannel } from '../support/vhost-user-channel.js'
import { CACHED, FrontEnd, NEEDED } from '../support/vhost-user-guest.js'
import { GuestMachine } from '../support/vhost-user-machine.js'
import { DISK_BYTES, NOTHING, patternOf, readBack, SECTOR, serveGuests } from '../support/vhost-user-served.js'

const CONFIG_BYTES = 60
/** What cloud-hypervisor calls WRITABLE, and the specification VHOST_SET_CONFIG_TYPE_MIGRATION. */
const FLAGS = 1
const WANTED = bits(
  VHOST_USER_PROTOCOL_F_CONFIG,
  VHOST_USER_PROTOCOL_F_MQ,
  VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
  VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD,
)

/** As far as it gets when its device is made, asking for the configuration at `offset`; the features that a driver may have. */
async function makeDevice(front: FrontEnd, offset: number): Promise<bigint> {
  front.send(encodeMessage(VHOST_USER_SET_OWNER))
  const offered = await front.u64(VHOST_USER_GET_FEATURES)
  const protocol = (await front.u64(VHOST_USER_GET_PROTOCOL_FEATURES)) & WANTED
  assert.equal(protocol, WANTED)
  front.send(encodeMessage(VHOST_USER_SET_PROTOCOL_FEATURES, encodeU64(protocol)))
  const queues = await front.ask(VHOST_USER_GET_QUEUE_NUM, undefined, [], VHOST_USER_NEED_REPLY_FLAG)
  assert.ok((decodeU64(queues.payload) ?? 0n) >= 1n)
  const question = { offset, size: CONFIG_BYTES, flags: FLAGS, data: new Uint8Array(CONFIG_BYTES) }
  const access = encodeConfigAccess(question)
  const config = decodeConfigAccess(
    (await front.ask(VHOST_USER_GET_CONFIG, access, [], VHOST_USER_NEED_REPLY_FLAG)).payload,
  )
  // It takes no answer that names another offset.
  assert.deepEqual([config?.offset, config?.size, config?.flags], [offset, CONFIG_BYTES, FLAGS])
  const capacity = Buffer.from(config?.data ?? []).readBigUInt64LE()
  assert.deepEqual([config?.data.length, capacity], [CONFIG_BYTES, BigInt(DISK_BYTES / SECTOR)])
  return offered
}

/** Memory that was plugged in while the guest ran: a device that is started tells of it with the rest, in one message. */
const PLUGGED_REGIONS = 8
const PLUGGED_BYTES = 2 * MIB
const plugged = ({ region }: GuestMemory) =>
  Array.from({ length: PLUGGED_REGIONS }, (_, index) => {
    const beyond = region.size + BigInt(index * PLUGGED_BYTES)
    const [guestAddress, userAddress] = [region.guestAddress + beyond, region.userAddress + beyond]
    return { ...region, guestAddress, userAddress, size: BigInt(PLUGGED_BYTES) }
  })

/** What it does each time a driver comes up. */
async function activate(front: FrontEnd, features: bigint, base: number): Promise<void> {
  const { ring, kick, call, memory } = front.machine
  const file = encodeVringFile({ index: 0, hasDescriptor: true })
  await front.tell(VHOST_USER_SET_FEATURES, encodeU64(features))
  const regions = [memory.region, ...plugged(memory)]
  const fds = regions.map(({ fd }) => fd)
  await front.tell(VHOST_USER_SET_MEM_TABLE, encodeMemoryTable(regions), fds)
  await front.tell(VHOST_USER_SET_VRING_NUM, encodeVringState({ index: 0, num: ring.size }))
  await front.useLog()
  const { descriptors: descriptor, driver: available, device: used } = ring
  const addresses = { index: 0, flags: 0, descriptor, available, used, log: 0n }
  await front.tell(VHOST_USER_SET_VRING_ADDR, encodeVringAddress(addresses))
  await front.tell(VHOST_USER_SET_VRING_BASE, encodeVringState({ index: 0, num: base }))
  await front.tell(VHOST_USER_SET_VRING_CALL, file, [call])
  await front.tell(VHOST_USER_SET_VRING_KICK, file, [kick])
  await front.tell(VHOST_USER_SET_VRING_ENABLE, encodeVringState({ index: 0, num: 1 }))
}

/** Its versions, by where they look for the configuration: since January 2026 it is where the specification has it. */
const ASKS_AT = { 'before 2026': VHOST_USER_CONFIG_OFFSET, 'since 2026': 0 }

for (const [version, offset] of Object.entries(ASKS_AT)) {
  test(`a guest of cloud-hypervisor ${version} is served, also after it was paused and reset, and turns its write cache off`, (t) =>
    serveCloudHypervisor(lastFirst(t), offset))
}

async function serveCloudHypervisor(scope: Scope, offset: number): Promise<void> {
  const { candor, socket } = await serveGuests(scope, '--inject', 'flush:EIO')
  const machine = new GuestMachine()
  scope.after(() => machine.close())
  const front = await FrontEnd.connect(socket, machine)
  scope.after(() => front.close())
  const features = (await makeDevice(front, offset)) & (NEEDED | CACHED)
  await activate(front, features, 0)
  const [first, second, third] = [1, 2, 3].map((seed) => patternOf(4096, seed)) as [Buffer, Buffer, Buffer]
  assert.equal((await front.do(VIRTIO_BLK_T_OUT, 0, first, 0)).status, OK)
  // Pause and resume.
  for (const num of [0, 1]) await front.tell(VHOST_USER_SET_VRING_ENABLE, encodeVringState({ index: 0, num }))
  assert.equal((await front.do(VIRTIO_BLK_T_OUT, 8, second, 0)).status, OK)
  // A reset, and the next driver: the ring goes on where it stands, which is after two requests.
  await front.tell(VHOST_USER_SET_VRING_ENABLE, encodeVringState({ index: 0, num: 0 }))
  await activate(front, features, 2)
  assert.deepEqual(await readBack(front, 0, 8192), Buffer.concat([first, second]))
  // After a sync that failed nothing can be made durable: a write says so as soon as it has to be.
  assert.equal((await front.do(VIRTIO_BLK_T_FLUSH, 0, NOTHING, 0)).status, IOERR)
  assert.equal((await front.do(VIRTIO_BLK_T_OUT, 16, third, 0)).status, OK)
  // So the cache is not said to be off, and is taken for off all the same.
  assert.equal(await turnCache(front, false, FLAGS), false)
  assert.equal((await front.do(VIRTIO_BLK_T_OUT, 16, third, 0)).status, IOERR)
  await candor.stop()
}

/** What crosvm takes of what is offered. */
const CROSVM_WANTS = bits(VHOST_USER_PROTOCOL_F_MQ, VHOST_USER_PROTOCOL_F_CONFIG, VHOST_USER_PROTOCOL_F_BACKEND_REQ)
const CROSVM_RING_SIZE = 32768

/** As far as crosvm gets when its device is made, and its driver reads the capacity in two halves; the number of rings. */
async function makeCrosvmDevice(front: FrontEnd, channel: number): Promise<number> {
  front.send(encodeMessage(VHOST_USER_SET_OWNER))
  await front.u64(VHOST_USER_GET_FEATURES)
  front.send(encodeMessage(VHOST_USER_SET_FEATURES, encodeU64(bits(VHOST_USER_F_PROTOCOL_FEATURES))))
  const protocol = (await front.u64(VHOST_USER_GET_PROTOCOL_FEATURES)) & CROSVM_WANTS
  assert.equal(protocol, CROSVM_WANTS)
  front.send(encodeMessage(VHOST_USER_SET_PROTOCOL_FEATURES, encodeU64(protocol)))
  front.send(encodeMessage(VHOST_USER_SET_BACKEND_REQ_FD), [channel])
  const rings = Number(await front.u64(VHOST_USER_GET_QUEUE_NUM))
  for (const offset of [0, 4]) {
    const question = encodeConfigAccess({ offset, size: 4, flags: FLAGS, data: new Uint8Array(4) })
    const { payload } = await front.ask(VHOST_USER_GET_CONFIG, question)
    assert.deepEqual([decodeConfigAccess(payload)?.offset, decodeConfigAccess(payload)?.data.length], [offset, 4])
  }
  return rings
}

/** What it does each time a driver comes up: the features in two halves, as the driver writes them. */
function activateCrosvm(front: FrontEnd): void {
  const { ring, kick, call, memory } = front.machine
  const file = encodeVringFile({ index: 0, hasDescriptor: true })
  const low = bits(VHOST_USER_F_PROTOCOL_FEATURES) | CACHED
  for (const features of [low, low | bits(VIRTIO_F_VERSION_1)]) {
    front.send(encodeMessage(VHOST_USER_SET_FEATURES, encodeU64(features)))
  }
  front.send(encodeMessage(VHOST_USER_SET_MEM_TABLE, encodeMemoryTable([memory.region])), [memory.region.fd])
  front.send(encodeMessage(VHOST_USER_SET_VRING_NUM, encodeVringState({ index: 0, num: ring.size })))
  const { descriptors: descriptor, driver: available, device: used } = ring
  const addresses = { index: 0, flags: 0, descriptor, available, used, log: 0n }
  front.send(encodeMessage(VHOST_USER_SET_VRING_ADDR, encodeVringAddress(addresses)))
  front.send(encodeMessage(VHOST_USER_SET_VRING_BASE, encodeVringState({ index: 0, num: 0 })))
  front.send(encodeMessage(VHOST_USER_SET_VRING_CALL, file), [call])
  front.send(encodeMessage(VHOST_USER_SET_VRING_KICK, file), [kick])
  front.send(encodeMessage(VHOST_USER_SET_VRING_ENABLE, encodeVringState({ index: 0, num: 1 })))
}

test('a guest of crosvm is served on a ring of 32,768 entries, also after a reset', async (t) => {
  const scope = lastFirst(t)
  const { candor, socket } = await serveGuests(scope)
  const machine = new GuestMachine(false, CROSVM_RING_SIZE)
  scope.after(() => machine.close())
  const front = await FrontEnd.connect(socket, machine)
  scope.after(() => front.close())
  const { fd } = await newChannel(scope)
  const rings = await makeCrosvmDevice(front, fd)
  activateCrosvm(front)
  const data = patternOf(4096, 1)
  assert.equal((await front.do(VIRTIO_BLK_T_OUT, 8, data, 0)).status, OK)
  // A reset is of every ring that it was told of, whether a driver used it or not.
  for (let index = 0; index < rings; index++) {
    front.send(encodeMessage(VHOST_USER_SET_VRING_ENABLE, encodeVringState({ index, num: 0 })))
    await front.ask(VHOST_USER_GET_VRING_BASE, encodeVringState({ index, num: 0 }))
  }
  machine.beginAnew()
  activateCrosvm(front)
  assert.deepEqual(await readBack(front, 8, 4096), data)
  await candor.stop()
})
