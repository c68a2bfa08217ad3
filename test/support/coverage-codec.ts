// The codec's pure functions under any bytes. An input is one byte that chooses the function, then what it decodes.
// Law: what decodes is encoded to the same bytes again, and no byte beside the given ones has a part in it.
import assert from 'node:assert/strict'
import * as nbd from 'nbd-protocol'
import type { Target } from './coverage-explorer.js'
import {
  be16,
  be32,
  chunk,
  contextData,
  hex,
  infoData,
  raw,
  request,
  simpleReply,
  text,
  writeRequest,
} from './raw-bytes.js'

type Decode = (bytes: Uint8Array) => unknown

function same(encoded: Uint8Array, bytes: Uint8Array): void {
  assert.equal(hex(encoded), hex(bytes), 'what was decoded encodes to the same bytes')
}

/** Requests one behind the other, as transmission walks them. */
function requests(extended: boolean): Decode {
  return (bytes) => {
    const view = nbd.viewOf(bytes)
    const found: unknown[] = []
    const headerBytes = nbd.requestHeaderBytes(extended)
    for (let at = 0; bytes.length - at >= headerBytes; ) {
      const decoded = nbd.decodeRequest(view, at, extended, nbd.emptyRequest())
      for (const value of Object.values(decoded)) assert.ok(Number.isSafeInteger(value) && value >= 0)
      const size = nbd.frameSize(view, at, extended)
      assert.equal(size, headerBytes + decoded.payloadLength)
      if (decoded.offset < nbd.SATURATED && decoded.length < nbd.SATURATED) {
        const again = new Uint8Array(headerBytes)
        assert.equal(nbd.encodeRequest(nbd.viewOf(again), 0, extended, decoded), headerBytes)
        same(again, bytes.subarray(at, at + headerBytes))
      }
      found.push(decoded)
      at += size
    }
    return found
  }
}

function replies(bytes: Uint8Array): unknown {
  const view = nbd.viewOf(bytes)
  const found: nbd.ReplyHeader[] = []
  for (let at = 0; bytes.length - at >= nbd.EXTENDED_CHUNK_BYTES; ) {
    const header = nbd.decodeReplyHeader(view, at)
    const { style, error, flags, type, length } = header
    const again = new Uint8Array(nbd.replyHeaderBytes(view, at))
    const target = nbd.viewOf(again)
    const offset = style === 'extended' ? nbd.getUint64(view, at + 16) : 0
    if (style === 'simple') nbd.encodeSimpleReply(target, 0, header, error)
    else nbd.encodeChunk(target, 0, style, header, offset, flags, type, length)
    if (offset < nbd.SATURATED && length < nbd.SATURATED) same(again, bytes.subarray(at, at + again.length))
    found.push(header)
    at += again.length + length
  }
  return found
}

/** A decoder that answers undefined for what is malformed; anything else must be what its encoder makes. */
function payload<T>(decode: (bytes: Uint8Array) => T | undefined, encode: (value: T) => Uint8Array): Decode {
  return (bytes) => {
    const decoded = decode(bytes)
    if (decoded !== undefined) same(encode(decoded), bytes)
    return decoded
  }
}

function server(bytes: Uint8Array): unknown {
  const decoded = nbd.decodeServer(bytes)
  if (decoded !== undefined && decoded.description !== '') {
    same(nbd.encodeServer(decoded.name, decoded.description), bytes)
  }
  return decoded
}

function info(bytes: Uint8Array): unknown {
  const into: nbd.ExportInfo = {}
  nbd.decodeInfo(bytes, into)
  const { size, transmissionFlags = 0, blockSizes } = into
  if (size !== undefined && size < nbd.SATURATED) same(nbd.encodeInfoExport(size, transmissionFlags), bytes)
  if (blockSizes !== undefined) same(nbd.encodeInfoBlockSize(blockSizes), bytes)
  if (into.name) same(nbd.encodeInfoText(nbd.NBD_INFO_NAME, into.name), bytes)
  if (into.description) same(nbd.encodeInfoText(nbd.NBD_INFO_DESCRIPTION, into.description), bytes)
  return into
}

function texts(bytes: Uint8Array): unknown {
  const shown = nbd.decodeForDisplay(bytes)
  const message = nbd.errorMessage(shown)
  assert.ok(message.length <= nbd.NBD_MAX_STRING)
  assert.ok(shown.startsWith(nbd.decodeForDisplay(message)), 'a message is cut between characters')
  const at = { cookieHigh: 1, cookieLow: 2, offset: 3 }
  const error = new Uint8Array(nbd.errorChunkBytes(message))
  for (const style of ['structured', 'extended'] as const) {
    for (const located of [undefined, 4]) {
      assert.ok(nbd.encodeErrorChunk(nbd.viewOf(error), 0, style, at, 5, message, located) <= error.length)
    }
  }
  return [shown, nbd.decodeName(bytes), nbd.decodeUtf8(bytes)]
}

const name = payload(nbd.decodeName, nbd.encodeUtf8)

const DECODERS: readonly Decode[] = [
  requests(false),
  requests(true),
  replies,
  payload(nbd.decodeInfoRequest, nbd.encodeInfoRequest),
  payload(nbd.decodeMetaContextRequest, nbd.encodeMetaContextRequest),
  payload(nbd.decodeMetaContext, nbd.encodeMetaContext),
  server,
  info,
  texts,
  name,
]

/** The bytes between others of one kind: a decoder that looks beside them finds something else each time. */
function surrounded(bytes: Uint8Array, by: number): Uint8Array {
  const around = new Uint8Array(bytes.length + 96).fill(by)
  around.set(bytes, 48)
  return around.subarray(48, 48 + bytes.length)
}

function outcome(decode: Decode, bytes: Uint8Array): unknown {
  try {
    return decode(bytes)
  } catch (error) {
    if (!(error instanceof nbd.ProtocolError)) throw error
    return `${error.code}: ${error.message}`
  }
}

function run(input: Uint8Array): void {
  const [choice = 0] = input
  const decode = DECODERS[choice % DECODERS.length] ?? name
  const bytes = input.subarray(1)
  const found = outcome(decode, surrounded(bytes, 0))
  assert.deepEqual(outcome(decode, surrounded(bytes, 0xff)), found, 'only the bytes that were given count')
}

const PAYLOAD_LEN = 1 << 5
const SEEDS: readonly (readonly [choice: number, ...parts: (string | Uint8Array)[]])[] = [
  [0, writeRequest('simple', 1n, 512, text('data')), request('simple', { type: 0, cookie: 2n, length: 2 ** 32 - 1 })],
  [
    1,
    writeRequest('extended', 3n, 2 ** 40, text('data')),
    request('extended', { type: 6, cookie: 4n, length: 2n ** 63n }),
  ],
  [1, request('extended', { type: 1, flags: PAYLOAD_LEN, cookie: 5n, length: 2n ** 64n - 1n })],
  [
    2,
    simpleReply(1, 5),
    chunk({ cookie: 2, flags: 1, type: 0 }),
    chunk({ cookie: 3, flags: 0, type: 5, offset: 9 }, 'ff'),
  ],
  [2, chunk({ cookie: 1, flags: 0, type: 1 }, '0000000000000000', text('data')), simpleReply(2, 0), simpleReply(3, 0)],
  [3, infoData('größe', 1, 2, 3)],
  [3, infoData('x'.repeat(4097), 1)],
  [4, contextData('disk', 'base:allocation', '', 'ü')],
  [5, be32(7), text('base:allocation')],
  [6, be32(4), text('diskwords')],
  [7, be16(0), '0000123456789a000003'],
  [7, be16(3), be32(1), be32(4096), be32(2 ** 25)],
  [7, be16(1), text('disk')],
  [7, be16(2), text('words')],
  [8, text('größe'), 'ff80'],
  [8, text('ü'.repeat(2100))],
  [8, text(`${'x'.repeat(4095)}€`)],
  [9, text('größe')],
]

export const codecTarget: Target = {
  name: 'codec',
  seconds: 6,
  seeds: SEEDS.map(([choice, ...parts]) => raw(Uint8Array.of(choice), ...parts)),
  stepsPerByteMax: 16,
  batch: 128,
  run,
}
