// What a front-end may not say, that each of it ends the session by its code, and that no descriptor is ever lost.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Session } from 'vhost-user-protocol'
import { raw } from '../support/raw-bytes.js'
import {
  addresses,
  FEATURES,
  le32,
  le64,
  message,
  PLAIN,
  REGION,
  REPLY,
  state,
  table,
} from '../support/raw-vhost-user.js'
import { agreed, DEVICE, DONE, nothing, refusedWith, reply, running, say } from '../support/vhost-user-session.js'

const IGNORED = message(4, PLAIN)

const HOSTILE: readonly { readonly what: string; readonly code: string; readonly say: () => unknown }[] = [
  { what: 'another version', code: 'bad-header', say: () => say(agreed(), message(1, 2)) },
  { what: 'a reply to nothing', code: 'bad-header', say: () => say(agreed(), message(1, REPLY)) },
  {
    what: 'a payload beyond the bound',
    code: 'payload-too-long',
    say: () => say(agreed(), raw(le32(5), le32(PLAIN), le32(4097))),
  },
  { what: 'a payload too many', code: 'bad-payload', say: () => say(agreed(), message(1, PLAIN, '00')) },
  { what: 'a payload cut short', code: 'bad-payload', say: () => say(agreed(), message(8, PLAIN, le32(0))) },
  {
    what: 'more regions than it brings',
    code: 'bad-payload',
    say: () => say(agreed(), message(5, PLAIN, le32(8), le32(0))),
  },
  {
    what: 'regions without descriptors',
    code: 'bad-descriptors',
    say: () => say(agreed(), message(5, PLAIN, table(REGION))),
  },
  {
    what: 'descriptors without regions',
    code: 'bad-descriptors',
    say: () => say(agreed(), message(5, PLAIN, table(REGION)), [1, 2]),
  },
  {
    what: 'a kick without its descriptor',
    code: 'bad-descriptors',
    say: () => say(agreed(), message(12, PLAIN, le64(0))),
  },
  {
    what: 'a kick with a descriptor that it denies',
    code: 'bad-descriptors',
    say: () => say(agreed(), message(12, PLAIN, le64(0x100)), [3]),
  },
  { what: 'a descriptor with a question', code: 'bad-descriptors', say: () => say(agreed(), message(1, PLAIN), [3]) },
  {
    what: 'bits of a kick that mean nothing',
    code: 'bad-payload',
    say: () => say(agreed(), message(12, PLAIN, le64(0x200)), [3]),
  },
  {
    what: 'features that were not offered',
    code: 'bad-features',
    say: () => say(agreed(), message(2, PLAIN, le64(1n << 33n))),
  },
  {
    what: 'protocol features that were not offered',
    code: 'bad-features',
    say: () => say(agreed(), message(16, PLAIN, le64(2))),
  },
  {
    what: 'the configuration before its feature',
    code: 'out-of-turn',
    say: () => say(new Session(DEVICE), message(24, PLAIN, le32(0), le32(4), le32(0))),
  },
  {
    what: 'a kick before the features',
    code: 'out-of-turn',
    say: () => say(new Session(DEVICE), message(12, PLAIN, le64(0)), [3]),
  },
  {
    what: 'a kick before the addresses',
    code: 'out-of-turn',
    say: () => {
      const session = agreed()
      say(session, message(18, PLAIN, state(0, 1)))
      return say(session, message(12, PLAIN, le64(0)), [3])
    },
  },
  {
    what: 'another size of a running ring',
    code: 'out-of-turn',
    say: () => say(running(), message(8, PLAIN, state(0, 64))),
  },
  {
    what: 'another base of a running ring',
    code: 'out-of-turn',
    say: () => say(running(), message(10, PLAIN, state(0, 1))),
  },
  {
    what: 'other features under running rings',
    code: 'out-of-turn',
    say: () => say(running(), message(2, PLAIN, le64(FEATURES & ~(1n << 9n)))),
  },
  { what: 'a ring that is not there', code: 'bad-ring', say: () => say(agreed(), message(8, PLAIN, state(4, 64))) },
  {
    what: 'a kick for a ring that is not there',
    code: 'bad-ring',
    say: () => say(agreed(), message(12, PLAIN, le64(4)), [3]),
  },
  { what: 'a ring of no size', code: 'bad-ring', say: () => say(agreed(), message(8, PLAIN, state(0, 0))) },
  { what: 'a split ring of an odd size', code: 'bad-ring', say: () => say(agreed(), message(8, PLAIN, state(0, 100))) },
  { what: 'a ring beyond all sizes', code: 'bad-ring', say: () => say(agreed(), message(8, PLAIN, state(0, 65536))) },
  {
    what: 'permission that is neither',
    code: 'bad-payload',
    say: () => say(agreed(), message(18, PLAIN, state(0, 2))),
  },
]

for (const { what, code, say: attempt } of HOSTILE) {
  test(`${what} ends the session as ${code}`, () => {
    assert.throws(attempt, refusedWith(code))
  })
}

test('a front-end that does not wait for its answers may only say so much', () => {
  const session = running()
  session.receive(message(11, PLAIN, state(0, 0)), [])
  assert.equal(session.next()?.do, 'stop-ring')
  assert.throws(() => {
    for (let said = 0; said < 10_000; said++) session.receive(IGNORED, [])
  }, refusedWith('too-much-waiting'))
  const another = agreed()
  assert.throws(() => {
    for (let said = 0; said < 10_000; said++)
      another.receive(
        raw('00'),
        Array.from({ length: 253 }, (_, fd) => fd),
      )
  }, refusedWith('too-much-waiting'))
})

test('many small messages in one piece are taken without moving what lies behind them', (t) => {
  const session = new Session(DEVICE)
  const messages = Array.from({ length: 5000 }, () => message(3, PLAIN))
  const piece = Buffer.concat(messages)
  let moved = 0
  const { slice, set } = Uint8Array.prototype
  t.mock.method(Uint8Array.prototype, 'slice', function (this: Uint8Array, start?: number, end?: number) {
    const copy = slice.call(this, start, end)
    moved += copy.length
    return copy
  })
  t.mock.method(Uint8Array.prototype, 'set', function (this: Uint8Array, source: ArrayLike<number>, at?: number) {
    moved += source.length
    set.call(this, source, at)
  })
  session.receive(piece, [])
  assert.equal(session.next(), undefined)
  assert.ok(moved <= 2 * piece.length, `${moved} bytes were copied of ${piece.length}`)
  // One that had come in part is understood when the rest is there, behind others and before others.
  const asked = message(1, PLAIN)
  session.receive(Buffer.concat([message(3, PLAIN), asked.subarray(0, 5)]), [])
  assert.equal(session.next(), undefined)
  assert.deepEqual(
    say(session, Buffer.concat([asked.subarray(5), asked])).replies,
    Array(2).fill(reply(1, le64(FEATURES))),
  )
})

test('a running ring may be told its addresses again, but no others', () => {
  const session = running()
  assert.deepEqual(say(session, message(9, PLAIN, addresses(0))), nothing)
  const other = addresses(0)
  other[8] = 1
  assert.throws(() => say(session, message(9, PLAIN, other)), refusedWith('out-of-turn'))
})

test('descriptors belong to the message of the last byte of their piece, however the stream is cut', () => {
  const quiet = message(8, PLAIN, state(0, 128))
  const kick = message(13, PLAIN, le64(0))
  for (let cut = 0; cut < kick.length; cut++) {
    const session = agreed()
    session.receive(raw(quiet, quiet, kick.subarray(0, cut + 1)), [40])
    session.receive(raw(kick.subarray(cut + 1), quiet), [])
    assert.equal(session.next(), undefined)
    assert.deepEqual(session.takeDiscarded(), [])
    assert.deepEqual(session.release(), [40])
  }
})

test('every descriptor that a session was given is told of once, whatever its end', () => {
  const given = running()
  // 10 went away with its order; 12 is the kick, 11 the call, 13 came with a message that takes none or was cut off.
  assert.deepEqual(given.takeDiscarded(), [])
  given.receive(message(38, PLAIN, le64(0), REGION), [13])
  assert.equal(given.next()?.do, 'remove-region')
  assert.deepEqual(given.takeDiscarded(), [13])
  given.done(DONE)
  given.receive(message(1, PLAIN), [14])
  assert.throws(() => given.next(), refusedWith('bad-descriptors'))
  given.receive(message(12, PLAIN, le64(0)).subarray(0, 3), [15])
  assert.deepEqual(given.release().sort(), [11, 12, 14, 15])
  assert.deepEqual(given.release(), [])
})
