// Laws 1 and 2 at the wire: every request gets exactly one answer, success means that storage did the whole, and an
// error in the middle of a batch is nobody else's.
import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { after, describe, test } from 'node:test'
import {
  type Client,
  encodeInfoRequest,
  encodeOption,
  encodeRequest,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_EIO,
  NBD_ENOSPC,
  NBD_OPT_GO,
  NBD_SIMPLE_REPLY_MAGIC,
  RequestError,
  viewOf,
} from 'nbd-protocol'
import {
  ERRNOS,
  type FaultPlan,
  type Operation,
  openBackend,
  SYNC_FAILED,
  WOULD_BLOCK,
  withFaults,
} from '../../backends/index.js'
import { errorAt } from '../../server/observe/counters.js'
import { type InProcess, serveInProcess } from '../support/in-process.js'

const SIZE = 8 << 20
const BLOCK = 4096
const EIO = 5
const ENOSPC = 28
const EDQUOT = 122
const EFBIG = 27

/** A served memory disk whose faults can be changed between requests. */
interface Faulty {
  readonly server: InProcess
  plan: FaultPlan
}

async function faulty(): Promise<Faulty> {
  const inner = await openBackend('memory', { size: SIZE })
  const made: { plan: FaultPlan } = { plan: () => undefined }
  const server = await serveInProcess(withFaults(inner, (operation) => made.plan(operation)))
  after(() => server.close())
  return Object.assign(made, { server })
}

function nbdError(error: number): (thrown: unknown) => boolean {
  return (thrown) => thrown instanceof RequestError && thrown.error === error
}

/** Both twins fail with this outcome, after transferring a part. */
function failing(command: Operation['command'], outcome: number, transferred = 0): FaultPlan {
  return (operation) => (operation.command === command ? { outcome, transferred } : undefined)
}

const STYLES = ['simple', 'structured', 'extended'] as const

for (const replyStyle of STYLES) {
  describe(`under ${replyStyle} replies`, () => {
    test('a write that declined to finish now is done by its waiting twin, and answered once', async () => {
      const disk = await faulty()
      const client = await disk.server.client({ replyStyle })
      disk.plan = ({ now, command }) =>
        now && command === 'write' ? { outcome: WOULD_BLOCK, transferred: 7 } : undefined
      const data = Buffer.alloc(3 * BLOCK, 'slow')
      await client.write(1000, data)
      disk.plan = ({ now }) => (now ? { outcome: WOULD_BLOCK } : undefined)
      assert.deepEqual(Buffer.from(await client.read(1000, data.length)), data)
      await client.disconnect()
    })

    test('a write that landed in part at any boundary is an error as a whole', async () => {
      const disk = await faulty()
      const client = await disk.server.client({ replyStyle })
      const length = 3 * BLOCK
      for (const transferred of [0, 1, 511, 512, BLOCK - 1, BLOCK, BLOCK + 1, length - 1]) {
        for (const flags of [0, NBD_CMD_FLAG_FUA]) {
          disk.plan = failing('write', ENOSPC, transferred)
          await assert.rejects(client.write(0, Buffer.alloc(length, 1), flags), nbdError(NBD_ENOSPC))
        }
      }
      disk.plan = () => undefined
      await client.write(0, Buffer.alloc(length, 2))
      assert.deepEqual(Buffer.from(await client.read(0, length)), Buffer.alloc(length, 2))
      await client.disconnect()
    })

    test('a read of which a part is missing is an error as a whole, whatever was read already', async () => {
      const disk = await faulty()
      const client = await disk.server.client({ replyStyle })
      await client.write(0, Buffer.alloc(SIZE >> 1, 0xaa))
      for (const transferred of [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK]) {
        disk.plan = failing('read', EIO, transferred)
        await assert.rejects(client.read(0, 3 * BLOCK), nbdError(NBD_EIO))
      }
      disk.plan = () => undefined
      assert.deepEqual(Buffer.from(await client.read(0, BLOCK)), Buffer.alloc(BLOCK, 0xaa))
      await client.disconnect()
    })

    test("every errno of the host reaches the client as the table says, and the metrics as the host's own", async () => {
      const disk = await faulty()
      const client = await disk.server.client({ replyStyle })
      const spaceErrors = new Set([ENOSPC, EDQUOT, EFBIG])
      for (let errno = 1; errno < ERRNOS; errno++) {
        disk.plan = failing('write', errno)
        const wanted = spaceErrors.has(errno) ? NBD_ENOSPC : NBD_EIO
        await assert.rejects(client.write(0, Buffer.alloc(BLOCK)), nbdError(wanted), `errno ${errno}`)
        assert.equal(disk.server.served.counters[errorAt(NBD_CMD_WRITE, errno)], 1)
      }
      await client.disconnect()
    })

    test('trim, zeroing, flush and cache that fail say so, and the connection lives', async () => {
      const disk = await faulty()
      const client = await disk.server.client({ replyStyle })
      disk.plan = failing('trim', EIO)
      await assert.rejects(client.trim(0, BLOCK), nbdError(NBD_EIO))
      disk.plan = failing('zero', ENOSPC)
      await assert.rejects(client.writeZeroes(0, BLOCK), nbdError(NBD_ENOSPC))
      disk.plan = failing('cache', EIO)
      await assert.rejects(client.cache(0, BLOCK), nbdError(NBD_EIO))
      disk.plan = () => undefined
      await client.flush()
      disk.plan = failing('flush', ENOSPC | SYNC_FAILED)
      await assert.rejects(client.flush(), nbdError(NBD_ENOSPC))
      disk.plan = () => undefined
      assert.equal((await client.read(0, BLOCK)).length, BLOCK)
      await client.disconnect()
    })
  })
}

describe('after a failed sync', () => {
  test('every later FLUSH and FUA fails, on this connection and on new ones, and plain writes go on', async () => {
    const disk = await faulty()
    const client = await disk.server.client()
    disk.plan = failing('flush', EIO | SYNC_FAILED)
    await assert.rejects(client.flush(), nbdError(NBD_EIO))
    disk.plan = () => undefined
    const other = await disk.server.client()
    for (const each of [client, other]) {
      await assert.rejects(each.flush(), nbdError(NBD_EIO))
      await assert.rejects(each.write(0, Buffer.alloc(BLOCK), NBD_CMD_FLAG_FUA), nbdError(NBD_EIO))
      await assert.rejects(each.trim(0, BLOCK, NBD_CMD_FLAG_FUA), nbdError(NBD_EIO))
      await assert.rejects(each.writeZeroes(0, BLOCK, NBD_CMD_FLAG_FUA), nbdError(NBD_EIO))
      await each.write(0, Buffer.alloc(BLOCK))
    }
    assert.equal(disk.server.served.state, 'degraded')
  })

  test('a plain ENOSPC of the first half of a FUA write does not degrade the export', async () => {
    const disk = await faulty()
    const client = await disk.server.client()
    disk.plan = failing('write', ENOSPC)
    await assert.rejects(client.write(0, Buffer.alloc(BLOCK), NBD_CMD_FLAG_FUA), nbdError(NBD_ENOSPC))
    disk.plan = () => undefined
    await client.flush()
    assert.equal(disk.server.served.state, 'ok')
  })
})

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
