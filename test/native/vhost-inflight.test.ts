// The in-flight log. Law under test: a back-end that ended at any moment is followed by one that does all that was not
// answered, in the order in which it came, and nothing else.
import assert from 'node:assert/strict'
import { closeSync, readSync, writeSync } from 'node:fs'
import { describe, test } from 'node:test'
import { inflightBytes, memoryFile } from '../../backends/index.js'
import type { PackedDriver } from '../support/vhost-drivers.js'
import { GuestMemory } from '../support/vhost-guest.js'
import { RING_KINDS } from '../support/vhost-kinds.js'
import { BLK_IN, blockRequest, RamDisk } from '../support/vhost-ram-disk.js'

const MIB = 1 << 20
const SIZE = 16

for (const [kind, driverOf] of RING_KINDS) {
  const packed = kind === 'packed'
  const bytes = inflightBytes(SIZE, packed)

  function scene() {
    const guest = new GuestMemory(8 * MIB)
    const ring = driverOf(guest, SIZE)
    const log = memoryFile(2 * bytes)
    // The second region of two, as with two queues.
    const inflight = { fd: log, offset: bytes, size: bytes }
    let sector = 0
    return {
      guest,
      ring,
      log,
      offer: (count: number) => {
        for (let index = 0; index < count; index++) ring.add(blockRequest(guest, BLK_IN, ++sector, [512]).chain)
      },
      /** A back-end from scratch, that a front end which knows nothing starts with the place it last heard of. */
      open: async (base: number, expected: number) => {
        const disk = new RamDisk(guest, ring, { keep: true, queue: { inflight, base } })
        disk.queue.start()
        await disk.until(() => disk.taken.length >= expected || disk.broken !== undefined)
        return disk
      },
      end: () => {
        guest.close()
        closeSync(log)
      },
    }
  }

  const START = packed ? 0x8000_8000 : 0

  describe(`the in-flight log of a ${kind} ring`, () => {
    test('what was left is done again, in its order, before what came later', async () => {
      const { open, offer, ring, guest, log, end } = scene()
      offer(5)
      const first = await open(START, 5)
      const serve = (disk: RamDisk, which: readonly number[]) => {
        for (const index of which) {
          const taken = disk.taken[index]
          if (taken) disk.serve(taken)
        }
      }
      serve(first, [3, 0])
      first.close()
      assert.equal(ring.used().length, 2)
      // Another round in the freed descriptors: older ones are now behind newer ones in the table.
      const second = await open(packed ? START : 2, 3)
      assert.deepEqual(
        second.taken.map(({ sector }) => sector),
        [2, 3, 5],
      )
      serve(second, [1])
      assert.equal(ring.used().length, 1)
      offer(1)
      second.kickNow()
      await second.until(() => second.taken.length === 4)
      second.close()
      const third = await open(packed ? START : 3, 3)
      assert.deepEqual(
        third.taken.map(({ sector }) => sector),
        [2, 5, 6],
      )
      serve(third, [0, 1, 2])
      assert.equal(ring.used().length, 3)
      offer(2)
      third.kickNow()
      await third.until(() => third.taken.length === 5)
      assert.deepEqual(
        third.taken.slice(3).map(({ sector }) => sector),
        [7, 8],
      )
      assert.equal(third.broken, undefined)
      third.close()
      assert.equal(guest.memory.lost, false)
      assert.ok(log > 0)
      end()
    })

    test('a back-end that follows another at every point misses nothing and repeats nothing', async () => {
      const { open, offer, ring, end } = scene()
      let base = START
      let expected = 0
      let answered = 0
      const sectors: number[] = []
      for (let round = 0; round < 60; round++) {
        const fresh = 1 + (round % 4)
        // Three descriptors for each request, of sixteen.
        const room = Math.min(fresh, 5 - expected)
        offer(room)
        expected += room
        const disk = await open(base, expected)
        assert.equal(disk.broken, undefined)
        assert.equal(disk.taken.length, expected)
        assert.deepEqual(
          disk.taken.map(({ sector }) => sector),
          [...disk.taken.map(({ sector }) => sector)].sort((a, b) => a - b),
        )
        for (const taken of disk.taken.filter((_, index) => (index + round) % 3 !== 0)) {
          sectors.push(taken.sector)
          disk.serve(taken)
          expected -= 1
        }
        answered += ring.used().length
        assert.equal(answered, sectors.length)
        if (!packed) base = answered & 0xffff
        disk.close()
      }
      assert.equal(new Set(sectors).size, sectors.length)
      end()
    })

    test('a log of other dimensions, and one that contradicts itself, breaks the queue and not more', async () => {
      const spoiled = async (at: number, ...values: number[]) => {
        const { open, offer, log, end } = scene()
        offer(3)
        const first = await open(START, 3)
        first.close()
        writeSync(log, new Uint8Array(Uint16Array.from(values).buffer), 0, 2 * values.length, bytes + at)
        const second = await open(START, 3)
        const { broken } = second
        second.close()
        end()
        return broken
      }
      assert.equal(await spoiled(10, SIZE), undefined)
      assert.match((await spoiled(10, SIZE / 2)) ?? '', /in-flight log/)
      assert.match((await spoiled(8, 2)) ?? '', /in-flight log/)
      if (!packed) {
        // The used index is said to have moved on by a batch that begins beyond the table.
        assert.match((await spoiled(12, 4000, 65_535)) ?? '', /in-flight log/)
        return
      }
      assert.match((await spoiled(16, SIZE)) ?? '', /in-flight log/)
      assert.match((await spoiled(18, 40_000)) ?? '', /in-flight log/)
      // The first entry's list: a loop, one beyond the table, one that is longer than the table.
      assert.match((await spoiled(32 + 2, 0)) ?? '', /in-flight log/)
      assert.match((await spoiled(32 + 2, SIZE)) ?? '', /in-flight log/)
      assert.match((await spoiled(32 + 6, 65_535)) ?? '', /in-flight log/)
      // The free list, nine entries on, is a loop: each of its entries would be given to request after request.
      assert.match((await spoiled(32 + 32 * (SIZE - 1) + 2, 9)) ?? '', /in-flight log/)
    })

    if (packed) {
      test('a completion that was under way is taken back, unless the driver had seen it', async () => {
        for (const seen of [false, true]) {
          const { open, offer, ring, log, guest, end } = scene()
          offer(2)
          const first = await open(START, 2)
          const before = Buffer.alloc(bytes)
          readSync(log, before, 0, bytes, bytes)
          const driver = ring as PackedDriver
          const flags = guest.read(driver.at.ring, 16)
          const [taken] = first.taken
          if (taken) first.serve(taken)
          first.close()
          // As if it had ended between the log's new place and its old one: only `used_idx` and `free_head` moved on.
          const after = Buffer.alloc(bytes)
          readSync(log, after, 0, bytes, bytes)
          const between = Buffer.from(after)
          before.copy(between, 14, 14, 16)
          before.copy(between, 18, 18, 20)
          before.copy(between, 21, 21, 22)
          between[32] = 1
          writeSync(log, between, 0, bytes, bytes)
          if (!seen) guest.write(driver.at.ring, flags)
          const second = await open(START, seen ? 1 : 2)
          assert.deepEqual(
            second.taken.map(({ sector }) => sector),
            seen ? [2] : [1, 2],
          )
          second.close()
          end()
        }
      })
    } else {
      test('a completion whose entry still stands in the log is not repeated', async () => {
        const { open, offer, log, end } = scene()
        offer(2)
        const first = await open(START, 2)
        const [taken] = first.taken
        if (taken) first.serve(taken)
        first.close()
        // As if it had ended right after the used index moved: the entry says in flight, and `used_idx` is the old one.
        writeSync(log, Uint8Array.of(1), 0, 1, bytes + 16 + 16 * (taken?.id ?? 0))
        writeSync(log, Uint8Array.of(0, 0), 0, 2, bytes + 14)
        const second = await open(1, 1)
        assert.deepEqual(
          second.taken.map(({ sector }) => sector),
          [2],
        )
        second.close()
        end()
      })
    }
  })
}
