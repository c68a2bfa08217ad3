// Random and spoilt bytes into the decoders of nbd-protocol. Law: a ProtocolError or a value, nothing else; never more
// replies than what was said can account for.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  decodeInfo,
  decodeInfoRequest,
  decodeMetaContext,
  decodeMetaContextRequest,
  decodeReplyHeader,
  decodeRequest,
  decodeServer,
  emptyRequest,
  frameSize,
  Handshake,
  ProtocolError,
  requestHeaderBytes,
  viewOf,
} from 'nbd-protocol'
import { mutated, type Random, seededRandom } from '../support/fuzz-random.js'
import {
  be16,
  be32,
  contextData,
  FLAGS,
  hex,
  infoData,
  option,
  raw,
  request,
  STYLES,
  text,
} from '../support/raw-bytes.js'
import { HOST, LIMITS } from '../support/raw-conversation.js'

/** Bytes that one option may be answered with: every export listed, or three informations and more. */
const REPLY_BYTES_MAX = 5000

function randomOption(random: Random): Uint8Array {
  const name = random.pick(['disk', '', 'größe', 'nobody', 'x'.repeat(4100)])
  const query = random.pick(['base:allocation', 'base:', 'x:y', 'none', ''])
  const type = random.below(14)
  const data = random.pick([
    raw(),
    infoData(name, 3, random.below(5)),
    contextData(name, query, 'qemu:'),
    text(name),
    random.bytes(random.below(40)),
    raw(be32(random.uint32()), text(name), be16(random.below(2 ** 16))),
  ])
  return option(type, data)
}

function randomConversation(random: Random): Uint8Array {
  if (random.onceIn(8)) return random.bytes(random.below(300))
  const flags = random.onceIn(20) ? random.bytes(4) : raw(FLAGS)
  const options = Array.from({ length: 1 + random.below(24) }, () => randomOption(random))
  const conversation = raw(flags, ...options)
  return random.onceIn(3) ? conversation : mutated(random, conversation)
}

/** Feeds in random pieces; only a ProtocolError may stop it. */
function feed(random: Random, handshake: Handshake, bytes: Uint8Array): number {
  let replied = 0
  try {
    for (let at = 0; at < bytes.length; ) {
      const piece = bytes.subarray(at, at + 1 + random.below(200))
      const used = handshake.receive(piece)
      assert.ok(used === piece.length || handshake.outcome !== undefined)
      for (const reply of handshake.takeReplies()) replied += reply.length
      at += used
      if (handshake.outcome?.kind === 'starttls') handshake.secured()
      else if (handshake.outcome !== undefined) break
    }
  } catch (error) {
    assert.ok(error instanceof ProtocolError, `${error instanceof Error ? error.stack : error}\nby ${hex(bytes)}`)
  }
  for (const reply of handshake.takeReplies()) replied += reply.length
  return replied
}

test('random and spoilt handshakes end in an outcome or a ProtocolError, with replies in proportion', (scope) => {
  const random = seededRandom(scope)
  const ends = new Map<string, number>()
  for (let round = 0; round < 8000; round++) {
    const tls = random.pick(['off', 'allow', 'require'] as const)
    const handshake = new Handshake({ ...HOST, tls, shuttingDown: random.onceIn(10) }, LIMITS)
    const bytes = randomConversation(random)
    const replied = feed(random, handshake, bytes)
    const options = bytes.length / 16 + 1
    assert.ok(replied <= options * REPLY_BYTES_MAX, `${replied} bytes of replies to ${bytes.length}`)
    assert.ok(replied <= LIMITS.optionsMax * REPLY_BYTES_MAX)
    const end = handshake.outcome?.kind ?? 'none'
    ends.set(end, (ends.get(end) ?? 0) + 1)
  }
  scope.diagnostic(`outcomes: ${JSON.stringify(Object.fromEntries(ends))}`)
  for (const kind of ['transmission', 'abort', 'none']) assert.ok((ends.get(kind) ?? 0) > 50, `${kind} was reached`)
})

test('random and spoilt request headers decode, or lose the stream for their magic alone', (scope) => {
  const random = seededRandom(scope)
  for (let round = 0; round < 60_000; round++) {
    const style = random.pick(STYLES)
    const extended = style === 'extended'
    const good = request(style, {
      type: random.below(10),
      flags: random.below(64),
      cookie: BigInt(random.uint32()),
      offset: random.safeInteger(),
      length: random.safeInteger(),
    })
    const spoilt = random.onceIn(10) ? random.bytes(32) : mutated(random, good)
    const bytes = raw(spoilt, random.bytes(32))
    const view = viewOf(bytes)
    const magic = view.getUint32(0) === (extended ? 0x21e41c71 : 0x25609513)
    try {
      const decoded = decodeRequest(view, 0, extended, emptyRequest())
      assert.ok(magic)
      for (const value of Object.values(decoded)) assert.ok(Number.isSafeInteger(value) && value >= 0)
      assert.equal(frameSize(view, 0, extended), requestHeaderBytes(extended) + decoded.payloadLength)
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      assert.ok(!magic && error.code === 'bad-request-magic')
    }
  }
})

test('no payload, however spoilt, throws in a decoder that answers undefined', (scope) => {
  const random = seededRandom(scope)
  const decoders = [decodeInfoRequest, decodeMetaContextRequest, decodeServer, decodeMetaContext]
  for (let round = 0; round < 40_000; round++) {
    const sound = random.pick([
      infoData('disk', 1, 2, 3),
      contextData('disk', 'base:', 'x:y'),
      text('\0\0\0\u0004diskgood'),
    ])
    const bytes = random.onceIn(5) ? random.bytes(random.below(60)) : mutated(random, sound)
    for (const decode of decoders) decode(bytes)
    decodeInfo(bytes, {})
    try {
      decodeReplyHeader(viewOf(raw(random.pick(['67446698', '668e33ef', '6e8a278c', '']), bytes, random.bytes(32))), 0)
    } catch (error) {
      assert.ok(error instanceof ProtocolError)
    }
  }
})
