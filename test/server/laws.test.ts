// Laws 1 and 2 at the wire: every request gets exactly one answer, success means that storage did the whole, and an
// error in the middle of a batch is nobody else's.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { NBD_CMD_FLAG_FUA, NBD_CMD_WRITE, NBD_EIO, NBD_ENOSPC } from 'nbd-protocol'
import { ERRNOS, SYNC_FAILED, WOULD_BLOCK } from '../../backends/index.js'
import { errorAt } from '../../server/observe/counters.js'
import { failing, faulty, nbdError } from '../support/faulty-disk.js'

const SIZE = 8 << 20
const BLOCK = 4096
const EIO = 5
const ENOSPC = 28
const EDQUOT = 122
const EFBIG = 27

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
