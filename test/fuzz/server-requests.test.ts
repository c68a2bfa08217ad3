// The running server against clients that spoil transmission. Law: a request that can be read gets one answer, a
// stream that cannot be read ends, a frame that did not come whole changes nothing.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { seededRandom } from '../support/fuzz-random.js'
import { anyRequest, assertAnswer, exchange } from '../support/fuzz-requests.js'
import { FuzzServer, WATCHDOG_MS } from '../support/fuzz-server.js'
import { filled, raw, request, STYLES, type Style, writeRequest, zeroes } from '../support/raw-bytes.js'
import { handshakeBytes, RawClient } from '../support/raw-client.js'

const SIZE = 1 << 20
const PAYLOAD_LEN = 1 << 5

for (const style of STYLES) {
  test(`any request in the ${style} style is answered once, as it deserves`, {
    timeout: WATCHDOG_MS,
  }, async (scope) => {
    const random = seededRandom(scope)
    const server = await FuzzServer.start(scope, SIZE)
    const client = await RawClient.enter(server.path, style)
    for (let round = 0; round < 1500; round++) {
      const sent = anyRequest(random, style, SIZE)
      assertAnswer(sent, style, SIZE, await exchange(client, style, sent))
    }
    await client.leave()
    await server.assertSound(4096)
    assert.equal(await server.protocolErrors(), 0)
  })
}

test('garbage behind a good handshake ends the connection, and is counted', { timeout: WATCHDOG_MS }, async (scope) => {
  const random = seededRandom(scope)
  const server = await FuzzServer.start(scope, SIZE)
  const visits = Array.from({ length: 150 }, async (_, index) => {
    const style = random.pick(STYLES)
    const garbage = raw('00', random.bytes(31 + random.below(300)))
    const sound = request(style, { type: 0, cookie: 1n, length: 16 })
    const client = await RawClient.enter(server.path, style)
    void client.send(index % 2 === 0 ? garbage : raw(sound, garbage))
    const reply = index % 2 === 0 ? undefined : await client.reply(() => 16)
    assert.equal(reply?.error, index % 2 === 0 ? undefined : 0, 'what came before the garbage is answered')
    await client.closed
  })
  await Promise.all(visits)
  await server.assertSound(0)
  assert.equal(await server.counted('candor_protocol_errors_total', 'bad-request-magic'), visits.length)
  assert.equal(await server.protocolErrors(), visits.length)
})

test('huge announced lengths end the connection, and no memory is taken for bytes that do not come', {
  timeout: WATCHDOG_MS,
}, async (scope) => {
  const server = await FuzzServer.start(scope, SIZE)
  const huge = [
    ['simple', request('simple', { type: 1, cookie: 1n, length: 2 ** 32 - 1 })],
    ['structured', request('structured', { type: 1, cookie: 1n, length: 2 ** 31 })],
    ...[2n ** 64n - 1n, 2n ** 63n, 2n ** 53n, 2n ** 32n].flatMap((length) =>
      [1, 0, 7, 0xffff].map(
        (type) => ['extended', request('extended', { type, flags: PAYLOAD_LEN, cookie: 1n, length })] as const,
      ),
    ),
  ] as const
  for (const [style, bytes] of huge) {
    const client = await RawClient.enter(server.path, style)
    void client.send(bytes)
    await client.closed
  }
  assert.equal(await server.counted('candor_protocol_errors_total', 'payload-too-long'), huge.length)
  const resident = async () => (await server.candor.metrics()).get('process_resident_memory_bytes') ?? Number.NaN
  const before = await resident()
  const announcers = await Promise.all(Array.from({ length: 60 }, () => RawClient.enter(server.path, 'simple')))
  for (const client of announcers) await client.send(request('simple', { type: 1, cookie: 1n, length: 32 << 20 }))
  await server.settled(announcers.length)
  assert.ok((await resident()) - before < 256 << 20, 'two GiB were announced, and none of them sent')
  for (const client of announcers) client.vanish()
  await server.assertSound(0)
})

/** Every command once, behind the handshake; then goodbye. */
function session(style: Style): { readonly bytes: Uint8Array; readonly cookies: readonly bigint[] } {
  const requests = [
    request(style, { type: 0, cookie: 1n, offset: 0, length: 32 }),
    writeRequest(style, 2n, 8192, filled(64, 0x77)),
    request(style, { type: 3, cookie: 3n }),
    request(style, { type: 4, cookie: 4n, offset: 16384, length: 4096 }),
    request(style, { type: 5, cookie: 5n, offset: 0, length: 4096 }),
    request(style, { type: 6, cookie: 6n, offset: 20480, length: 100 }),
    ...(style === 'simple' ? [] : [request(style, { type: 7, cookie: 7n, offset: 0, length: 65536 })]),
  ]
  const cookies = requests.map((_, index) => BigInt(index + 1))
  return { bytes: raw(handshakeBytes(style), ...requests, request(style, { type: 2, cookie: 99n })), cookies }
}

async function assertServed(client: RawClient, cookies: readonly bigint[]): Promise<void> {
  await client.take(18)
  await client.skipOptionReplies()
  const answered: bigint[] = []
  for (;;) {
    const reply = await client.reply((cookie) => (cookie === 1n ? 32 : 0))
    if (reply === undefined) break
    assert.equal(reply.error, 0)
    if ((reply.flags & 1) !== 0) answered.push(reply.cookie)
  }
  assert.deepEqual(answered.sort(), cookies, 'one final answer each, then the server closes')
}

for (const style of STYLES) {
  test(`a session in the ${style} style is served whole, byte by byte, and cut in two at every point`, {
    timeout: WATCHDOG_MS,
  }, async (scope) => {
    const server = await FuzzServer.start(scope, SIZE)
    const { bytes, cookies } = session(style)
    const whole = await RawClient.connect(server.path)
    void whole.send(bytes)
    await assertServed(whole, cookies)
    const slow = await RawClient.connect(server.path)
    for (let at = 0; at < bytes.length; at++) await slow.send(bytes.subarray(at, at + 1))
    await assertServed(slow, cookies)
    for (let cut = 1; cut < bytes.length; cut++) {
      const client = await RawClient.connect(server.path)
      await client.send(bytes.subarray(0, cut))
      void client.send(bytes.subarray(cut))
      await assertServed(client, cookies)
    }
    await server.assertSound(0)
    assert.equal((await server.handshakeFailures()) + (await server.protocolErrors()), 0)
  })

  test(`a client in the ${style} style that leaves after any byte costs nothing, and half a WRITE is none`, {
    timeout: WATCHDOG_MS,
  }, async (scope) => {
    const server = await FuzzServer.start(scope, SIZE)
    const handshake = handshakeBytes(style)
    for (const length of [64, 200_000]) {
      const bytes = raw(handshake, writeRequest(style, 1n, 8192, filled(length, 0xee)))
      const step = Math.ceil(length / 300)
      for (let cut = 0; cut < bytes.length; cut += cut < handshake.length + 40 ? 1 : step) {
        const client = await RawClient.connect(server.path)
        await client.send(bytes.subarray(0, cut))
        if (cut % 2 === 0) client.vanish()
        else await client.leave()
      }
      await server.assertSound(0)
      const reader = await server.client(style)
      assert.deepEqual(await reader.read(8192, length), zeroes(length))
      await reader.disconnect()
    }
  })
}
