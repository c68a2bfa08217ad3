// Virtqueues in a guest's memory, split and packed. Law under test: each request is told of once and answered once, with
// exactly its bytes, however the driver cuts it up.
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { PackedDriver, SplitDriver } from '../support/vhost-drivers.js'
import { GUEST_BASE } from '../support/vhost-guest.js'
import { pattern, RING_KINDS, ringFixture } from '../support/vhost-kinds.js'
import { BLK_IN, BLK_OUT, blockRequest } from '../support/vhost-ram-disk.js'

for (const [kind, driverOf] of RING_KINDS) {
  const { open, run, close } = ringFixture(driverOf)
  after(close)

  describe(`a ${kind} ring`, () => {
    test('what is written in pieces is read in other pieces, through tables and without', async () => {
      const disk = open()
      const bytes = pattern(4096, 1)
      const pieces = [bytes.subarray(0, 512), bytes.subarray(512, 1536), bytes.subarray(1536)]
      assert.deepEqual(await run(disk, BLK_OUT, 8, pieces), { status: 0, written: 1, read: bytes })
      assert.deepEqual(disk.content.subarray(4096, 8192), bytes)
      for (const indirect of [false, true]) {
        const answer = await run(disk, BLK_IN, 8, [Buffer.alloc(3072), Buffer.alloc(1024)], indirect)
        assert.deepEqual(answer, { status: 0, written: 4097, read: bytes })
      }
      // The length is that of what was written from the front on: the status byte lies behind data that were not.
      const failed = await run(disk, BLK_IN, 1e6, [Buffer.alloc(512)])
      assert.deepEqual([failed.status, failed.written], [1, 0])
      const refused = await run(disk, BLK_OUT, 1e6, [Buffer.alloc(512)])
      assert.deepEqual([refused.status, refused.written], [1, 1])
      assert.equal(disk.broken, undefined)
    })

    test('header and status may lie in pieces of their own, or with the data', async () => {
      const disk = open()
      const { guest } = disk
      const at = guest.allocate(1024)
      const header = Buffer.alloc(16)
      header.writeUInt32LE(BLK_OUT)
      guest.write(at, Buffer.concat([header, pattern(512, 3)]))
      const part = (start: number, length: number, writable: boolean) => ({
        address: GUEST_BASE + BigInt(start),
        length,
        writable,
      })
      disk.ring.add([part(at, 5, false), part(at + 5, 100, false), part(at + 105, 423, false), part(at + 600, 1, true)])
      const inHeader = guest.allocate(16)
      guest.write(inHeader, Buffer.alloc(16))
      const target = guest.allocate(513, 64)
      disk.ring.add([part(inHeader, 16, false), part(target, 513, true)])
      disk.kickNow()
      await disk.until(() => disk.taken.length === 2)
      assert.deepEqual(
        disk.taken.map((each) => [each.out, each.in]),
        [
          [512, 0],
          [0, 512],
        ],
      )
      assert.deepEqual(guest.read(target, 512), pattern(512, 3))
      assert.equal(disk.ring.used().length, 2)
    })

    test('a ring is used round and round, by many requests at once, answered in any order', async () => {
      const disk = open({ keep: true }, 16)
      let sector = 0
      for (let round = 0; round < 40; round++) {
        const ids = Array.from({ length: 5 }, () =>
          disk.ring.add(blockRequest(disk.guest, BLK_IN, sector++, [512]).chain),
        )
        disk.kickNow()
        await disk.until(() => disk.taken.length === 5)
        const taken = disk.taken.splice(0)
        assert.deepEqual(
          taken.map((each) => each.sector),
          [sector - 5, sector - 4, sector - 3, sector - 2, sector - 1],
        )
        for (const request of [3, 0, 4, 1, 2].map((index) => taken[index])) if (request) disk.serve(request)
        disk.queue.notify()
        assert.deepEqual(
          disk.ring.used().map(({ id }) => id),
          [3, 0, 4, 1, 2].map((index) => ids[index]),
        )
      }
      assert.equal(disk.broken, undefined)
    })

    test('the largest ring of virtio is used round and round, a part of it at a time', async () => {
      const disk = open({ queue: { requestsMax: 256 } }, 32_768)
      const { chain } = blockRequest(disk.guest, BLK_IN, 0, [])
      for (let round = 1; round <= 36; round++) {
        const ids = Array.from({ length: 1000 }, () => disk.ring.add(chain))
        disk.kickNow()
        await disk.until(() => disk.taken.length === 1000 * round)
        assert.deepEqual(
          disk.ring.used().map(({ id }) => id),
          ids,
        )
      }
      assert.equal(disk.broken, undefined)
    })

    test('one turn tells of a batch at most, and all are told in the end without another kick', async () => {
      const disk = open({ keep: true }, 1024)
      for (let sector = 0; sector < 300; sector++) disk.ring.add(blockRequest(disk.guest, BLK_IN, sector, []).chain)
      disk.kickNow()
      await disk.until(() => disk.taken.length === 300)
      assert.deepEqual(disk.batches, [128, 128, 44])
    })

    test('above the bound the ring waits until some are complete', async () => {
      const disk = open({ keep: true, queue: { requestsMax: 3 } })
      for (let sector = 0; sector < 7; sector++) disk.ring.add(blockRequest(disk.guest, BLK_IN, sector, [512]).chain)
      disk.kickNow()
      await disk.until(() => disk.taken.length === 3)
      await new Promise((resolve) => setImmediate(resolve))
      assert.deepEqual(disk.batches, [3])
      for (const request of disk.taken.slice(0, 2)) disk.serve(request)
      await disk.until(() => disk.taken.length === 5)
      assert.deepEqual(disk.batches, [3, 2])
    })

    test('a completion is signalled, or not, as the driver wishes', async () => {
      const disk = open()
      const quiet = (wish: boolean) => {
        if (disk.ring instanceof SplitDriver) disk.guest.write16(disk.ring.at.avail, wish ? 1 : 0)
        if (disk.ring instanceof PackedDriver) disk.guest.write16(disk.ring.at.driver + 2, wish ? 1 : 0)
      }
      disk.calls()
      await run(disk, BLK_IN, 0, [Buffer.alloc(512)])
      assert.equal(disk.calls(), 1)
      quiet(true)
      await run(disk, BLK_IN, 0, [Buffer.alloc(512)])
      assert.equal(disk.calls(), 0)
      quiet(false)
      await run(disk, BLK_IN, 0, [Buffer.alloc(512)])
      assert.equal(disk.calls(), 1)
      disk.queue.notify()
      assert.equal(disk.calls(), 0)
    })

    test('with EVENT_IDX it is signalled when the wished-for completion comes, and kicks are asked for', async () => {
      const disk = open({ queue: { eventIdx: true } }, 8)
      const wish = (completions: number) => {
        if (disk.ring instanceof SplitDriver) disk.guest.write16(disk.ring.at.avail + 4 + 2 * 8, completions - 1)
        if (!(disk.ring instanceof PackedDriver)) return
        // Three descriptors each: header, data, status.
        const at = 3 * (completions - 1)
        const wrap = Math.floor(at / 8) % 2 === 0 ? 0x8000 : 0
        disk.guest.write16(disk.ring.at.driver, (at % 8) | wrap)
        disk.guest.write16(disk.ring.at.driver + 2, 2)
      }
      const asked = () => {
        if (disk.ring instanceof SplitDriver) return disk.guest.read16(disk.ring.at.used + 4 + 8 * 8)
        if (!(disk.ring instanceof PackedDriver) || disk.guest.read16(disk.ring.at.device + 2) !== 2) return -1
        return disk.guest.read16(disk.ring.at.device)
      }
      wish(1)
      await run(disk, BLK_IN, 0, [Buffer.alloc(512)])
      disk.calls()
      for (let done = 1; done < 60; done += 3) {
        wish(done + 3)
        for (const expected of [0, 0, 1]) {
          await run(disk, BLK_IN, 0, [Buffer.alloc(512)])
          assert.equal(disk.calls(), expected)
        }
        const { ring } = disk
        const next = ring instanceof PackedDriver ? ring.next | (ring.wrap ? 0x8000 : 0) : (ring as SplitDriver).avail
        // A turn that took long is followed by another before it asks.
        while (asked() !== next) await new Promise((resolve) => setImmediate(resolve))
      }
    })
  })
}
