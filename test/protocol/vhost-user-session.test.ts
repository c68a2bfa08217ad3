// A session as QEMU leads it, message by message, and what comes of each.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Result, Session } from 'vhost-user-protocol'
import { hex, raw, zeroes } from '../support/raw-bytes.js'
import {
  addresses,
  FEATURES,
  le16,
  le32,
  le64,
  message,
  NEED_REPLY,
  PLAIN,
  PROTOCOL,
  REGION,
  state,
  table,
} from '../support/raw-vhost-user.js'
import { agreed, DEVICE, nothing, refusedWith, reply, running, say } from '../support/vhost-user-session.js'

test('a front-end asks what the device can do and has, and is answered', () => {
  const session = new Session(DEVICE)
  const asked = (request: number) => say(session, message(request, PLAIN)).replies
  assert.deepEqual(asked(1), [reply(1, le64(FEATURES))])
  assert.deepEqual(asked(15), [reply(15, le64(PROTOCOL))])
  assert.deepEqual(say(session, message(16, PLAIN, le64(PROTOCOL))), nothing)
  assert.deepEqual(asked(17), [reply(17, le64(4))])
  assert.deepEqual(asked(36), [reply(36, le64(32))])
  assert.deepEqual(say(session, message(3, NEED_REPLY)).replies, [reply(3, le64(0))])
  const { replies } = say(session, message(24, PLAIN, le32(32), le32(4), le32(0), zeroes(4)))
  assert.deepEqual(replies, [reply(24, le32(32), le32(4), le32(0), '20212223')])
  assert.deepEqual(asked(40), [reply(40, le64(0))])
  say(session, message(39, PLAIN, le64(15)))
  assert.deepEqual(asked(40), [reply(40, le64(15))])
})

test('a ring starts when its size, its addresses, its kick and its permission are there, and tells its base when it stops', () => {
  const session = agreed()
  assert.deepEqual(say(session, message(5, PLAIN, table(REGION, REGION)), [10, 11]).orders, [
    {
      do: 'map',
      regions: [10, 11].map((descriptor) => ({
        guestAddress: 0n,
        size: 0x1000_0000n,
        userAddress: 0x7f00_0000_0000n,
        offset: 0n,
        descriptor,
      })),
    },
  ])
  for (const quiet of [
    message(8, PLAIN, state(1, 256)),
    message(10, PLAIN, state(1, 5)),
    message(9, PLAIN, addresses(1)),
  ]) {
    assert.deepEqual(say(session, quiet), nothing)
  }
  assert.deepEqual(say(session, message(13, PLAIN, le64(1)), [21]), nothing)
  assert.deepEqual(say(session, message(12, PLAIN, le64(1)), [20]), nothing)
  const { orders, replies } = say(session, message(18, NEED_REPLY, state(1, 1)))
  assert.deepEqual(replies, [reply(18, le64(0))])
  const [order] = orders
  assert.ok(order?.do === 'start-ring')
  const { ring } = order
  assert.deepEqual([ring.index, ring.size, ring.base, ring.kick, ring.call], [1, 256, 5, 20, 21])
  assert.deepEqual(say(session, message(13, PLAIN, le64(1)), [22]).orders, [{ do: 'set-call', index: 1, call: 22 }])
  assert.deepEqual(session.takeDiscarded(), [21])
  const stop = say(session, message(11, PLAIN, state(1, 0)))
  assert.deepEqual(stop, { orders: [{ do: 'stop-ring', index: 1 }], replies: [reply(11, state(1, 77))] })
  assert.deepEqual(session.takeDiscarded(), [20])
  assert.deepEqual(say(session, message(11, PLAIN, state(1, 0))).replies, [reply(11, state(1, 77))])
  assert.deepEqual(session.release(), [22])
})

test('a ring that is disabled stops, and goes on from there when it is enabled again', () => {
  const session = running()
  assert.deepEqual(say(session, message(18, PLAIN, state(0, 0))).orders, [{ do: 'stop-ring', index: 0 }])
  const [again] = say(session, message(18, PLAIN, state(0, 1))).orders
  assert.ok(again?.do === 'start-ring')
  assert.equal(again.ring.base, 77)
})

test('without the protocol features rings begin enabled', () => {
  const session = new Session(DEVICE)
  say(session, message(2, PLAIN, le64(FEATURES & ~(1n << 30n))))
  say(session, message(8, PLAIN, state(0, 128)))
  say(session, message(9, PLAIN, addresses(0)))
  assert.equal(say(session, message(12, PLAIN, le64(0)), [7]).orders.length, 1)
})

test('an in-flight area is made, handed over with its descriptor, and taken back', () => {
  const session = agreed()
  const question = message(31, PLAIN, le64(0), le64(0), le16(2), le16(128), '00000000')
  session.receive(question, [])
  assert.deepEqual(session.next(), { do: 'make-inflight', queues: 2, queueSize: 128 })
  session.done({ kind: 'area', size: 4096n, offset: 0n, descriptor: 30 })
  const [answer] = session.takeReplies()
  assert.deepEqual(answer?.descriptors, [30])
  assert.equal(hex(answer?.bytes ?? raw()), reply(31, le64(4096), le64(0), le16(2), le16(128), '00000000'))
  const back = say(session, message(32, PLAIN, le64(4096), le64(0), le16(2), le16(128)), [31])
  const area = { size: 4096n, offset: 0n, queues: 2, queueSize: 128 }
  assert.deepEqual(back.orders, [{ do: 'take-inflight', area, descriptor: 31 }])
  const refused = say(session, question, [], { kind: 'refused', reason: 'no memory' })
  assert.deepEqual(refused.replies, [reply(31, le64(0), le64(0), le16(2), le16(128), '00000000')])
})

test('the rest of the messages become orders', () => {
  const session = agreed()
  const region = { guestAddress: 0n, size: 0x1000_0000n, userAddress: 0x7f00_0000_0000n, offset: 0n }
  const did = (bytes: Uint8Array, ...descriptors: number[]) => say(session, bytes, descriptors).orders
  assert.deepEqual(did(message(37, PLAIN, le64(0), REGION), 5), [
    { do: 'add-region', region: { ...region, descriptor: 5 } },
  ])
  assert.deepEqual(did(message(38, PLAIN, le64(0), REGION)), [{ do: 'remove-region', region }])
  assert.deepEqual(did(message(21, PLAIN), 6), [{ do: 'take-channel', descriptor: 6 }])
  assert.deepEqual(did(message(34, PLAIN)), [{ do: 'reset' }])
  assert.deepEqual(did(message(25, PLAIN, le32(32), le32(1), le32(0), '00')), [
    { do: 'write-config', offset: 32, data: raw('00') },
  ])
  assert.deepEqual(did(message(25, PLAIN, le32(0x120), le32(1), le32(0), '00')), [
    { do: 'write-config', offset: 32, data: raw('00') },
  ])
})

test('a memory table may name as many regions as the device has room for, each with its descriptor, and not one more', () => {
  const regions = (count: number) => table(...Array.from({ length: count }, () => REGION))
  const fds = (count: number) => Array.from({ length: count }, (_, index) => 100 + index)
  const { memorySlotsMax: most } = DEVICE
  const { orders, replies } = say(agreed(), message(5, NEED_REPLY, regions(most)), fds(most))
  assert.deepEqual([orders.length, replies], [1, [reply(5, le64(0))]])
  const session = agreed()
  const more = say(session, message(5, NEED_REPLY, regions(most + 1)), fds(most + 1))
  assert.deepEqual([more.orders, more.replies], [[], [reply(5, le64(1))]])
  assert.deepEqual(session.takeDiscarded(), fds(most + 1))
  assert.throws(
    () => say(agreed(), message(5, NEED_REPLY, regions(most)), fds(most - 1)),
    refusedWith('bad-descriptors'),
  )
})

test('a refusal is told where a reply was asked for, and ends the session where none was', () => {
  const session = agreed()
  const refused: Result = { kind: 'refused', reason: 'the file is too short' }
  const { replies } = say(session, message(5, NEED_REPLY, table(REGION)), [9], refused)
  assert.deepEqual(replies, [reply(5, le64(1))])
  assert.throws(() => say(session, message(5, PLAIN, table(REGION)), [9], refused), refusedWith('refused'))
})

test('a message that nobody knows is refused where a reply was asked for, and ends the session where none was', () => {
  for (const request of [0, 6, 7, 19, 28, 33, 41, 99, 0xffff_ffff]) {
    const { replies } = say(agreed(), message(request, NEED_REPLY, le64(0)))
    assert.deepEqual(replies, [reply(request, le64(1))])
    assert.throws(() => say(agreed(), message(request, PLAIN)), refusedWith('unknown-request'))
  }
})
