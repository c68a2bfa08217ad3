// How long a connection that was read keeps the thread. Law: alone it is read again at once; in turns with others it is not, but
// for the rest of a large frame.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Stay } from '../../server/nbd/stay.js'

/** A connection that would always have four bytes more. */
function connection() {
  const source = { isBetweenFrames: true, lentBytes: 64, target: new Uint8Array(64) }
  const stay = new Stay(source, { receiveNow: () => 4 }, { sinceMs: 0 })
  const read = () => {
    stay.begin(4)
    return stay.more(false)
  }
  return { source, stay, read }
}

describe('a connection that was read', () => {
  test('is read again in the same turn, once the others are silent', () => {
    const [one, other] = [connection(), connection()]
    other.read()
    assert.equal(one.read(), 0, 'the other was read last')
    assert.equal(one.read(), 4)
    assert.equal(one.stay.more(false), 4)
    one.stay.end()
    other.stay.end()
  })

  test('leaves the turn when it is read in turns with others, but for the rest of a large frame', (t) => {
    t.mock.method(performance, 'now', () => 0)
    const [one, other] = [connection(), connection()]
    for (let round = 0; round < 3; round++) assert.deepEqual([one.read(), other.read()], [0, 0])
    one.source.isBetweenFrames = false
    assert.equal(one.read(), 4)
    one.stay.end()
    other.stay.end()
  })
})
