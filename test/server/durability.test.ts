// Failed syncs on a backend that fails on command: what becomes suspect, what clears it, and what nobody may believe.
// The same against a real kernel stands in test/faults.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { NBD_CMD_FLAG_FUA, NBD_EIO, RequestError } from 'nbd-protocol'
import { EIO, SYNC_FAILED, WOULD_BLOCK } from '../../backends/index.js'
import { PageMarks } from '../../server/exports/page-marks.js'
import { failing, faulty, nbdError } from '../support/faulty-disk.js'
import { seededRandom } from '../support/random.js'

const PAGE = 4096
const FAILED = EIO | SYNC_FAILED

function suspectAt(offset: number): (thrown: unknown) => boolean {
  return (thrown) => thrown instanceof RequestError && thrown.error === NBD_EIO && thrown.offset === offset
}

describe('after a failed sync', () => {
  test('what was written since the last good one reads as EIO, and the reply names the first such byte', async () => {
    const disk = await faulty()
    const client = await disk.server.client()
    await client.write(0, Buffer.alloc(PAGE, 1))
    await client.flush()
    await client.write(10 * PAGE, Buffer.alloc(2 * PAGE, 2))
    disk.plan = failing('flush', FAILED)
    await assert.rejects(client.flush(), nbdError(NBD_EIO))
    assert.deepEqual(Buffer.from(await client.read(0, PAGE)), Buffer.alloc(PAGE, 1))
    await assert.rejects(client.read(10 * PAGE, PAGE), suspectAt(10 * PAGE))
    await assert.rejects(client.read(8 * PAGE, 8 * PAGE), suspectAt(10 * PAGE))
    assert.equal((await client.read(12 * PAGE, PAGE)).length, PAGE)
  })

  test('a write clears exactly its own bytes', async () => {
    const disk = await faulty()
    const client = await disk.server.client()
    await client.write(0, Buffer.alloc(4 * PAGE, 1))
    disk.plan = failing('flush', FAILED)
    await assert.rejects(client.flush())
    await client.write(PAGE + 100, Buffer.alloc(50, 7))
    assert.deepEqual(Buffer.from(await client.read(PAGE + 100, 50)), Buffer.alloc(50, 7))
    await assert.rejects(client.read(PAGE + 99, 2), suspectAt(PAGE + 99))
    await assert.rejects(client.read(PAGE + 149, 2), suspectAt(PAGE + 150))
    await client.writeZeroes(2 * PAGE, PAGE)
    assert.deepEqual(Buffer.from(await client.read(2 * PAGE, PAGE)), Buffer.alloc(PAGE))
    await client.trim(3 * PAGE, PAGE)
    await assert.rejects(client.read(3 * PAGE, PAGE), suspectAt(3 * PAGE))
  })

  test('a write that was in flight while it failed does not clear what it wrote', async () => {
    const disk = await faulty()
    const [one, other] = [await disk.server.client(), await disk.server.client()]
    let release = () => {}
    const released = new Promise<void>((resolve) => {
      release = resolve
    })
    disk.plan = ({ command, now }) => {
      if (command === 'write') return now ? { outcome: WOULD_BLOCK } : { outcome: 0, after: released }
      return command === 'flush' ? { outcome: FAILED } : undefined
    }
    const held = one.write(0, Buffer.alloc(PAGE, 1))
    await other.read(5 * PAGE, 1)
    await assert.rejects(other.flush())
    release()
    await held
    await assert.rejects(one.read(0, PAGE), suspectAt(0))
  })

  test('BLOCK_STATUS tells suspect bytes as data, and they are never sent as holes', async () => {
    const disk = await faulty()
    const client = await disk.server.client({ contexts: ['base:allocation'] })
    await client.write(16 * PAGE, Buffer.alloc(PAGE, 1))
    disk.plan = failing('flush', FAILED)
    await assert.rejects(client.flush())
    disk.plan = () => undefined
    await client.trim(0, 64 * PAGE)
    const status = await client.blockStatus(0, 64 * PAGE)
    assert.deepEqual(status.get('base:allocation'), [
      { length: 16 * PAGE, flags: 3 },
      { length: PAGE, flags: 0 },
      { length: 47 * PAGE, flags: 3 },
    ])
    await assert.rejects(client.read(0, 64 * PAGE), suspectAt(16 * PAGE))
  })

  test('resume that succeeds in syncing ends the degraded state; suspect ranges stay until they are rewritten', async () => {
    const disk = await faulty()
    const client = await disk.server.client()
    await client.write(0, Buffer.alloc(PAGE, 1))
    disk.plan = failing('flush', FAILED)
    await assert.rejects(client.flush())
    const { durability } = disk.server.served
    assert.notEqual(await durability.resume(), 0)
    assert.equal(durability.state, 'degraded')
    disk.plan = () => undefined
    assert.equal(await durability.resume(), 0)
    await client.flush()
    await assert.rejects(client.read(0, PAGE), suspectAt(0))
    await client.write(0, Buffer.alloc(PAGE, 2), NBD_CMD_FLAG_FUA)
    assert.deepEqual(Buffer.from(await client.read(0, PAGE)), Buffer.alloc(PAGE, 2))
  })
})

describe('a FUA write whose sync fails', () => {
  test('makes its own range and everything unflushed suspect', async () => {
    const disk = await faulty()
    const client = await disk.server.client()
    await client.write(0, Buffer.alloc(PAGE, 1))
    disk.plan = ({ command, durable }) =>
      command === 'write' && durable ? { outcome: FAILED, transferred: PAGE } : undefined
    await assert.rejects(client.write(8 * PAGE, Buffer.alloc(PAGE, 2), NBD_CMD_FLAG_FUA), nbdError(NBD_EIO))
    await assert.rejects(client.read(0, PAGE), suspectAt(0))
    await assert.rejects(client.read(8 * PAGE, PAGE), suspectAt(8 * PAGE))
  })

  test('that succeeds is durable by itself: a later failure leaves it alone', async () => {
    const disk = await faulty()
    const client = await disk.server.client()
    await client.write(0, Buffer.alloc(2 * PAGE, 1), NBD_CMD_FLAG_FUA)
    await client.write(8 * PAGE, Buffer.alloc(PAGE, 1))
    disk.plan = failing('flush', FAILED)
    await assert.rejects(client.flush())
    assert.equal((await client.read(0, 2 * PAGE)).length, 2 * PAGE)
    await assert.rejects(client.read(8 * PAGE, PAGE), suspectAt(8 * PAGE))
  })
})

describe('the probe', () => {
  test('finds failed write-back before any sync, and the next FLUSH does not believe its own success', async () => {
    const disk = await faulty()
    const client = await disk.server.client()
    await client.write(0, Buffer.alloc(PAGE, 1))
    disk.plan = failing('probe', EIO)
    disk.server.served.durability.probe()
    disk.plan = () => undefined
    assert.equal(disk.server.served.state, 'degraded')
    await assert.rejects(client.read(0, PAGE), suspectAt(0))
    await assert.rejects(client.flush(), nbdError(NBD_EIO))
  })

  test('runs after a read of an unflushed range that the cache could not serve', async () => {
    const disk = await faulty()
    const client = await disk.server.client()
    await client.write(0, Buffer.alloc(PAGE, 1))
    disk.plan = ({ command, now }) => {
      if (command === 'probe') return { outcome: EIO }
      return command === 'read' && now ? { outcome: WOULD_BLOCK } : undefined
    }
    await assert.rejects(client.read(0, PAGE), suspectAt(0))
    assert.equal(disk.server.served.state, 'degraded')
  })
})

describe('marks by page', () => {
  test('cover what the model covers, rounded outwards, and lose exactly the whole pages that are taken back', (scope) => {
    const random = seededRandom(scope)
    const pages = 100_000
    for (let round = 0; round < 50; round++) {
      const marks = new PageMarks()
      const model = new Uint8Array(pages)
      for (let step = 0; step < 100; step++) {
        const offset = random.below(pages * PAGE - 300_000)
        const length = 1 + random.below(300_000)
        if (random.below(3) > 0) {
          marks.mark(offset, length)
          model.fill(1, Math.floor(offset / PAGE), Math.ceil((offset + length) / PAGE))
        } else {
          marks.unmark(offset, length)
          model.fill(
            0,
            Math.ceil(offset / PAGE),
            Math.max(Math.ceil(offset / PAGE), Math.floor((offset + length) / PAGE)),
          )
        }
        const from = random.below(pages - 10)
        assert.equal(marks.intersects(from * PAGE + 5, 9 * PAGE), model.subarray(from, from + 10).includes(1))
      }
      const covered = new Uint8Array(pages)
      for (const { start, end } of marks.ranges(pages * PAGE)) covered.fill(1, start / PAGE, end / PAGE)
      assert.deepEqual(covered, model)
    }
  })
})

describe('concurrent FLUSHes', () => {
  test('never run two syncs at a time, and a failure of either makes everything unsynced suspect', async () => {
    const disk = await faulty()
    const clients = await Promise.all(Array.from({ length: 4 }, () => disk.server.client()))
    let running = 0
    let most = 0
    disk.plan = ({ command }) => {
      if (command !== 'flush') return undefined
      running += 1
      most = Math.max(most, running)
      const after = new Promise((resolve) => setImmediate(resolve)).then(() => {
        running -= 1
      })
      return { outcome: 0, after }
    }
    const flushing = clients.map(async (client, index) => {
      for (let round = 0; round < 50; round++) {
        await client.write((index * 64 + round) * PAGE, Buffer.alloc(PAGE, 1))
        await client.flush()
      }
    })
    await Promise.all(flushing)
    assert.equal(most, 1)
    await Promise.all(clients.map((client, index) => client.write(index * 64 * PAGE, Buffer.alloc(PAGE, 2))))
    disk.plan = failing('flush', FAILED)
    const ends = await Promise.allSettled(clients.map((client) => client.flush()))
    assert.ok(ends.every(({ status }) => status === 'rejected'))
    for (const [index, client] of clients.entries()) {
      await assert.rejects(client.read(index * 64 * PAGE, PAGE), suspectAt(index * 64 * PAGE))
    }
  })
})
