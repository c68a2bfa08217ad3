// A WRITE that is too large, and whose header came in one segment with the handshake: its payload is data, which is thrown
// away, and never taken for requests.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NBD_CMD_WRITE, NBD_EINVAL } from 'nbd-protocol'
import { disk, KIB, MIB, noReadData } from '../support/large-writes.js'
import { request, writeRequest } from '../support/raw-bytes.js'
import { handshakeBytes, RawClient } from '../support/raw-client.js'

const GREETING_BYTES = 18

test('the payload of an oversize WRITE right behind the handshake is not executed', async () => {
  const served = await disk()
  const client = await RawClient.connect(served.server.path)
  const smuggled = writeRequest('simple', 666n, 8 * MIB, Buffer.alloc(4 * KIB, 0xee))
  const payload = Buffer.alloc(33 * MIB)
  for (let at = 0; at + smuggled.length <= payload.length; at += smuggled.length) payload.set(smuggled, at)
  const fields = { type: NBD_CMD_WRITE, cookie: 1n, offset: 0, length: payload.length, payload }
  const frame = Buffer.from(request('simple', fields))
  // What comes beside the handshake ends between two of the requests that the payload looks like.
  const beside = frame.length - payload.length + smuggled.length
  client.send(Buffer.concat([handshakeBytes('simple'), frame.subarray(0, beside)]))
  await client.take(GREETING_BYTES)
  await client.skipOptionReplies()
  client.send(frame.subarray(beside))
  const reply = await client.reply(noReadData)
  assert.deepEqual([reply?.cookie, reply?.error], [1n, NBD_EINVAL])
  client.send(writeRequest('simple', 2n, 0, Buffer.alloc(KIB)))
  assert.deepEqual([(await client.reply(noReadData))?.cookie, served.writes.length], [2n, 1])
  client.vanish()
})
