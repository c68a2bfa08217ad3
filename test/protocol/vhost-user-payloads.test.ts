// Every payload of vhost-user against bytes written by hand, there and back, cut short and with a byte too many.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  bits,
  decodeConfigAccess,
  decodeDiscardSegments,
  decodeInflightArea,
  decodeMemoryTable,
  decodeSingleRegion,
  decodeU64,
  decodeVringAddress,
  decodeVringFile,
  decodeVringState,
  encodeBlockConfig,
  encodeConfigAccess,
  encodeDiscardSegments,
  encodeInflightArea,
  encodeMemoryTable,
  encodeMessage,
  encodeSingleRegion,
  encodeU64,
  encodeVringAddress,
  encodeVringFile,
  encodeVringState,
  hasBit,
} from 'vhost-user-protocol'
import { hex, raw, zeroes } from '../support/raw-bytes.js'
import { le16, le32, le64, message, PLAIN, region, table } from '../support/raw-vhost-user.js'

interface Case<Value> {
  readonly what: string
  readonly bytes: Uint8Array
  readonly value: Value
  readonly decode: (bytes: Uint8Array) => Value | undefined
  readonly encode: (value: Value) => Uint8Array
}

function there<Value>({ what, bytes, value, decode, encode }: Case<Value>): void {
  test(`${what} is read and written as the spec draws it`, () => {
    assert.deepEqual(decode(bytes), value)
    assert.equal(hex(encode(value)), hex(bytes))
  })
  test(`${what} of any other length is not read as anything`, () => {
    for (let end = 0; end < bytes.length; end++) {
      const cut = decode(bytes.subarray(0, end))
      assert.equal(cut, undefined, `cut to ${end} bytes`)
    }
    assert.equal(decode(raw(bytes, '00')), undefined, 'with a byte too many')
  })
}

const HIGH = 0xffff_ffff_ffff_ffffn
const MEMORY = { guestAddress: 0x1_0000_0000n, size: HIGH, userAddress: 0x7f12_3456_7000n, offset: 4096n }
const ADDRESS = { index: 3, flags: 1, descriptor: 0x7f00_0000_1000n, used: HIGH, available: 16n, log: 9n }

there({ what: 'a u64', bytes: raw(le64(HIGH - 1n)), value: HIGH - 1n, decode: decodeU64, encode: encodeU64 })

there({
  what: 'a vring state description',
  bytes: raw(le32(0xffff_ffff), le32(256)),
  value: { index: 0xffff_ffff, num: 256 },
  decode: decodeVringState,
  encode: encodeVringState,
})

there({
  what: 'a vring address description',
  bytes: raw(le32(3), le32(1), le64(0x7f00_0000_1000n), le64(HIGH), le64(16), le64(9)),
  value: ADDRESS,
  decode: decodeVringAddress,
  encode: encodeVringAddress,
})

there({
  what: 'the ring of a kick',
  bytes: raw(le64(0x12)),
  value: { index: 0x12, hasDescriptor: true },
  decode: decodeVringFile,
  encode: encodeVringFile,
})

there({
  what: 'the ring of a kick without a descriptor',
  bytes: raw(le64(0x112)),
  value: { index: 0x12, hasDescriptor: false },
  decode: decodeVringFile,
  encode: encodeVringFile,
})

there({
  what: 'a memory table',
  bytes: table(region(0x1_0000_0000n, HIGH, 0x7f12_3456_7000n, 4096n), region(0n, 1n, 2n, 3n)),
  value: [MEMORY, { guestAddress: 0n, size: 1n, userAddress: 2n, offset: 3n }],
  decode: decodeMemoryTable,
  encode: encodeMemoryTable,
})

there({
  what: 'a single region',
  bytes: raw(le64(0), region(0x1_0000_0000n, HIGH, 0x7f12_3456_7000n, 4096n)),
  value: MEMORY,
  decode: decodeSingleRegion,
  encode: encodeSingleRegion,
})

test('an in-flight area is read with and without its padding, and answered in the length of the question', () => {
  const area = { size: 4096n, offset: 64n, queues: 4, queueSize: 128 }
  const bare = raw(le64(4096), le64(64), le16(4), le16(128))
  const padded = raw(bare, zeroes(4))
  for (let length = 0; length < 30; length++) {
    const expected = length === 20 || length === 24 ? area : undefined
    assert.deepEqual(decodeInflightArea(raw(padded, zeroes(6)).subarray(0, length)), expected, `${length} bytes`)
  }
  assert.equal(hex(encodeInflightArea(area, 20)), hex(bare))
  assert.equal(hex(encodeInflightArea(area, 24)), hex(padded))
})

test('an access to the configuration space holds as many bytes as it says, or none, and stays within 256', () => {
  const access = (offset: number, size: number, ...data: readonly (string | Uint8Array)[]) =>
    decodeConfigAccess(raw(le32(offset), le32(size), le32(1), ...data))
  assert.deepEqual(access(32, 1, '01'), { offset: 32, size: 1, flags: 1, data: raw('01') })
  assert.deepEqual(access(0, 60), { offset: 0, size: 60, flags: 1, data: raw() })
  assert.equal(access(32, 1, '0101'), undefined)
  assert.equal(access(32, 3, '0101'), undefined)
  assert.equal(access(200, 57, zeroes(57)), undefined)
  assert.notEqual(access(200, 56, zeroes(56)), undefined)
  assert.equal(access(0, 0xffff_ffff), undefined)
  assert.equal(access(0xffff_ffff, 1, '00'), undefined)
  assert.notEqual(access(0x100 + 200, 56), undefined)
  assert.equal(access(0x100 + 200, 57), undefined)
  assert.equal(access(0x201, 0), undefined)
  assert.equal(decodeConfigAccess(zeroes(11)), undefined)
  const written = encodeConfigAccess({ offset: 32, size: 1, flags: 1, data: raw('01') })
  assert.equal(hex(written), hex(raw(le32(32), le32(1), le32(1), '01')))
})

test('a memory table that names not as many regions as it holds is not read', () => {
  const one = region(0n, 1n, 2n, 3n)
  assert.equal(decodeMemoryTable(table(...Array.from({ length: 64 }, () => one)))?.length, 64)
  assert.equal(decodeMemoryTable(raw(le32(2), le32(0), one)), undefined)
  assert.equal(decodeMemoryTable(raw(le32(0xffff_ffff), le32(0), one)), undefined)
  assert.deepEqual(decodeMemoryTable(table()), [])
})

test('a message has its request, version 1 with its flags, its size and its payload', () => {
  assert.equal(hex(encodeMessage(18, raw('0102'), 4)), '12000000050000000200000' + '00102')
  assert.equal(hex(encodeMessage(1)), hex(message(1, PLAIN)))
})

test('the configuration space is struct virtio_blk_config, and zeroes behind it', () => {
  const config = encodeBlockConfig({
    size: 5 * 2 ** 40 + 512,
    segmentBytesMax: 1 << 20,
    segmentsMax: 126,
    blockSize: 512,
    physicalBlockSize: 4096,
    optimalIoBytes: 65536,
    writeback: true,
    queues: 4,
    discardSectorsMax: 2 ** 22,
    discardSegmentsMax: 16,
    discardAlignment: 8,
  })
  const geometry = '0000 00 00'
  const topology = raw('03 00', le16(8), le32(128))
  const drawn = raw(
    raw(le64(5n * 2n ** 31n + 1n), le32(1 << 20), le32(126), geometry, le32(512), topology),
    raw('01 00', le16(4), le32(2 ** 22), le32(16), le32(8), le32(2 ** 22), le32(16), '01 000000'),
  )
  assert.equal(hex(config.subarray(0, drawn.length)), hex(drawn))
  assert.deepEqual(config.subarray(drawn.length), zeroes(256 - drawn.length))
})

test('the segments of a discard are read where they lie; a sector beyond all numbers is beyond every end', () => {
  const bytes = raw('ffffff', le64(7), le32(8), le32(1), le64(2n ** 63n), le32(0xffff_ffff), le32(0), 'ff')
  const view = new DataView(bytes.buffer)
  assert.deepEqual(decodeDiscardSegments(view, 3, 32), [
    { sector: 7, sectors: 8, flags: 1 },
    { sector: Number.POSITIVE_INFINITY, sectors: 0xffff_ffff, flags: 0 },
  ])
  for (const length of [0, 1, 15, 17, 31]) assert.equal(decodeDiscardSegments(view, 3, length), undefined)
  assert.equal(hex(encodeDiscardSegments([{ sector: 7, sectors: 8, flags: 1 }])), hex(bytes.subarray(3, 19)))
})

test('bits beyond the 32nd are told apart', () => {
  assert.equal(bits(0, 34), 0x4_0000_0001n)
  assert.ok(hasBit(0x4_0000_0000n, 34))
  assert.ok(!hasBit(0x4_0000_0000n, 2))
})
