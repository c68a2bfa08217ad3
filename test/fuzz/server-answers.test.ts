// Single things that a running server owes to strange clients, found while it was fuzzed.
import assert from 'node:assert/strict'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { RequestError } from 'nbd-protocol'
import { temporaryFolder } from '../support/candor.js'
import { FuzzServer, WATCHDOG_MS } from '../support/fuzz-server.js'
import { filled, raw, request, STYLES, writeRequest, zeroes } from '../support/raw-bytes.js'
import { RawClient } from '../support/raw-client.js'

const SIZE = 1 << 20
const timeout = WATCHDOG_MS

test('what stands behind DISC is not served', { timeout }, async (scope) => {
  const server = await FuzzServer.start(scope, SIZE)
  for (const style of STYLES) {
    const client = await RawClient.enter(server.path, style)
    void client.send(raw(request(style, { type: 2, cookie: 1n }), writeRequest(style, 2n, 8192, filled(64, 0xee))))
    assert.equal(await client.tryTake(1), undefined, 'no answer either')
  }
  await server.assertSound(0)
  const reader = await server.client('simple')
  assert.deepEqual(await reader.read(8192, 64), zeroes(64))
  await reader.disconnect()
})

test('a READ of nothing is answered by a chunk where structured replies were negotiated', {
  timeout,
}, async (scope) => {
  const server = await FuzzServer.start(scope, SIZE)
  const client = await RawClient.enter(server.path, 'structured')
  scope.after(() => client.vanish())
  void client.send(request('structured', { type: 0, cookie: 1n, offset: 0, length: 0 }))
  assert.equal((await client.reply(() => 0))?.style, 'structured', 'simple replies to READ are forbidden then')
})

test('an extended reply repeats the offset of its request, whatever that is', { timeout }, async (scope) => {
  const server = await FuzzServer.start(scope, SIZE)
  const client = await RawClient.enter(server.path, 'extended')
  scope.after(() => client.vanish())
  for (const offset of [2n ** 53n - 1n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
    void client.send(request('extended', { type: 0, cookie: offset, offset, length: 512 }))
    const reply = await client.reply(() => 0)
    assert.deepEqual([reply?.error, reply?.cookie, reply?.offset], [22, offset, offset])
  }
})

test('block status and reads beside trims and writes of the same bytes never fail', { timeout }, async (scope) => {
  const server = await FuzzServer.start(scope, SIZE)
  const [changer, reader] = await Promise.all([server.client('simple'), server.client('structured')])
  const goOn = { left: 4000 }
  const change = async () => {
    while (goOn.left > 0) await Promise.all([changer.write(0, filled(65536, 7)), changer.trim(0, 65536)])
  }
  const look = async () => {
    try {
      while (goOn.left-- > 0) await Promise.all([reader.blockStatus(0, 65536), reader.read(0, 65536)])
    } finally {
      goOn.left = 0
    }
  }
  await Promise.all([change(), look(), look()])
  await Promise.all([changer.disconnect(), reader.disconnect()])
  await server.assertSound(0)
})

test('errors of more kinds than the log tells apart leave the server serving', { timeout }, async (scope) => {
  const folder = temporaryFolder()
  scope.after(() => folder.remove())
  const names = Array.from({ length: 40 }, (_, index) => `disk${index}`)
  const images = names.map((name) => `${name}=${join(folder.path, name)}`)
  const server = await FuzzServer.start(scope, SIZE, ...images)
  assert.notEqual(dirname(server.image), folder.path)
  for (const name of names) {
    const client = await server.client('structured', name)
    for (const type of [0, 1, 3, 4, 5, 6, 7, 8, 9]) {
      const refused = client.request('spoilt', type, 0, 2 * SIZE, 1, type === 1 ? filled(1, 0) : undefined)
      await assert.rejects(refused, RequestError, `command ${type} past the end of ${name}`)
    }
    await client.disconnect()
  }
  await server.assertSound(0)
})
