// Writes that are held for want of space: answered once, in order, while everything else goes on.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { NBD_CMD_FLAG_FUA, NBD_ENOSPC, NBD_ESHUTDOWN } from 'nbd-protocol'
import { EDQUOT, ENOSPC } from '../../backends/index.js'
import { HELD_AT } from '../../server/observe/counters.js'
import { type Faulty, faulty, nbdError } from '../support/faulty-disk.js'

const PAGE = 4096
const MINUTE = 60_000

/** A disk that is full from page 4 on, and holds writes. */
async function fullDisk(timeoutMs: number, errno = ENOSPC): Promise<Faulty> {
  const disk = await faulty({ onSpace: { kind: 'hold', timeoutMs } })
  disk.plan = ({ command, offset }) => (command === 'write' && offset >= 4 * PAGE ? { outcome: errno } : undefined)
  return disk
}

async function untilHeld(disk: Faulty, count: number): Promise<void> {
  while (disk.server.served.space.held !== count) await new Promise((resolve) => setImmediate(resolve))
}

describe('a write without space, held', () => {
  for (const errno of [ENOSPC, EDQUOT]) {
    test(`waits while reads and overwrites go on, and succeeds when there is space (errno ${errno})`, async () => {
      const disk = await fullDisk(MINUTE, errno)
      const client = await disk.server.client()
      let answered = false
      const held = client.write(8 * PAGE, Buffer.alloc(PAGE, 1)).then(() => {
        answered = true
      })
      const durable = client.write(9 * PAGE, Buffer.alloc(PAGE, 2), NBD_CMD_FLAG_FUA)
      await untilHeld(disk, 2)
      await client.write(0, Buffer.alloc(PAGE, 3))
      assert.equal((await client.read(8 * PAGE, PAGE)).length, PAGE)
      await client.flush()
      assert.deepEqual([answered, disk.server.served.counters[HELD_AT]], [false, 2])
      disk.plan = () => undefined
      await Promise.all([held, durable])
      assert.deepEqual(Buffer.from(await client.read(8 * PAGE, PAGE)), Buffer.alloc(PAGE, 1))
      assert.equal(disk.server.served.counters[HELD_AT], 0)
    })
  }

  test('is answered with ENOSPC when its time is over', async () => {
    const disk = await fullDisk(30)
    const client = await disk.server.client()
    await assert.rejects(client.write(8 * PAGE, Buffer.alloc(PAGE, 1)), nbdError(NBD_ENOSPC))
    assert.equal(disk.server.served.space.held, 0)
  })

  test("is answered at once by the operator's word, either way", async () => {
    const disk = await fullDisk(MINUTE)
    const client = await disk.server.client()
    const first = client.write(8 * PAGE, Buffer.alloc(PAGE, 1))
    await untilHeld(disk, 1)
    disk.server.served.space.fail()
    await assert.rejects(first, nbdError(NBD_ENOSPC))
    const second = client.write(8 * PAGE, Buffer.alloc(PAGE, 1))
    await untilHeld(disk, 1)
    disk.plan = () => undefined
    disk.server.served.space.release()
    await second
  })

  test('is answered with ESHUTDOWN when the server leaves', async () => {
    const disk = await fullDisk(MINUTE)
    const client = await disk.server.client()
    const held = client.write(8 * PAGE, Buffer.alloc(PAGE, 1))
    await untilHeld(disk, 1)
    disk.server.served.space.shutDown()
    await assert.rejects(held, nbdError(NBD_ESHUTDOWN))
  })

  test('keeps later changes of the same bytes behind it, and a stale copy never overwrites what came later', async () => {
    const disk = await fullDisk(MINUTE)
    const [one, other] = [await disk.server.client(), await disk.server.client()]
    const stale = one.write(8 * PAGE, Buffer.alloc(PAGE, 1))
    await untilHeld(disk, 1)
    const fresh = other.write(8 * PAGE, Buffer.alloc(PAGE, 2))
    await other.read(0, 1)
    disk.plan = () => undefined
    await Promise.all([stale, fresh])
    assert.deepEqual(Buffer.from(await one.read(8 * PAGE, PAGE)), Buffer.alloc(PAGE, 2))
  })

  test('is not tried again for a client that has gone', async () => {
    const disk = await fullDisk(MINUTE)
    const leaving = await disk.server.client()
    leaving.write(8 * PAGE, Buffer.alloc(PAGE, 1)).catch(() => {})
    await untilHeld(disk, 1)
    await leaving.abandon()
    while (disk.server.server.connections > 0) await new Promise((resolve) => setImmediate(resolve))
    disk.plan = () => undefined
    await untilHeld(disk, 0)
    const client = await disk.server.client()
    assert.deepEqual(Buffer.from(await client.read(8 * PAGE, PAGE)), Buffer.alloc(PAGE))
  })
})
