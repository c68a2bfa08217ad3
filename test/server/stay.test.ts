// How long a connection that was read keeps the thread, and its replies. Law: alone it is read again at once; in turns with
// others it is not, but for the rest of a large frame. Replies are held for nothing but the next small request.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { NBD_CMD_FLUSH } from 'nbd-protocol'
import { HOLD_NS, Patience } from '../../server/exports/patience.js'
import { WaitingRequests } from '../../server/exports/waiting.js'
import { Stay } from '../../server/nbd/stay.js'

/** A connection that would always have four bytes more, with `untold` replies; `told` counts how often they were told. */
function connection() {
  const source = { isBetweenFrames: true, lentBytes: 64, target: new Uint8Array(64) }
  const waits: number[] = []
  const come = { bytes: 4 }
  const receiveNow = (_: Uint8Array, patienceNs: number) => {
    waits.push(patienceNs)
    return come.bytes
  }
  const replies = {
    latency: { sinceMs: 0, untold: 0 },
    told: 0,
    beginGathering() {},
    endGathering() {},
    get isUntold() {
      return this.latency.untold > 0
    },
    tell() {
      this.told += 1
      this.latency.untold = 0
    },
  }
  const stay = new Stay(source, { receiveNow }, replies)
  /** How often it was read when it may be read `times` times. */
  const read = (isIdle = false, times = 2) => {
    let taken = 0
    const take = () => {
      taken += 1
    }
    stay.read(4, { take, mayRead: () => taken < times, isIdle: () => isIdle })
    return taken
  }
  return { source, stay, replies, come, waits, read }
}

describe('a connection that was read', () => {
  test('is read again in the same turn, once the others are silent', () => {
    const [one, other] = [connection(), connection()]
    other.read()
    assert.equal(one.read(), 1, 'the other was read last')
    assert.equal(one.read(), 2)
    assert.equal(one.read(false, 9), 9)
    one.stay.end()
    other.stay.end()
  })

  test('leaves the turn when it is read in turns with others, but for the rest of a large frame', (t) => {
    t.mock.method(performance, 'now', () => 0)
    const [one, other] = [connection(), connection()]
    for (let round = 0; round < 3; round++) assert.deepEqual([one.read(), other.read()], [1, 1])
    one.source.isBetweenFrames = false
    assert.equal(one.read(), 2)
    one.stay.end()
    other.stay.end()
  })

  test('has its replies held for the next small request of a client that asks on, and for nothing else', (t) => {
    let nowMs = 0
    t.mock.method(performance, 'now', () => nowMs)
    const { source, stay, replies, come, waits, read } = connection()
    read()
    // Each reply that is told by itself takes the client longer: two are told together before long.
    const asks = (isIdle: boolean) => {
      replies.latency.untold += 1
      const told = replies.told
      read(isIdle)
      nowMs += replies.told > told ? 0.02 : 0.001
      return replies.told === told
    }
    while (!asks(true)) assert.ok(replies.told < 10_000)
    assert.equal(waits.at(-1), HOLD_NS)
    assert.equal(asks(false), false, 'storage has something of it')
    while (!asks(true)) assert.ok(replies.told < 10_000)
    source.isBetweenFrames = false
    assert.equal(asks(true), false, 'the rest of a frame is on its way')
    source.isBetweenFrames = true
    while (!asks(true)) assert.ok(replies.told < 10_000)
    come.bytes = 17 << 10
    assert.equal(asks(true), false, 'much has come, which they are not to wait for')
    come.bytes = 4
    while (!asks(true)) assert.ok(replies.told < 10_000)
    const requests = new WaitingRequests()
    const other = new Patience()
    nowMs += 20
    read()
    const waiting = requests.enter(NBD_CMD_FLUSH)
    assert.equal(asks(true), false, 'storage has something of somebody else, who is silent')
    requests.leave(waiting)
    other.came(nowMs)
    assert.equal(asks(true), false, 'somebody else asks too')
    other.end()
    stay.end()
  })
})
