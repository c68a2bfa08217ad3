// Front-ends and guests that break a rule, at the real program: their session ends, and nothing else.
import assert from 'node:assert/strict'
import { closeSync, fstatSync, openSync, readFileSync, readlinkSync } from 'node:fs'
import { test } from 'node:test'
import {
  bits,
  decodeU64,
  encodeInflightArea,
  encodeMessage,
  encodeU64,
  encodeVringAddress,
  encodeVringFile,
  VHOST_USER_GET_INFLIGHT_FD,
  VHOST_USER_NEED_REPLY_FLAG,
  VHOST_USER_PROTOCOL_F_BACKEND_REQ,
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
  VHOST_USER_PROTOCOL_F_RESET_DEVICE,
  VHOST_USER_RESET_DEVICE,
  VHOST_USER_SET_BACKEND_REQ_FD,
  VHOST_USER_SET_OWNER,
  VHOST_USER_SET_PROTOCOL_FEATURES,
  VHOST_USER_SET_VRING_ADDR,
  VHOST_USER_SET_VRING_KICK,
  VIRTIO_BLK_F_FLUSH,
} from 'vhost-user-protocol'
import { FdSocket, openBackend, socketPair } from '../../backends/index.js'
import { attach, lastFirst, MIB } from '../support/faults.js'
import { serveInProcess } from '../support/in-process.js'
import { Conversation, socketTo } from '../support/vhost-user-conversation.js'
import { attachGuest, CACHED, FrontEnd } from '../support/vhost-user-guest.js'
import { GuestMachine } from '../support/vhost-user-machine.js'
import { newGuest, patternOf, readBack, serveGuests } from '../support/vhost-user-served.js'

/** A header and a u64. */
const ANSWER_BYTES = 20

test('a front-end that hands over what is no socket for the requests of the back-end, or its own socket, ends its session', async (t) => {
  const scope = lastFirst(t)
  const { candor, socket } = await serveGuests(scope)
  for (const name of ['/dev/null', '/proc/self/status', 'its own']) {
    const own = await socketTo(socket)
    const front = new Conversation(own)
    front.send(encodeMessage(VHOST_USER_SET_OWNER))
    front.send(encodeMessage(VHOST_USER_SET_PROTOCOL_FEATURES, encodeU64(bits(VHOST_USER_PROTOCOL_F_BACKEND_REQ))))
    const descriptor = name === 'its own' ? own : openSync(name, 'r')
    front.send(encodeMessage(VHOST_USER_SET_BACKEND_REQ_FD), [descriptor])
    await front.untilEnded()
    if (descriptor !== own) closeSync(descriptor)
    front.close()
  }
  const metrics = await candor.metrics()
  assert.equal(metrics.get('candor_protocol_errors_total{reason="vhost-user-message"}'), 3)
  await (await attach(candor)).disconnect()
})

test('a front-end that breaks the protocol, or a guest that breaks its ring, ends its own session and nothing else', async (t) => {
  const scope = lastFirst(t)
  const { candor, image, socket } = await serveGuests(scope)
  const client = await attach(candor)
  const speakers = [
    encodeMessage(99),
    encodeMessage(2, encodeU64(bits(63))),
    new Uint8Array(64).fill(0xff),
    encodeMessage(5, new Uint8Array(8), VHOST_USER_NEED_REPLY_FLAG),
    encodeMessage(12, encodeU64(0n)),
  ]
  for (const said of speakers) {
    const machine = new GuestMachine()
    scope.after(() => machine.close())
    const front = await FrontEnd.connect(socket, machine)
    front.send(said)
    if (said === speakers[3]) front.send(encodeMessage(0))
    await front.untilEnded()
  }
  const broken = await newGuest(scope, socket, { features: bits(VIRTIO_BLK_F_FLUSH) })
  // A chain whose first descriptor lies nowhere in the guest's memory.
  broken.machine.ring.add([{ address: 1n << 60n, length: 16, writable: false }])
  broken.kick()
  await broken.untilEnded()
  const metrics = await candor.metrics()
  const errors = (reason: string) => metrics.get(`candor_protocol_errors_total{reason="${reason}"}`)
  assert.deepEqual([errors('vhost-user-message'), errors('broken-ring')], [speakers.length, 1])
  await client.write(0, patternOf(4096, 7))
  const good = await newGuest(scope, socket)
  assert.ok((await readBack(good, 0, 4096)).equals(patternOf(4096, 7)))
  await client.flush()
  assert.ok(readFileSync(image).subarray(0, 4096).equals(patternOf(4096, 7)))
  await client.disconnect()
})

test('what a front-end is refused that goes on all the same stands in the log, with its reason', async (t) => {
  const scope = lastFirst(t)
  const { candor, socket } = await serveGuests(scope)
  const front = await newGuest(scope, socket)
  await front.stopRing()
  // A ring that lies nowhere in the guest's memory.
  const nowhere = { index: 0, flags: 0, descriptor: 4096n, available: 8192n, used: 12_288n, log: 0n }
  await front.tell(VHOST_USER_SET_VRING_ADDR, encodeVringAddress(nowhere))
  const kick = encodeVringFile({ index: 0, hasDescriptor: true })
  const fds = [front.machine.kick]
  const answer = await front.ask(VHOST_USER_SET_VRING_KICK, kick, fds, VHOST_USER_NEED_REPLY_FLAG)
  assert.equal(decodeU64(answer.payload), 1n)
  const { stderr } = await candor.stop()
  assert.match(
    stderr,
    /refused to the front-end of a guest on export disk: SET_VRING_KICK: ring 0 cannot be served: EFAULT/,
  )
})

test('a ring of more entries than an in-flight log has room for is refused beside one, and the log says why', async (t) => {
  const scope = lastFirst(t)
  const { candor, socket } = await serveGuests(scope)
  const machine = new GuestMachine(false, 2048)
  scope.after(() => machine.close())
  await assert.rejects(attachGuest(socket, machine, CACHED), /18 was refused/)
  const { stderr } = await candor.stop()
  assert.match(stderr, /SET_VRING_ENABLE: ring 0 has 2048 entries, and an in-flight log has room for 1024/)
})

test('orders that take long are carried out one in a turn of the event loop, however many come in one piece', async (t) => {
  const { host, close } = await serveInProcess(await openBackend('memory', { size: MIB }))
  t.after(close)
  const [near, far] = socketPair()
  host.attachVhostUser({ connection: 1, fd: far, exportName: 'disk', client: 'vhost-user' })
  const features = bits(VHOST_USER_PROTOCOL_F_RESET_DEVICE, VHOST_USER_PROTOCOL_F_REPLY_ACK)
  const pieces: number[] = []
  const socket = new FdSocket(near, { arrived: ({ length }) => pieces.push(length), ended: () => {} })
  t.after(() => socket.close())
  const reset = encodeMessage(VHOST_USER_RESET_DEVICE, undefined, VHOST_USER_NEED_REPLY_FLAG)
  const agreed = encodeMessage(VHOST_USER_SET_PROTOCOL_FEATURES, encodeU64(features))
  socket.send(Buffer.concat([encodeMessage(VHOST_USER_SET_OWNER), agreed, ...Array(5).fill(reset)]))
  const answered = () => pieces.reduce((sum, length) => sum + length, 0) / ANSWER_BYTES
  while (answered() < 5) await new Promise((resolve) => setImmediate(resolve))
  assert.deepEqual(pieces, Array(5).fill(ANSWER_BYTES))
})

test('each log that was asked for in one breath is answered with its own descriptor', async (t) => {
  const scope = lastFirst(t)
  const { socket } = await serveGuests(scope)
  const machine = new GuestMachine()
  scope.after(() => machine.close())
  const front = await FrontEnd.connect(socket, machine)
  scope.after(() => front.close())
  await front.agree(CACHED)
  const wanted = encodeInflightArea({ size: 0n, offset: 0n, queues: 1, queueSize: 64 })
  const question = encodeMessage(VHOST_USER_GET_INFLIGHT_FD, wanted)
  front.send(Buffer.concat(Array(4).fill(question)))
  const files = new Set<number>()
  for (let asked = 0; asked < 4; asked++) {
    const { descriptors } = await front.ask(VHOST_USER_GET_INFLIGHT_FD, wanted)
    const [fd = assert.fail('a reply without a descriptor')] = descriptors
    assert.match(readlinkSync(`/proc/self/fd/${fd}`), /^\/memfd:/)
    files.add(fstatSync(fd).ino)
    closeSync(fd)
  }
  assert.equal(files.size, 4)
})
