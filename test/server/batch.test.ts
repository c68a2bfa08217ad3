// An error in the middle of a batch of 64 requests is nobody else's: raw bytes in one segment, every reply counted.
import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { after, describe, test } from 'node:test'
import {
  type Client,
  encodeInfoRequest,
  encodeOption,
  encodeRequest,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_OPT_GO,
  NBD_SIMPLE_REPLY_MAGIC,
  viewOf,
} from 'nbd-protocol'
import { ENOSPC, type FaultPlan, WOULD_BLOCK } from '../../backends/index.js'
import { faulty } from '../support/faulty-disk.js'
import { request } from '../support/raw-bytes.js'
import { RawClient } from '../support/raw-client.js'

const BLOCK = 4096
const BATCH = 64

/** 64 requests in one segment, straight after the handshake; the replies as (cookie, error) in order of arrival. */
async function batchOf64(path: string, type: number): Promise<{ cookie: number; error: number }[]> {
  const greeting = 18
  const goReplies = 20 + 12 + 20
  const header = 28
  const payload = type === NBD_CMD_WRITE ? BLOCK : 0
  const requests = new Uint8Array(BATCH * (header + payload))
  for (let index = 0; index < BATCH; index++) {
    const at = index * (header + payload)
    const fields = {
      type,
      flags: 0,
      cookieHigh: 7,
      cookieLow: index,
      offset: index * BLOCK,
      length: BLOCK,
      payloadLength: 0,
    }
    encodeRequest(viewOf(requests), at, false, fields)
    requests.fill(index + 1, at + header, at + header + payload)
  }
  const socket = connect(path)
  const flags = Buffer.from([0, 0, 0, 3])
  socket.write(Buffer.concat([flags, encodeOption(NBD_OPT_GO, encodeInfoRequest({ name: 'disk', requests: [] }))]))
  const replies: { cookie: number; error: number }[] = []
  let buffer = Buffer.alloc(0)
  let at = greeting + goReplies
  let sent = false
  for await (const chunk of socket) {
    buffer = Buffer.concat([buffer, chunk as Buffer])
    if (!sent && buffer.length >= at) {
      sent = true
      socket.write(requests)
    }
    while (buffer.length >= at + 16) {
      assert.equal(buffer.readUInt32BE(at), NBD_SIMPLE_REPLY_MAGIC)
      const error = buffer.readUInt32BE(at + 4)
      const data = error === 0 && type === NBD_CMD_READ ? BLOCK : 0
      if (buffer.length < at + 16 + data) break
      assert.equal(buffer.readUInt32BE(at + 8), 7)
      replies.push({ cookie: buffer.readUInt32BE(at + 12), error })
      at += 16 + data
    }
    if (replies.length === BATCH) break
  }
  assert.equal(buffer.length, at, 'nothing follows the last reply')
  socket.destroy()
  return replies
}

/** Faults for one block, and a slow twin for some others, so that answers come in another order than requests. */
function oneFails(command: 'read' | 'write', failed: number, outcome: number): FaultPlan {
  return (operation) => {
    if (operation.command !== command) return undefined
    const index = operation.offset / BLOCK
    if (index === failed) return { outcome, transferred: 100 }
    return index % 5 === 0 && operation.now ? { outcome: WOULD_BLOCK } : undefined
  }
}

describe('an error in the middle of a batch of 64 requests', () => {
  for (const [command, type] of [
    ['read', NBD_CMD_READ],
    ['write', NBD_CMD_WRITE],
  ] as const) {
    for (const failed of [0, 31, 63]) {
      test(`${command} ${failed} fails alone: one reply each, and the other 63 succeed`, async () => {
        const disk = await faulty()
        disk.plan = oneFails(command, failed, ENOSPC)
        const replies = await batchOf64(disk.server.path, type)
        assert.deepEqual(
          replies.map(({ cookie }) => cookie).sort((a, b) => a - b),
          Array.from({ length: BATCH }, (_, index) => index),
        )
        for (const { cookie, error } of replies) assert.equal(error, cookie === failed ? NBD_ENOSPC : 0)
        if (command === 'write') await contentIsRight(await disk.server.client(), failed)
      })
    }
  }
})

async function contentIsRight(client: Client, failed: number): Promise<void> {
  for (let index = 0; index < BATCH; index++) {
    if (index === failed) continue
    const data = await client.read(index * BLOCK, BLOCK)
    assert.ok(data.every((byte) => byte === index + 1))
  }
  await client.disconnect()
}

test('an offset that no number holds comes back to the letter, also in the reply that makes a batch full', async () => {
  const disk = await faulty()
  const client = await RawClient.enter(disk.server.path, 'extended')
  after(() => client.vanish())
  const full = 256 << 10
  const header = 40
  const offset = 2n ** 63n + 5n
  for (const room of [1, 32, 40, 60, header + 100]) {
    const good = request('extended', { type: NBD_CMD_READ, cookie: 1n, length: full - header - room })
    const bad = request('extended', { type: NBD_CMD_READ, cookie: 2n, offset, length: 1 })
    await client.send(Buffer.concat([good, bad]))
    assert.equal((await client.reply(() => 0))?.payload.length, full - 32 - room)
    const reply = await client.reply(() => 0)
    assert.deepEqual([reply?.cookie, reply?.error, reply?.offset], [2n, NBD_EINVAL, offset], `${room} bytes of room`)
  }
})
