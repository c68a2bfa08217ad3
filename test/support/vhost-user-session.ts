// A vhost-user session under test: a device, the state that a front-end has brought it to, and one message at a time.
import assert from 'node:assert/strict'
import { type Order, ProtocolError, type Result, Session } from 'vhost-user-protocol'
import { hex } from './raw-bytes.js'
import { addresses, FEATURES, le64, message, PLAIN, PROTOCOL, REGION, REPLY, state, table } from './raw-vhost-user.js'

const CONFIG = Uint8Array.from({ length: 256 }, (_, index) => index)
export const DEVICE = {
  features: FEATURES,
  protocolFeatures: 0xffff_ffffn,
  queuesMax: 4,
  memorySlotsMax: 32,
  config: (offset: number, size: number) => CONFIG.subarray(offset, offset + size),
}

export const DONE: Result = { kind: 'done' }
/** Says something, carries out what comes of it, and returns the orders and the replies. */
export function say(session: Session, bytes: Uint8Array, descriptors: readonly number[] = [], result: Result = DONE) {
  session.receive(bytes, descriptors)
  const orders: Order[] = []
  for (let order = session.next(); order !== undefined; order = session.next()) {
    orders.push(order)
    assert.equal(session.next(), undefined, 'two orders at once')
    session.done(order.do === 'stop-ring' ? { kind: 'base', base: 77 } : result)
  }
  return { orders, replies: session.takeReplies().map(({ bytes: reply }) => hex(reply)) }
}

export const nothing = { orders: [], replies: [] }
export const reply = (request: number, ...payload: readonly (string | Uint8Array)[]) =>
  hex(message(request, REPLY, ...payload))
export const refusedWith = (code: string) => (error: unknown) => error instanceof ProtocolError && error.code === code

export function agreed(): Session {
  const session = new Session(DEVICE)
  say(session, message(16, PLAIN, le64(PROTOCOL)))
  say(session, message(2, PLAIN, le64(FEATURES)))
  return session
}

export function running(): Session {
  const session = agreed()
  say(session, message(5, PLAIN, table(REGION)), [10])
  say(session, message(8, PLAIN, state(0, 128)))
  say(session, message(9, PLAIN, addresses(0)))
  say(session, message(13, PLAIN, le64(0)), [11])
  say(session, message(18, PLAIN, state(0, 1)))
  const { orders } = say(session, message(12, PLAIN, le64(0)), [12])
  assert.deepEqual(
    orders.map((order) => order.do),
    ['start-ring'],
  )
  return session
}
