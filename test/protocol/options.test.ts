// Payloads of options and option replies: against bytes written by hand, there and back, and cut short anywhere.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  decodeInfo,
  decodeInfoRequest,
  decodeMetaContext,
  decodeMetaContextRequest,
  decodeName,
  decodeServer,
  type ExportInfo,
  encodeInfoBlockSize,
  encodeInfoExport,
  encodeInfoRequest,
  encodeInfoText,
  encodeMetaContext,
  encodeMetaContextRequest,
  encodeOption,
  encodeOptionReply,
  encodeServer,
} from 'nbd-protocol'
import { type Random, seededRandom } from '../support/fuzz-random.js'
import { be16, be32, be64, contextData, hex, infoData, option, optionReply, raw, text } from '../support/raw-bytes.js'

const LETTERS = ['a', 'Z', '0', ' ', '/', ':', 'ä', 'ß', '€', '語', '😀', '\u{10ffff}', '\u007f', '\ufeff']

function randomName(random: Random): string {
  return Array.from({ length: random.below(12) }, () => random.pick(LETTERS)).join('')
}

/** Every shorter form of a payload, and one with a byte too many, must not be read as anything. */
function refusesOtherLengths(payload: Uint8Array, decode: (bytes: Uint8Array) => unknown): void {
  for (let end = 0; end < payload.length; end++) {
    assert.equal(decode(payload.subarray(0, end)), undefined, `${hex(payload)} cut to ${end} bytes`)
  }
  assert.equal(decode(raw(payload, '00')), undefined, 'with a byte too many')
}

test('options and option replies are framed as the spec draws them', (scope) => {
  const random = seededRandom(scope)
  for (let round = 0; round < 500; round++) {
    const [type, reply, data] = [random.uint32(), random.uint32(), random.bytes(random.below(50))]
    assert.equal(hex(encodeOption(type, data)), hex(option(type, data)))
    assert.equal(hex(encodeOptionReply(type, reply, data)), hex(optionReply(type, reply, data)))
  }
})

test('the data of INFO and GO survives there and back, and in no other length', (scope) => {
  const random = seededRandom(scope)
  for (let round = 0; round < 300; round++) {
    const name = randomName(random)
    const requests = Array.from({ length: random.below(6) }, () => random.below(2 ** 16))
    const payload = encodeInfoRequest({ name, requests })
    assert.equal(hex(payload), hex(infoData(name, ...requests)))
    assert.deepEqual(decodeInfoRequest(payload), { name, requests })
    refusesOtherLengths(payload, decodeInfoRequest)
  }
})

test('the data of the META_CONTEXT options survives there and back, and in no other length', (scope) => {
  const random = seededRandom(scope)
  for (let round = 0; round < 300; round++) {
    const name = randomName(random)
    const queries = Array.from({ length: random.below(5) }, () => randomName(random))
    const payload = encodeMetaContextRequest({ name, queries })
    assert.equal(hex(payload), hex(contextData(name, ...queries)))
    assert.deepEqual(decodeMetaContextRequest(payload), { name, queries })
    refusesOtherLengths(payload, decodeMetaContextRequest)
  }
})

test('names are well-formed UTF-8 of at most 4096 bytes, without NUL', () => {
  assert.equal(decodeName(text('x'.repeat(4096))), 'x'.repeat(4096))
  assert.equal(decodeName(raw()), '')
  assert.equal(decodeName(raw('efbbbf61')), '\ufeffa', 'a byte order mark is a part of the name')
  const bad = ['00', '6100', 'ff', 'c328', 'c0af', 'eda080', 'f4908080', 'e282', '80']
  for (const bytes of bad) assert.equal(decodeName(raw(bytes)), undefined, bytes)
  assert.equal(decodeName(text('x'.repeat(4097))), undefined)
})

test('a list entry survives there and back, and is refused when it ends within its name', (scope) => {
  const random = seededRandom(scope)
  for (let round = 0; round < 300; round++) {
    const [name, description] = [randomName(random), randomName(random)]
    const payload = encodeServer(name, description)
    assert.equal(hex(payload), hex(raw(be32(text(name).length), text(name), text(description))))
    assert.deepEqual(decodeServer(payload), { name, description })
    const needed = 4 + text(name).length
    for (let end = 0; end < needed; end++) assert.equal(decodeServer(payload.subarray(0, end)), undefined)
  }
  assert.equal(decodeServer(raw('ffffffff')), undefined)
  assert.equal(decodeServer(raw('00000002 c328')), undefined)
})

test('a metadata context survives there and back, and is refused without its id', (scope) => {
  const random = seededRandom(scope)
  for (let round = 0; round < 300; round++) {
    const context = { id: random.uint32(), name: randomName(random) }
    const payload = encodeMetaContext(context)
    assert.equal(hex(payload), hex(raw(be32(context.id), text(context.name))))
    assert.deepEqual(decodeMetaContext(payload), context)
    for (let end = 0; end < 4; end++) assert.equal(decodeMetaContext(payload.subarray(0, end)), undefined)
  }
  assert.equal(decodeMetaContext(raw('00000001 ff')), undefined)
})

test('every kind of information survives there and back, and adds up in one value', (scope) => {
  const random = seededRandom(scope)
  for (let round = 0; round < 300; round++) {
    const info: Required<ExportInfo> = {
      size: random.safeInteger(),
      transmissionFlags: random.below(2 ** 16),
      name: randomName(random),
      description: randomName(random),
      blockSizes: { minimum: random.uint32(), preferred: random.uint32(), maximum: random.uint32() },
    }
    const { minimum, preferred, maximum } = info.blockSizes
    const encoded = [
      [encodeInfoExport(info.size, info.transmissionFlags), raw('0000', be64(info.size), be16(info.transmissionFlags))],
      [encodeInfoText(1, info.name), raw('0001', text(info.name))],
      [encodeInfoText(2, info.description), raw('0002', text(info.description))],
      [encodeInfoBlockSize(info.blockSizes), raw('0003', be32(minimum), be32(preferred), be32(maximum))],
    ] as const
    const found: ExportInfo = {}
    for (const [payload, byHand] of encoded) {
      assert.equal(hex(payload), hex(byHand))
      decodeInfo(payload, found)
    }
    assert.deepEqual(found, info)
  }
})

test('information of unknown types or wrong lengths is passed over', () => {
  const into: ExportInfo = {}
  for (const payload of ['', '00', '0000', '0000 00000000000000', '0003 000000', '0004', 'ffff 1234']) {
    decodeInfo(raw(payload), into)
  }
  decodeInfo(raw('0000', be64(1), '0001', '00'), into)
  assert.deepEqual(into, {})
  decodeInfo(raw('0000', be64(-1n), '0001'), into)
  assert.deepEqual(into, { size: Number.MAX_SAFE_INTEGER, transmissionFlags: 1 })
})
