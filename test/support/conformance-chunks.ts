// What chunks of replies say, read as the specification draws them; whatever it forbids in them fails the test.
import assert from 'node:assert/strict'
import { CHUNK, DONE } from './conformance-numbers.js'
import type { Answer } from './conformance-session.js'
import type { RawReply } from './raw-client.js'

export interface Content {
  readonly offset: number
  readonly length: number
  /** undefined: a hole. */
  readonly data: Buffer | undefined
}

/** What an OFFSET_DATA or OFFSET_HOLE chunk tells of the export. */
export function contentOf({ type, payload }: RawReply): Content {
  const bytes = Buffer.from(payload)
  assert.ok(type === CHUNK.OFFSET_DATA || type === CHUNK.OFFSET_HOLE, `chunk type ${type} is no content`)
  if (type === CHUNK.OFFSET_HOLE) assert.equal(bytes.length, 12)
  else assert.ok(bytes.length >= 9)
  const offset = Number(bytes.readBigUInt64BE(0))
  if (type === CHUNK.OFFSET_DATA) return { offset, length: bytes.length - 8, data: bytes.subarray(8) }
  const length = bytes.readUInt32BE(8)
  assert.ok(length > 0, 'a hole has a size')
  return { offset, length, data: undefined }
}

/** Puts a successful READ together: chunks within bounds, none over another, all covered, DONE on the last alone. */
export function assembleRead(answer: Answer, offset: number, length: number): Buffer {
  assert.equal(answer.error, 0)
  assertDoneLast(answer)
  const whole = Buffer.alloc(length, 0xdd)
  const covered = new Uint8Array(length)
  for (const chunk of answer.chunks.filter(({ type }) => type !== CHUNK.NONE)) {
    const { offset: at, length: bytes, data } = contentOf(chunk)
    assert.ok(at >= offset && at + bytes <= offset + length, `${at}+${bytes} lies outside of ${offset}+${length}`)
    assert.ok(!covered.subarray(at - offset, at - offset + bytes).includes(1), 'no chunk lies over another')
    covered.fill(1, at - offset, at - offset + bytes)
    whole.set(data ?? Buffer.alloc(bytes), at - offset)
  }
  assert.ok(!covered.includes(0), 'all that was asked for is told')
  return whole
}

export function assertDoneLast({ chunks }: Answer): void {
  const last = chunks.length - 1
  assert.deepEqual(
    chunks.map(({ flags }) => flags & DONE),
    chunks.map((_, index) => (index === last ? DONE : 0)),
  )
}

export interface Status {
  readonly context: number
  readonly extents: readonly { readonly length: number; readonly flags: number }[]
}

/** What a status chunk tells; its type has to be the one of the reply style. */
export function statusOf({ style, type, payload }: RawReply): Status {
  const wide = style === 'extended'
  const bytes = Buffer.from(payload)
  assert.equal(type, wide ? CHUNK.BLOCK_STATUS_EXT : CHUNK.BLOCK_STATUS)
  const [head, size] = wide ? [8, 16] : [4, 8]
  const count = (bytes.length - head) / size
  assert.ok(Number.isInteger(count) && count > 0, `${bytes.length} bytes of status`)
  if (wide) assert.equal(bytes.readUInt32BE(4), count, 'the descriptor count is that of the descriptors')
  const extents = Array.from({ length: count }, (_, index) => {
    const at = head + index * size
    if (!wide) return { length: bytes.readUInt32BE(at), flags: bytes.readUInt32BE(at + 4) }
    return { length: Number(bytes.readBigUInt64BE(at)), flags: Number(bytes.readBigUInt64BE(at + 8)) }
  })
  assert.ok(
    extents.every(({ length }) => length > 0),
    'no extent is empty',
  )
  return { context: bytes.readUInt32BE(0), extents }
}

/** The status chunks of a successful BLOCK_STATUS by context; no context has two. */
export function statusesOf(answer: Answer): ReadonlyMap<number, Status['extents']> {
  assert.equal(answer.error, 0)
  assertDoneLast(answer)
  const statuses = answer.chunks.filter(({ type }) => type !== CHUNK.NONE).map(statusOf)
  const byContext = new Map(statuses.map(({ context, extents }) => [context, extents]))
  assert.equal(byContext.size, statuses.length, 'one chunk for each context')
  return byContext
}

export interface ErrorChunk {
  readonly error: number
  readonly message: string
  readonly offset: number | undefined
}

/** What an error chunk tells; its lengths have to fit each other. */
export function errorOf({ type, payload }: RawReply): ErrorChunk {
  assert.ok(type === CHUNK.ERROR || type === CHUNK.ERROR_OFFSET, `chunk type ${type} is no error`)
  const bytes = Buffer.from(payload)
  const end = 6 + bytes.readUInt16BE(4)
  assert.equal(bytes.length, type === CHUNK.ERROR ? end : end + 8)
  assert.ok(end - 6 <= 4096)
  const message = new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(6, end))
  const offset = type === CHUNK.ERROR ? undefined : Number(bytes.readBigUInt64BE(end))
  assert.notEqual(bytes.readUInt32BE(0), 0)
  return { error: bytes.readUInt32BE(0), message, offset }
}
