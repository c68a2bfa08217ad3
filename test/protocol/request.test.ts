// Request headers, compact and extended: against bytes written by hand, and there and back with random values.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type DecodedRequest,
  decodeRequest,
  emptyRequest,
  encodeRequest,
  frameSize,
  getUint64,
  ProtocolError,
  type Request,
  requestHeaderBytes,
  setUint64,
  viewOf,
} from 'nbd-protocol'
import { seededRandom } from '../support/fuzz-random.js'
import { be64, hex, raw, request } from '../support/raw-bytes.js'

const PAYLOAD_LEN = 1 << 5
const LARGEST = Number.MAX_SAFE_INTEGER

/** A request as `decodeRequest` tells it: with the two halves of its offset. */
function withOffsetBits(request: Request): DecodedRequest {
  const offsetHigh = Math.floor(request.offset / 2 ** 32)
  return { ...request, offsetHigh, offsetLow: request.offset % 2 ** 32 }
}

test('64-bit numbers survive there and back, and saturate above 2^53 - 1', (scope) => {
  const random = seededRandom(scope)
  const bytes = new Uint8Array(11)
  const view = viewOf(bytes.subarray(3))
  for (let round = 0; round < 2000; round++) {
    const value = round === 0 ? 0 : random.safeInteger()
    setUint64(view, 0, value)
    assert.equal(view.getBigUint64(0), BigInt(value))
    assert.equal(getUint64(view, 0), value)
  }
  for (const large of [2n ** 53n, 2n ** 53n + 2n ** 32n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n]) {
    view.setBigUint64(0, large)
    assert.equal(getUint64(view, 0), LARGEST)
  }
})

test('a compact request reads as its bytes say, and only WRITE brings a payload', () => {
  const bytes = raw('25609513 0001 0001 0102030405060708 000000010000000f 00000200')
  const write: Request = {
    type: 1,
    flags: 1,
    cookieHigh: 0x01020304,
    cookieLow: 0x05060708,
    offset: 0x10000000f,
    length: 512,
    payloadLength: 512,
  }
  assert.deepEqual(decodeRequest(viewOf(bytes), 0, false, emptyRequest()), withOffsetBits(write))
  assert.equal(frameSize(viewOf(bytes), 0, false), 28 + 512)
  for (const type of [0, 2, 3, 4, 5, 6, 7, 8, 9, 0xffff]) {
    const other = request('simple', { type, flags: 0xffff, cookie: 2n ** 64n - 1n, offset: -1n, length: 2 ** 32 - 1 })
    const all = { type, flags: 0xffff, cookieHigh: 2 ** 32 - 1, cookieLow: 2 ** 32 - 1 }
    const wanted = { ...all, offset: LARGEST, length: 2 ** 32 - 1, payloadLength: 0 }
    assert.deepEqual(decodeRequest(viewOf(other), 0, false, emptyRequest()), {
      ...wanted,
      offsetHigh: 2 ** 32 - 1,
      offsetLow: 2 ** 32 - 1,
    })
    assert.equal(frameSize(viewOf(other), 0, false), 28)
  }
})

test('an extended request brings a payload by its flag, whatever its command, and a WRITE without it', () => {
  for (const type of [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xffff]) {
    for (const [flags, payloadLength] of [
      [0xffff & ~PAYLOAD_LEN, type === 1 ? 0x1_0000_0001 : 0],
      [PAYLOAD_LEN, 0x1_0000_0001],
    ] as const) {
      const bytes = request('extended', { type, flags, cookie: 7n, offset: 2 ** 40, length: 0x1_0000_0001 })
      const wanted = { type, flags, cookieHigh: 0, cookieLow: 7, offset: 2 ** 40, length: 0x1_0000_0001, payloadLength }
      assert.deepEqual(decodeRequest(viewOf(bytes), 0, true, emptyRequest()), withOffsetBits(wanted))
      assert.equal(frameSize(viewOf(bytes), 0, true), 32 + payloadLength)
    }
  }
  const huge = request('extended', { type: 1, flags: PAYLOAD_LEN, cookie: 1n, offset: 2n ** 63n, length: -1n })
  const { offset, length, payloadLength } = decodeRequest(viewOf(huge), 0, true, emptyRequest())
  assert.deepEqual({ offset, length, payloadLength }, { offset: LARGEST, length: LARGEST, payloadLength: LARGEST })
  assert.ok(frameSize(viewOf(huge), 0, true) >= LARGEST)
})

test('requests survive there and back, at any place in a buffer, and their bytes are those of the spec', (scope) => {
  const random = seededRandom(scope)
  for (let round = 0; round < 3000; round++) {
    const extended = random.onceIn(2)
    const at = random.below(40)
    const buffer = random.bytes(at + 32 + 5)
    const before = buffer.slice()
    const [type, flags] = [random.below(2 ** 16), random.below(2 ** 16)]
    const [cookieHigh, cookieLow, offset] = [random.uint32(), random.uint32(), random.safeInteger()]
    const length = extended ? random.safeInteger() : random.uint32()
    const payloadLength = type === 1 || (extended && (flags & PAYLOAD_LEN) !== 0) ? length : 0
    const wanted = { type, flags, cookieHigh, cookieLow, offset, length, payloadLength }
    const end = encodeRequest(viewOf(buffer), at, extended, wanted)
    assert.equal(end, at + requestHeaderBytes(extended))
    assert.deepEqual(decodeRequest(viewOf(buffer), at, extended, emptyRequest()), withOffsetBits(wanted))
    const cookie = BigInt(cookieHigh) * 2n ** 32n + BigInt(cookieLow)
    const byHand = request(extended ? 'extended' : 'simple', { type, flags, cookie, offset, length })
    assert.equal(hex(buffer.subarray(at, end)), hex(byHand))
    assert.equal(hex(buffer.subarray(0, at)), hex(before.subarray(0, at)), 'nothing in front is touched')
    assert.equal(hex(buffer.subarray(end)), hex(before.subarray(end)), 'nothing behind is touched')
  }
})

test('any other magic loses the stream, that of the other kind of header too', () => {
  const fields = { type: 1, cookie: 1n, length: 1 }
  const [compact, extended] = [request('simple', fields), request('extended', fields)]
  const foreign = [
    [extended, false],
    [raw(compact, be64(0)), true],
    [raw('25609514', compact.subarray(4)), false],
    [raw('12560953', compact.subarray(4)), false],
    [raw('00000000', extended.subarray(4)), true],
  ] as const
  for (const [bytes, wide] of foreign) {
    const lost = (error: unknown) => error instanceof ProtocolError && error.code === 'bad-request-magic'
    assert.throws(() => frameSize(viewOf(bytes), 0, wide), lost)
    assert.throws(() => decodeRequest(viewOf(bytes), 0, wide, emptyRequest()), lost)
  }
})
