// Replies of the transmission phase in all three styles: against bytes written by hand, and there and back.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type Cookie,
  chunkHeaderBytes,
  decodeReplyHeader,
  encodeChunk,
  encodeErrorChunk,
  encodeSimpleReply,
  errorChunkBytes,
  errorMessage,
  ProtocolError,
  type ReplyStyle,
  replyHeaderBytes,
  viewOf,
} from 'nbd-protocol'
import { type Random, seededRandom } from '../support/fuzz-random.js'
import { be16, be32, be64, chunk, hex, raw, simpleReply, text } from '../support/raw-bytes.js'

const CHUNK_STYLES = ['structured', 'extended'] as const

function randomCookie(random: Random): Cookie & { readonly value: number } {
  const value = random.safeInteger()
  return { cookieHigh: Math.floor(value / 2 ** 32), cookieLow: value % 2 ** 32, value }
}

/** Encodes somewhere in the middle of a buffer of junk; what was written, and nothing else, comes back. */
function written(random: Random, room: number, encode: (view: DataView, at: number) => number): Uint8Array {
  const at = random.below(20)
  const buffer = random.bytes(at + room + 8)
  const before = buffer.slice()
  const end = encode(viewOf(buffer), at)
  assert.ok(end <= at + room)
  assert.equal(hex(buffer.subarray(0, at)), hex(before.subarray(0, at)))
  assert.equal(hex(buffer.subarray(end)), hex(before.subarray(end)))
  return buffer.subarray(at, end)
}

test('simple replies survive there and back', (scope) => {
  const random = seededRandom(scope)
  for (let round = 0; round < 1000; round++) {
    const cookie = randomCookie(random)
    const error = random.uint32()
    const bytes = written(random, 16, (view, at) => encodeSimpleReply(view, at, cookie, error))
    assert.equal(hex(bytes), hex(simpleReply(cookie.value, error)))
    const header = decodeReplyHeader(viewOf(bytes), 0)
    assert.deepEqual([header.style, header.error, header.flags & 1], ['simple', error, 1])
    assert.deepEqual([header.cookieHigh, header.cookieLow], [cookie.cookieHigh, cookie.cookieLow])
  }
})

test('structured and extended chunk headers survive there and back', (scope) => {
  const random = seededRandom(scope)
  for (let round = 0; round < 2000; round++) {
    const style = random.pick(CHUNK_STYLES)
    const cookie = randomCookie(random)
    const offset = random.safeInteger()
    const [flags, type] = [random.below(2 ** 16), random.below(2 ** 16)]
    const length = style === 'extended' ? random.safeInteger() : random.uint32()
    const bytes = written(random, chunkHeaderBytes(style), (view, at) =>
      encodeChunk(view, at, style, cookie, offset, flags, type, length),
    )
    const head = raw(be16(flags), be16(type), be64(cookie.value))
    const byHand =
      style === 'extended' ? raw('6e8a278c', head, be64(offset), be64(length)) : raw('668e33ef', head, be32(length))
    assert.equal(hex(bytes), hex(byHand))
    assert.equal(replyHeaderBytes(viewOf(bytes), 0), byHand.length)
    const { cookieHigh, cookieLow } = cookie
    const wanted = { style, cookieHigh, cookieLow, error: 0, flags, type, length }
    assert.deepEqual(decodeReplyHeader(viewOf(bytes), 0), wanted)
  }
})

test('error chunks carry error, message and, where it is known, the offset', (scope) => {
  const random = seededRandom(scope)
  for (let round = 0; round < 500; round++) {
    const style: ReplyStyle = random.pick(CHUNK_STYLES)
    const cookie = randomCookie(random)
    const offset = random.safeInteger()
    const error = random.uint32()
    const message = text('ä€😀x'.repeat(random.below(40)))
    const errorOffset = random.onceIn(2) ? random.safeInteger() : undefined
    const bytes = written(random, errorChunkBytes(message), (view, at) =>
      encodeErrorChunk(view, at, style, { ...cookie, offset }, error, message, errorOffset),
    )
    const type = errorOffset === undefined ? 0x8001 : 0x8002
    const head = { cookie: cookie.value, flags: 1, type, ...(style === 'extended' ? { offset } : {}) }
    const where = errorOffset === undefined ? '' : be64(errorOffset)
    assert.equal(hex(bytes), hex(chunk(head, be32(error), be16(message.length), message, where)))
  }
})

test('a message is cut at a character, within 4096 bytes', () => {
  assert.equal(hex(errorMessage('no space')), hex(text('no space')))
  assert.equal(errorMessage('x'.repeat(4096)).length, 4096)
  for (const [letter, bytes] of [
    ['x', 4096],
    ['é', 4096],
    ['€', 4095],
    ['😀', 4096],
  ] as const) {
    const message = errorMessage(letter.repeat(4097))
    assert.equal(message.length, bytes)
    assert.match(new TextDecoder('utf-8', { fatal: true }).decode(message), new RegExp(`^(?:${letter})+$`))
  }
  assert.equal(errorMessage(`ab${'😀'.repeat(1024)}`).length, 4094)
})

test('a reply that begins with no magic of the spec is told apart', () => {
  for (const magic of ['00000000', 'ffffffff', '67446699', '96744668', '25609513']) {
    const bytes = raw(magic, be64(0), be64(0), be64(0), be32(0))
    const lost = (error: unknown) => error instanceof ProtocolError && error.code === 'bad-reply'
    assert.throws(() => replyHeaderBytes(viewOf(bytes), 0), lost)
    assert.throws(() => decodeReplyHeader(viewOf(bytes), 0), lost)
  }
})
