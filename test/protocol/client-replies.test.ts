// The client in transmission against raw bytes: replies in any order and any pieces, holes, errors, block status.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ByteReader, Client, type MetaContext, type ReplyStyle, RequestError } from 'nbd-protocol'
import {
  be16,
  be32,
  be64,
  chunk,
  filled,
  hex,
  raw,
  request,
  simpleReply,
  text,
  writeRequest,
  zeroes,
} from '../support/raw-bytes.js'
import { RawStream } from '../support/raw-stream.js'

const DONE = 1
const NONE = 0
const DATA = 1
const HOLE = 2
const STATUS = 5
const STATUS_EXT = 6
const ERROR = 0x8001
const ERROR_OFFSET = 0x8002
const BASE: MetaContext = { id: 1, name: 'base:allocation' }
const CHUNK_STYLES = ['structured', 'extended'] as const

function begin(replyStyle: ReplyStyle, contexts: readonly MetaContext[] = []): { client: Client; stream: RawStream } {
  const stream = new RawStream()
  return {
    client: new Client(stream, new ByteReader(stream), { info: { size: 1 << 20 }, replyStyle, contexts }),
    stream,
  }
}

/** A chunk in the style's own form; `offset` is the request's. */
function reply(
  style: ReplyStyle,
  cookie: number,
  offset: number,
  flags: number,
  type: number,
  ...data: (string | Uint8Array)[]
) {
  return chunk({ cookie, flags, type, ...(style === 'extended' ? { offset } : {}) }, ...data)
}

async function refusal(promise: Promise<unknown>): Promise<RequestError> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  assert.ok(error instanceof RequestError, `${error} is no RequestError`)
  return error
}

for (const style of ['simple', 'structured', 'extended'] as const) {
  test(`every command is sent in the ${style} style as the spec draws it`, async () => {
    const { client, stream } = begin(style)
    const left = Promise.allSettled([
      client.read(4096, 512),
      client.write(2 ** 40, text('data'), 1),
      client.flush(),
      client.trim(0, 2 ** 32 - 1, 1),
      client.cache(1, 2),
      client.writeZeroes(3, 4, 2),
      client.blockStatus(5, 6, 8),
    ])
    await client.disconnect()
    const byHand = raw(
      request(style, { type: 0, cookie: 1n, offset: 4096, length: 512 }),
      writeRequest(style, 2n, 2 ** 40, text('data'), 1),
      request(style, { type: 3, cookie: 3n }),
      request(style, { type: 4, flags: 1, cookie: 4n, length: 2 ** 32 - 1 }),
      request(style, { type: 5, cookie: 5n, offset: 1, length: 2 }),
      request(style, { type: 6, flags: 2, cookie: 6n, offset: 3, length: 4 }),
      request(style, { type: 7, flags: 8, cookie: 7n, offset: 5, length: 6 }),
      request(style, { type: 2, cookie: 0n }),
    )
    assert.equal(hex(stream.sent), hex(byHand))
    assert.ok(
      (await left).every(({ status }) => status === 'rejected'),
      'what was not answered is not done',
    )
  })
}

for (const piece of [1, 5, 1000]) {
  test(`simple replies in another order settle their own requests, in pieces of ${piece} bytes`, async () => {
    const { client, stream } = begin('simple')
    const all = [client.read(0, 3), client.write(0, text('x')), client.read(7, 2), refusal(client.flush())] as const
    const third = simpleReply(3, 0, text('67'))
    stream.arrive(raw(third, simpleReply(4, 28), simpleReply(1, 0, text('abc')), simpleReply(2, 0)), piece)
    const [first, , read, failure] = await Promise.all(all)
    assert.deepEqual([hex(first), hex(read)], [hex(text('abc')), hex(text('67'))])
    assert.deepEqual([failure.error, failure.offset], [28, undefined])
    await client.disconnect()
  })

  for (const style of CHUNK_STYLES) {
    test(`${style} chunks of several reads interleave, with holes, in pieces of ${piece} bytes`, async () => {
      const { client, stream } = begin(style)
      const [first, second] = [client.read(1000, 10), client.read(2 ** 40, 4)]
      stream.arrive(
        raw(
          reply(style, 1, 1000, 0, DATA, be64(1007), text('hij')),
          reply(style, 2, 2 ** 40, 0, HOLE, be64(2 ** 40), be32(2)),
          reply(style, 1, 1000, 0, HOLE, be64(1002), be32(5)),
          reply(style, 1, 1000, 0, DATA, be64(1000), text('ab')),
          reply(style, 2, 2 ** 40, DONE, DATA, be64(2 ** 40 + 2), text('zz')),
          reply(style, 1, 1000, DONE, NONE),
        ),
        piece,
      )
      assert.equal(hex(await first), hex(raw(text('ab'), zeroes(5), text('hij'))))
      assert.equal(hex(await second), hex(raw(zeroes(2), text('zz'))))
      await client.disconnect()
    })
  }
}

for (const style of CHUNK_STYLES) {
  test(`a ${style} error names its offset and its words, also when data follows`, async () => {
    const { client, stream } = begin(style)
    const failures = Promise.all([client.read(4096, 8), client.trim(0, 1), client.write(9, text('x'))].map(refusal))
    const message = text('größe')
    stream.arrive(
      raw(
        reply(style, 1, 4096, 0, ERROR_OFFSET, be32(5), be16(message.length), message, be64(4100)),
        reply(style, 1, 4096, 0, DATA, be64(4096), text('good')),
        reply(style, 1, 4096, DONE, NONE),
        reply(style, 2, 0, DONE, ERROR, be32(95), be16(0)),
        reply(style, 3, 9, DONE, 0x80ff, be32(22), be16(2), text('odd, with more behind it')),
      ),
    )
    const [read, trim, write] = await failures
    assert.deepEqual([read?.error, read?.offset], [5, 4100])
    assert.match(read?.message ?? '', /^read: NBD_EIO \(größe\)$/)
    assert.deepEqual([trim?.error, trim?.offset, trim?.message], [95, undefined, 'trim: NBD_ENOTSUP'])
    assert.equal(write?.message, 'write: NBD_EINVAL (od)', 'error chunks of unknown kinds begin as all do')
    await client.disconnect()
  })
}

test('block status comes by context, in 32 bits and in 64', async () => {
  const depth = { id: 7, name: 'qemu:allocation-depth' }
  const narrow = begin('structured', [BASE, depth])
  const compact = narrow.client.blockStatus(0, 8192)
  narrow.stream.arrive(
    raw(
      reply('structured', 1, 0, 0, STATUS, be32(7), be32(8192), be32(1)),
      reply('structured', 1, 0, DONE, STATUS, be32(1), be32(4096), be32(3), be32(4096), be32(0)),
    ),
  )
  const halves = [
    { length: 4096, flags: 3 },
    { length: 4096, flags: 0 },
  ]
  const wanted = new Map([
    ['base:allocation', halves],
    ['qemu:allocation-depth', [{ length: 8192, flags: 1 }]],
  ])
  assert.deepEqual(await compact, wanted)
  const wide = begin('extended', [BASE])
  const large = wide.client.blockStatus(0, 2 ** 40)
  wide.stream.arrive(reply('extended', 1, 0, DONE, STATUS_EXT, be32(1), be32(1), be64(2 ** 40), be64(3)))
  assert.deepEqual(await large, new Map([['base:allocation', [{ length: 2 ** 40, flags: 3 }]]]))
  await Promise.all([narrow.client.disconnect(), wide.client.disconnect()])
})

test('a read whose chunks leave a gap is never success, for nobody may invent the missing bytes', async () => {
  for (const style of CHUNK_STYLES) {
    for (const chunks of [
      [reply(style, 1, 0, DONE, NONE)],
      [reply(style, 1, 0, DONE, DATA, be64(0), filled(15, 1))],
      [reply(style, 1, 0, 0, DATA, be64(0), filled(8, 1)), reply(style, 1, 0, DONE, DATA, be64(0), filled(8, 1))],
    ]) {
      const { client, stream } = begin(style)
      const read = client.read(0, 16)
      stream.arrive(raw(...chunks))
      stream.end()
      await assert.rejects(read, `${style}: ${hex(raw(...chunks))}`)
    }
  }
})
