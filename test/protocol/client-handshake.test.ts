// The client's half of the handshake against a server that is a row of bytes.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ClientHandshake, connectClient, enterTransmission, OptionError, ProtocolError } from 'nbd-protocol'
import {
  be16,
  be32,
  be64,
  contextData,
  FLAGS,
  FLAGS_WITH_ZEROES,
  GREETING,
  hex,
  infoData,
  option,
  optionReply,
  raw,
  text,
  zeroes,
} from '../support/raw-bytes.js'
import { RawStream } from '../support/raw-stream.js'

const ACK = 1
const UNSUP = 2 ** 31 + 1
const UNKNOWN = 2 ** 31 + 6
const GO = 7
const STRUCTURED = 8
const SET_CONTEXT = 10
const EXTENDED = 11

const SIZE = 0x123456789a00
const exportInfo = (type: number) => optionReply(type, 3, '0000', be64(SIZE), '05ed')
const WENT = raw(
  exportInfo(GO),
  optionReply(GO, 3, '0001', text('disk')),
  optionReply(GO, 3, '0002', text('größe')),
  optionReply(GO, 3, '0003 00000001 00001000 02000000'),
  optionReply(GO, 3, '7777 0102'),
  optionReply(GO, ACK),
)
const TOLD = {
  size: SIZE,
  transmissionFlags: 0x5ed,
  name: 'disk',
  description: 'größe',
  blockSizes: { minimum: 1, preferred: 4096, maximum: 0x2000000 },
}

function streamSaying(...bytes: readonly (string | Uint8Array)[]): RawStream {
  const stream = new RawStream()
  stream.arrive(raw(...bytes))
  stream.end()
  return stream
}

for (const piece of [1, 7, 1000]) {
  test(`a full negotiation is understood in pieces of ${piece} bytes, and the client says what the spec draws`, async () => {
    const stream = new RawStream()
    const selected = optionReply(SET_CONTEXT, 4, '0000000a', text('base:allocation'))
    stream.arrive(raw(GREETING, optionReply(EXTENDED, ACK), selected, optionReply(SET_CONTEXT, ACK), WENT), piece)
    const wishes = { replyStyle: 'extended', contexts: ['base:allocation', 'x:y'] } as const
    const client = await connectClient(stream, 'disk', wishes)
    const contexts = [{ id: 10, name: 'base:allocation' }]
    assert.deepEqual(client.negotiation, { info: TOLD, replyStyle: 'extended', contexts })
    assert.equal(client.size, SIZE)
    const set = option(SET_CONTEXT, contextData('disk', 'base:allocation', 'x:y'))
    const byHand = raw(FLAGS, option(EXTENDED), set, option(GO, infoData('disk', 1, 2, 3)))
    assert.equal(hex(stream.takeSent()), hex(byHand))
    await client.disconnect()
    assert.equal(hex(stream.sent), hex(raw('21e41c71 0000 0002', zeroes(24))))
    assert.ok(stream.closed)
  })
}

test('a wish that the server does not know is given up, a refusal for another reason is not', async () => {
  const refused = raw(optionReply(EXTENDED, UNSUP, text('what?')), optionReply(STRUCTURED, UNSUP))
  const old = await connectClient(streamSaying(GREETING, refused, WENT), 'disk', { replyStyle: 'extended' })
  assert.equal(old.negotiation.replyStyle, 'simple')
  const newer = raw(optionReply(EXTENDED, UNSUP), optionReply(STRUCTURED, ACK))
  const middle = await connectClient(streamSaying(GREETING, newer, WENT), 'disk', { replyStyle: 'extended' })
  assert.equal(middle.negotiation.replyStyle, 'structured')
  const policy = streamSaying(GREETING, optionReply(STRUCTURED, 2 ** 31 + 2, text('ask the operator')))
  await assert.rejects(
    connectClient(policy, 'disk'),
    /NBD_OPT_STRUCTURED_REPLY: NBD_REP_ERR_POLICY \(ask the operator\)/,
  )
})

test('a refused GO leaves the handshake open for another', async () => {
  const handshake = await ClientHandshake.begin(
    streamSaying(GREETING, optionReply(GO, UNKNOWN, text('no such export')), WENT, optionReply(2, ACK)),
  )
  const refused = (error: unknown) => error instanceof OptionError && error.type === UNKNOWN
  await assert.rejects(handshake.go('nobody', { replyStyle: 'simple' }), refused)
  assert.deepEqual((await handshake.go('disk', { replyStyle: 'simple' })).info, TOLD)
})

test('a client that does not want the size constraints does not ask for them', async () => {
  const stream = streamSaying(GREETING, WENT)
  await connectClient(stream, 'disk', { replyStyle: 'simple', blockSizes: false })
  assert.equal(hex(stream.sent), hex(raw(FLAGS, option(GO, infoData('disk', 1, 2)))))
})

test('after STARTTLS the client speaks and listens on the secure stream alone', async () => {
  const clear = streamSaying(GREETING, optionReply(5, 2 ** 31 + 2), optionReply(5, ACK), optionReply(GO, UNKNOWN))
  const handshake = await ClientHandshake.begin(clear)
  const secure = streamSaying(WENT)
  const refused = (error: unknown) => error instanceof OptionError && error.type === 2 ** 31 + 2
  await assert.rejects(
    handshake.startTls(async () => assert.fail('what was refused is not begun')),
    refused,
  )
  await handshake.startTls(async () => secure)
  const client = await enterTransmission(handshake, 'disk', { replyStyle: 'simple' })
  assert.equal(client.size, SIZE, 'what an attacker put behind the grant is not heard')
  assert.equal(hex(clear.sent), hex(raw(FLAGS, option(5), option(5))))
  await client.disconnect()
  assert.equal(hex(secure.sent), hex(raw(option(GO, infoData('disk', 1, 2, 3)), '25609513 0000 0002', zeroes(20))))
})

test('LIST, INFO, LIST_META_CONTEXT and ABORT give back what the server told', async () => {
  const stream = streamSaying(
    GREETING,
    optionReply(3, 2, be32(4), text('diskthe first')),
    optionReply(3, 2, be32(7), text('größe')),
    optionReply(3, ACK),
    exportInfo(6),
    optionReply(6, ACK),
    optionReply(9, 4, be32(0), text('base:allocation')),
    optionReply(9, ACK),
    optionReply(2, ACK),
  )
  const handshake = await ClientHandshake.begin(stream)
  const exports = [
    { name: 'disk', description: 'the first' },
    { name: 'größe', description: '' },
  ]
  assert.deepEqual(await handshake.list(), exports)
  assert.deepEqual(await handshake.info('größe'), { size: SIZE, transmissionFlags: 0x5ed })
  assert.deepEqual(await handshake.listContexts('disk', ['base:']), [{ id: 0, name: 'base:allocation' }])
  await handshake.abort()
  assert.ok(stream.closed)
  const byHand = raw(
    FLAGS,
    option(3),
    option(6, infoData('größe', 1, 2, 3)),
    option(9, contextData('disk', 'base:')),
    option(2),
  )
  assert.equal(hex(stream.sent), hex(byHand))
})

for (const [greeting, flags, padding] of [
  [GREETING, FLAGS, 0],
  [GREETING.replace(/3$/, '1'), FLAGS_WITH_ZEROES, 124],
] as const) {
  test(`EXPORT_NAME reads size and flags and ${padding} zeroes, as the flags of both sides have it`, async () => {
    const stream = streamSaying(greeting, be64(SIZE), be16(3), zeroes(padding), '67446698')
    const handshake = await ClientHandshake.begin(stream)
    const { info } = await handshake.exportName('größe')
    assert.deepEqual(info, { size: SIZE, transmissionFlags: 3 })
    assert.equal(hex(await handshake.reader.mustTake(4)), '67446698', 'what follows is the first reply')
    assert.equal(hex(stream.sent), hex(raw(flags, option(1, text('größe')))))
  })
}

const FOREIGN: Readonly<Record<string, Uint8Array>> = {
  'an oldstyle server': raw(text('NBDMAGIC'), '00420281861253', zeroes(200)),
  'a web server': text('HTTP/1.1 400 Bad Request\r\n\r\n'),
  'a newstyle server that is not fixed': raw(text('NBDMAGICIHAVEOPT'), '0000'),
  'a reply to another option': raw(GREETING, optionReply(GO, ACK)),
  'a reply with another magic': raw(GREETING, raw('0003e889045565aa'), optionReply(STRUCTURED, ACK).subarray(8)),
  'a GO that tells no size': raw(GREETING, optionReply(STRUCTURED, ACK), optionReply(GO, ACK)),
}

for (const [what, bytes] of Object.entries(FOREIGN)) {
  test(`${what} ends the handshake with a ProtocolError`, async () => {
    await assert.rejects(connectClient(streamSaying(bytes), 'disk'), ProtocolError)
  })
}

test('a server that leaves anywhere in the handshake is noticed, with a ProtocolError', async () => {
  const whole = raw(GREETING, optionReply(STRUCTURED, ACK), WENT)
  for (let end = 0; end < whole.length; end++) {
    await assert.rejects(
      connectClient(streamSaying(whole.subarray(0, end)), 'disk'),
      ProtocolError,
      `after ${end} bytes`,
    )
  }
  assert.equal((await connectClient(streamSaying(whole), 'disk')).size, SIZE)
})
