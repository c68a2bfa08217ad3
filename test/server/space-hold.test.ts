// Writes that are held for want of space: answered once, in order, while everything else goes on.
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { NBD_CMD_FLAG_FUA, NBD_ENOSPC, NBD_ESHUTDOWN } from 'nbd-protocol'
import { EDQUOT, ENOSPC, openBackend, withFaults } from '../../backends/index.js'
import { HELD_AT } from '../../server/observe/counters.js'
import { type Faulty, faulty, nbdError } from '../support/faulty-disk.js'
import { serveInProcess } from '../support/in-process.js'
import { writeRequest } from '../support/raw-bytes.js'
import { RawClient } from '../support/raw-client.js'

const PAGE = 4096
const MIB = 1 << 20
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
  test('lets its client be read on as far as --look-ahead-max, to find the end of the stream, and no further', async () => {
    const full = withFaults(await openBackend('memory', { size: 64 * MIB }), ({ command }) =>
      command === 'write' ? { outcome: ENOSPC } : undefined,
    )
    const limits = { slowRequestsMax: 1, lookAheadBytesMax: 4 * MIB }
    const server = await serveInProcess(full, limits, { onSpace: { kind: 'hold', timeoutMs: MINUTE } })
    after(() => server.close())
    const client = await RawClient.enter(server.path, 'simple')
    let taken = 0
    const send = async () => {
      for (let at = 0; at < 64; at++) {
        await client.send(writeRequest('simple', BigInt(at), at * MIB, Buffer.alloc(MIB)))
        if (!client.socket.destroyed) taken += MIB
      }
    }
    const sent = send()
    const { space } = server.served
    const retry = async () => {
      space.release()
      await new Promise((resolve) => setImmediate(resolve))
    }
    while (space.held === 0) await new Promise((resolve) => setImmediate(resolve))
    while (taken < 5 * MIB) await retry()
    for (let count = 0; count < 1000; count++) await retry()
    // Besides the bound there are a piece as large as the slab, the request that is held, and the socket's own buffers.
    assert.ok(taken <= 12 * MIB, `${taken} bytes were read`)
    client.vanish()
    while (server.server.connections > 0) await retry()
    await sent
    assert.equal(space.held, 0)
  })
})
