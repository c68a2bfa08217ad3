// The client whose server breaks the protocol or leaves. Law: every pending request rejects, later ones too, and
// nothing waits for ever.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ByteReader, Client, ProtocolError, type ReplyStyle } from 'nbd-protocol'
import { be16, be32, be64, chunk, filled, hex, raw, simpleReply, text, zeroes } from '../support/raw-bytes.js'
import { RawStream } from '../support/raw-stream.js'

function begin(replyStyle: ReplyStyle): { client: Client; stream: RawStream } {
  const stream = new RawStream()
  const negotiation = { info: { size: 1 << 20 }, replyStyle, contexts: [{ id: 1, name: 'base:allocation' }] }
  return { client: new Client(stream, new ByteReader(stream), negotiation), stream }
}

const structured = (cookie: number, flags: number, type: number, ...data: (string | Uint8Array)[]) =>
  chunk({ cookie, flags, type }, ...data)
const extended = (cookie: number, flags: number, type: number, ...data: (string | Uint8Array)[]) =>
  chunk({ cookie, flags, type, offset: 512 }, ...data)

/** Enough turns of the event loop for everything that needs no more bytes to have happened. */
async function turns(count: number): Promise<undefined> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve))
  return undefined
}

/** What no server may say while a read of 16 bytes at 512 (cookie 1), a flush (2) and a block status (3) are pending. */
const BROKEN: Readonly<Record<string, Uint8Array>> = {
  'a magic that no reply has': raw('67446699', zeroes(60)),
  'a request instead of a reply': raw('25609513', zeroes(60)),
  'option replies in transmission': raw('0003e889045565a9', zeroes(60)),
  'a cookie that no request carries': simpleReply(4, 0),
  'the cookie 0': simpleReply(0, 0),
  'a cookie of 64 bits whose low half is known': raw('67446698 00000000 00000001 00000002'),
  'an answer to a request that was answered': raw(simpleReply(2, 0), simpleReply(2, 0)),
  'data in front of the read': structured(1, 1, 1, be64(511), text('x')),
  'data past the end of the read': structured(1, 1, 1, be64(520), filled(9, 1)),
  'a hole past the end of the read': extended(1, 1, 2, be64(512), be32(17)),
  'data at an offset past 2^53': extended(1, 1, 1, be64(-1n), text('x')),
  'a data chunk without an offset': structured(1, 1, 1, be32(0)),
  'a hole chunk without a length': structured(1, 1, 2, be64(512)),
  'a hole of zero bytes in four': structured(1, 1, 2, be32(0)),
  'an empty block status chunk': structured(3, 1, 5),
  'a wide block status chunk of two bytes': extended(3, 1, 6, be16(1)),
  'a chunk of a kind that is no error and not known': structured(1, 1, 99, text('what is this')),
}

for (const [what, bytes] of Object.entries(BROKEN)) {
  for (const piece of [1, 1000]) {
    test(`${what} ends every pending request with a ProtocolError, in pieces of ${piece}`, async () => {
      const { client, stream } = begin('structured')
      const pending = [client.read(512, 16), client.flush(), client.blockStatus(0, 1)]
      const settled = Promise.allSettled(pending)
      stream.arrive(bytes, piece)
      const answered = what.startsWith('an answer') ? 1 : undefined
      const results = await Promise.race([settled, turns(50)])
      stream.end()
      assert.ok(results !== undefined, 'some requests wait for ever')
      for (const [index, result] of results.entries()) {
        if (index === answered) continue
        assert.ok(result.status === 'rejected', `request ${index + 1} was granted`)
        assert.ok(result.reason instanceof ProtocolError, `${result.reason?.stack}`)
      }
      await assert.rejects(client.flush(), ProtocolError, 'what comes later is refused at once')
      await client.disconnect()
    })
  }
}

test('a hole of 4 GiB in the reply to a small read is refused before memory is taken for it', async () => {
  const { client, stream } = begin('structured')
  const before = process.memoryUsage().arrayBuffers
  const read = client.read(512, 16)
  stream.arrive(structured(1, 1, 2, be64(512), 'ffffffff'))
  stream.end()
  await assert.rejects(read, ProtocolError)
  assert.ok(process.memoryUsage().arrayBuffers - before < 2 ** 30)
  await client.disconnect()
})

const READS: Readonly<Record<ReplyStyle, Uint8Array>> = {
  simple: raw(simpleReply(2, 0), simpleReply(1, 0, text('0123456789abcdef')), simpleReply(3, 28)),
  structured: raw(
    structured(1, 0, 1, be64(516), text('456789abcdef')),
    simpleReply(2, 0),
    structured(3, 1, 0x8002, be32(28), be16(4), text('full'), be64(4096)),
    structured(1, 1, 1, be64(512), text('0123')),
  ),
  extended: raw(
    extended(1, 0, 1, be64(512), text('0123456789abcdef')),
    chunk({ cookie: 3, flags: 1, type: 0x8001, offset: 4096 }, be32(28), be16(4), text('full')),
    chunk({ cookie: 2, flags: 1, type: 0, offset: 0 }),
    extended(1, 1, 0),
  ),
}

for (const style of ['simple', 'structured', 'extended'] as const) {
  test(`a server that leaves after any byte of its ${style} replies leaves no request waiting`, async () => {
    const replies = READS[style]
    for (let end = 0; end <= replies.length; end++) {
      const { client, stream } = begin(style)
      const settled = Promise.allSettled([client.read(512, 16), client.flush(), client.write(4096, text('x'))])
      stream.arrive(replies.subarray(0, end), 1 + (end % 7))
      stream.end()
      const [read, flush, write] = await settled
      assert.ok(write.status === 'rejected', 'the write fails in any case')
      if (end === replies.length) {
        assert.ok(read.status === 'fulfilled' && hex(read.value) === hex(text('0123456789abcdef')))
        assert.equal(flush.status, 'fulfilled')
        assert.match(String(write.reason), /write: NBD_ENOSPC/)
      } else {
        const rejected = [read, flush, write].flatMap((result) => (result.status === 'rejected' ? [result.reason] : []))
        assert.ok(
          rejected.some((reason) => reason instanceof ProtocolError),
          `something is lost after ${end} bytes`,
        )
      }
      await assert.rejects(client.flush(), ProtocolError)
      await client.disconnect()
    }
  })
}

test('a request after the goodbye is refused, and disconnecting twice is no harm', async () => {
  const { client, stream } = begin('simple')
  await client.disconnect()
  await assert.rejects(client.read(0, 1), ProtocolError)
  const sent = hex(stream.sent)
  await client.disconnect()
  assert.equal(hex(stream.sent), sent)
})
