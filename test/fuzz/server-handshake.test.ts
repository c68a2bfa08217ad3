// The running server against clients that spoil the handshake. Law: each costs its own connection and nothing else,
// and each is counted once under a reason that stands in a fixed table.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mutated, type Random, seededRandom } from '../support/fuzz-random.js'
import { FuzzServer, WATCHDOG_MS } from '../support/fuzz-server.js'
import { contextData, FLAGS, hex, infoData, option, raw, STYLES, text, zeroes } from '../support/raw-bytes.js'
import { handshakeBytes, RawClient } from '../support/raw-client.js'

const OPTIONS_MAX = 256
const OPTION_BYTES_MAX = 64 << 10
/** Bytes that one option may be answered with by a server of one export. */
const REPLY_BYTES_MAX = 5000

/** Says all that, in pieces, and leaves in one of the ways in which clients leave; the server must hang up. */
async function visit(path: string, random: Random, bytes: Uint8Array): Promise<number> {
  const client = await RawClient.connect(path)
  for (let at = 0; at < bytes.length; ) {
    const piece = 1 + random.below(bytes.length)
    void client.send(bytes.subarray(at, at + piece))
    at += piece
  }
  if (random.onceIn(4)) client.vanish()
  else await client.leave()
  await client.closed
  return client.received
}

test('random bytes at the greeting end their connection, and each is counted', {
  timeout: WATCHDOG_MS,
}, async (scope) => {
  const random = seededRandom(scope)
  const server = await FuzzServer.start(scope, 1 << 20)
  const before = await server.handshakeFailures()
  const visits = Array.from({ length: 300 }, () => {
    const bytes = random.bytes(random.below(500))
    return visit(server.path, random, random.onceIn(2) ? bytes : raw(FLAGS, bytes))
  })
  for (const received of await Promise.all(visits)) assert.ok(received <= 18 + REPLY_BYTES_MAX)
  await server.assertSound(0)
  assert.equal((await server.handshakeFailures()) - before, visits.length)
})

test('spoilt handshakes end their connection, and the answers stay in proportion', {
  timeout: WATCHDOG_MS,
}, async (scope) => {
  const random = seededRandom(scope)
  const server = await FuzzServer.start(scope, 1 << 20)
  const strange = [
    option(99, zeroes(100)),
    option(3),
    option(6, infoData('nobody')),
    option(9, contextData('disk', 'none', 'x:y')),
    option(5),
    option(2 ** 32 - 1, text('?')),
  ]
  for (let round = 0; round < 12; round++) {
    const visits = Array.from({ length: 40 }, async () => {
      const sound = handshakeBytes(random.pick(STYLES))
      const spoilt = mutated(random, raw(sound.subarray(0, 4), random.pick(strange), sound.subarray(4)))
      const received = await visit(server.path, random, spoilt)
      assert.ok(received <= 18 + (spoilt.length / 16 + 1) * REPLY_BYTES_MAX, hex(spoilt))
    })
    await Promise.all(visits)
    await server.assertSound(0)
  }
})

test('every limit of the handshake ends or refuses exactly where it says, under its own reason', {
  timeout: WATCHDOG_MS,
}, async (scope) => {
  const server = await FuzzServer.start(scope, 1 << 20)
  const cases: readonly (readonly [reason: string, bytes: Uint8Array])[] = [
    ['bad-client-flags', raw('00000004')],
    ['bad-option-magic', raw(FLAGS, zeroes(16))],
    ['option-too-long', raw(FLAGS, '49484156454f5054 00000001 ffffffff')],
    ['option-too-long', raw(FLAGS, option(1, zeroes(OPTION_BYTES_MAX + 1)))],
    ['too-many-options', raw(FLAGS, ...Array.from({ length: OPTIONS_MAX + 1 }, () => option(99)))],
    ['export-refused', raw(FLAGS, option(1, text('nobody')))],
    ['export-refused', raw(FLAGS, option(11), option(1, text('disk')))],
    ['disconnect', raw(FLAGS, '49484156454f5054 00000063 ffffffff', zeroes(100_000))],
    ['disconnect', raw(FLAGS, option(7, zeroes(OPTION_BYTES_MAX + 1)))],
    ['disconnect', raw('0000')],
    ['disconnect', raw()],
  ]
  for (const [reason, bytes] of cases) {
    const before = await server.counted('candor_handshake_failures_total', reason)
    const client = await RawClient.connect(server.path)
    void client.send(bytes)
    // What breaks a rule is hung up on by the server; the others wait for more, until the client leaves.
    await (reason === 'disconnect' ? client.leave() : client.closed)
    await server.settled()
    const after = await server.counted('candor_handshake_failures_total', reason)
    assert.equal(after - before, 1, `${reason}: ${hex(bytes.subarray(0, 40))}`)
  }
  await server.assertSound(0)
})

test('a handshake byte by byte is served, and no slower client keeps others waiting', {
  timeout: WATCHDOG_MS,
}, async (scope) => {
  const server = await FuzzServer.start(scope, 1 << 20)
  const clients = await Promise.all(STYLES.map(() => RawClient.connect(server.path)))
  const conversations = STYLES.map(handshakeBytes)
  const longest = Math.max(...conversations.map(({ length }) => length))
  for (let at = 0; at < longest; at++) {
    for (const [index, client] of clients.entries()) {
      await client.send((conversations[index] ?? raw()).subarray(at, at + 1))
    }
    if (at % 50 === 0) await (await server.client('structured')).disconnect()
  }
  for (const client of clients) {
    await client.take(18)
    await client.skipOptionReplies()
  }
  await server.settled(STYLES.length)
  await Promise.all(clients.map((client) => client.leave()))
  await server.assertSound(0)
})

test('hundreds of connections at once, half of them idle at the greeting, are all counted up and down', {
  timeout: WATCHDOG_MS,
}, async (scope) => {
  const server = await FuzzServer.start(scope, 1 << 20)
  const idle = await Promise.all(Array.from({ length: 150 }, () => RawClient.connect(server.path)))
  await Promise.all(idle.map((client) => client.take(18)))
  const busy = await Promise.all(
    Array.from({ length: 150 }, (_, index) => server.client(STYLES[index % 3] ?? 'simple')),
  )
  await server.settled(300)
  const data = await Promise.all(
    busy.map(async (client, index) => {
      await client.write(index * 512, new Uint8Array(512).fill(index))
      return client.read(index * 512, 512)
    }),
  )
  for (const [index, bytes] of data.entries()) assert.ok(bytes.every((byte) => byte === index))
  for (const client of idle) client.vanish()
  await server.settled(busy.length)
  await Promise.all(busy.map((client) => client.disconnect()))
  await server.assertSound(512 * 1024)
})
