// Guests that break the rules of the ring, one by one. Law under test: the queue is broken, once, with the rule in words;
// what was out is not answered into the ring any more, and another guest's queue goes on.
import assert from 'node:assert/strict'
import { ftruncateSync } from 'node:fs'
import { after, describe, test } from 'node:test'
import { SplitDriver } from '../support/vhost-drivers.js'
import { GUEST_BASE, GuestMemory, shrinkableFile, USER_BASE } from '../support/vhost-guest.js'
import { RING_KINDS } from '../support/vhost-kinds.js'
import { commit, MISCHIEF, MISCHIEF_BYTES, MISCHIEF_OF } from '../support/vhost-mischief.js'
import { BLK_IN, BLK_OUT, blockRequest, type DiskWishes, RamDisk } from '../support/vhost-ram-disk.js'

const MIB = 1 << 20
const END = GUEST_BASE + BigInt(MISCHIEF_BYTES)

for (const [kind, driverOf] of RING_KINDS) {
  const disks: RamDisk[] = []
  const open = (wishes: DiskWishes = {}, guest = new GuestMemory(MISCHIEF_BYTES)) => {
    // Where requests of the table above point to.
    guest.allocate(4096)
    const disk = new RamDisk(guest, driverOf(guest, 8), wishes)
    disks.push(disk)
    disk.queue.start()
    return disk
  }
  after(() => {
    for (const disk of disks) {
      disk.close()
      disk.guest.close()
    }
  })
  const bystander = open()

  /** Broken for this reason, and nobody else is worse off. */
  async function breaks(disk: RamDisk, reason: RegExp): Promise<void> {
    disk.kickNow()
    await disk.until(() => disk.broken !== undefined)
    assert.match(disk.broken ?? '', reason)
    disk.broken = 'told'
    disk.kickNow()
    disk.queue.poll()
    const before = bystander.taken.length
    bystander.ring.add(blockRequest(bystander.guest, BLK_IN, 0, [512]).chain)
    bystander.kickNow()
    await bystander.until(() => bystander.taken.length > before)
    assert.equal(bystander.ring.used().length, 1)
    assert.equal(disk.broken, 'told')
  }

  describe(`a guest with a ${kind} ring that breaks a rule`, () => {
    for (const mischief of [...MISCHIEF, ...(MISCHIEF_OF[kind] ?? [])]) {
      test(`${mischief.title} breaks its queue`, async () => {
        const disk = open(mischief.wishes)
        commit(disk, mischief)
        await breaks(disk, mischief.reason)
        assert.equal(disk.taken.length, 0)
      })
    }

    test('a chain that fits into a large ring, and is longer than any request, breaks its queue', async () => {
      const guest = new GuestMemory(MIB)
      const disk = new RamDisk(guest, driverOf(guest, 4096))
      disks.push(disk)
      disk.queue.start()
      disk.ring.add(blockRequest(guest, BLK_IN, 0, Array(1022).fill(1)).chain)
      disk.kickNow()
      await disk.until(() => disk.taken.length === 1)
      disk.ring.add(blockRequest(guest, BLK_IN, 0, Array(1023).fill(1)).chain)
      await breaks(disk, /too long, or a loop/)
      assert.equal(disk.taken.length, 1)
    })

    test('what was out when the queue broke is completed, but not into the ring', async () => {
      const disk = open({ keep: true })
      const request = blockRequest(disk.guest, BLK_IN, 0, [512])
      disk.ring.add(request.chain)
      disk.kickNow()
      await disk.until(() => disk.taken.length === 1)
      disk.ring.add([{ address: END, length: 16, writable: false }])
      await breaks(disk, /outside/)
      const [taken] = disk.taken
      if (taken) disk.serve(taken)
      disk.queue.notify()
      assert.deepEqual(disk.ring.used(), [])
      assert.equal(disk.guest.read(request.status, 1)[0], 0xff)
      assert.throws(() => disk.queue.complete(taken?.id ?? 0, 0, 0), /not out/)
    })

    test('a request in more pieces than 2,048, of regions of one byte, breaks its queue', async () => {
      const pieces = 63
      for (const [count, reason] of [
        [32, undefined],
        [33, /too many pieces/],
      ] as const) {
        const disk = open({ keep: true })
        const { guest } = disk
        for (let index = 0; index < pieces; index++) {
          const at = BigInt(index)
          const region = { guestAddress: END + at, userAddress: USER_BASE + BigInt(MISCHIEF_BYTES) + at, size: 1n }
          assert.equal(guest.memory.add({ ...region, offset: at, fd: guest.fd }), 0)
        }
        const data = { address: END, length: pieces, writable: true }
        const [header, status] = blockRequest(guest, BLK_IN, 0, []).chain
        assert.ok(header && status)
        disk.ring.add([header, ...Array(count).fill(data), status], true)
        disk.kickNow()
        if (reason === undefined) await disk.until(() => disk.taken.length === 1)
        else await breaks(disk, reason)
        for (const { id } of disk.taken) disk.queue.complete(id, 0, 0)
      }
    })

    test('memory that is cut off while requests are out breaks the queue, and gives no bytes for the image', async () => {
      const fd = shrinkableFile(MISCHIEF_BYTES)
      const disk = open({ keep: true }, new GuestMemory(MISCHIEF_BYTES, 0, fd))
      disk.guest.allocate(64 * 1024)
      disk.ring.add(blockRequest(disk.guest, BLK_OUT, 0, [4096]).chain)
      disk.ring.add(blockRequest(disk.guest, BLK_OUT, 8, [4096]).chain)
      disk.kickNow()
      await disk.until(() => disk.taken.length === 2)
      ftruncateSync(fd, 4096)
      const [one, other] = disk.taken.map(({ id }) => id)
      assert.equal(disk.queue.gather(one ?? 0, new Uint8Array(4096), 0, 4096, 0), 14)
      assert.equal(disk.queue.vector(other ?? 0).writeNow(fd, 0, 4096, 0, 0), 14)
      for (const { id } of disk.taken) disk.queue.complete(id, 0, 0)
      await breaks(disk, /cut off/)
    })

    test('a ring that is cut off under a queue that waits breaks it at its next turn', async () => {
      const fd = shrinkableFile(MISCHIEF_BYTES)
      const disk = open({}, new GuestMemory(MISCHIEF_BYTES, 0, fd))
      await new Promise((resolve) => setImmediate(resolve))
      ftruncateSync(fd, 0)
      await breaks(disk, /cut off/)
    })
  })
}

describe('a guest with a split ring', () => {
  const open = (size = 8, wishes: DiskWishes = {}) => {
    const guest = new GuestMemory(MISCHIEF_BYTES)
    const ring = new SplitDriver(guest, size)
    const disk = new RamDisk(guest, ring, wishes)
    disk.queue.start()
    return { guest, ring, disk }
  }
  const ended = async ({ guest, disk }: ReturnType<typeof open>) => {
    disk.kickNow()
    await disk.until(() => disk.broken !== undefined)
    disk.close()
    guest.close()
    return disk.broken ?? ''
  }

  test('whose available index leaps, whose head is wild or given twice, is broken', async () => {
    const leaps = open()
    leaps.guest.write16(leaps.ring.at.avail + 2, 9)
    assert.match(await ended(leaps), /leaps/)
    const wild = open()
    wild.ring.offer(8)
    assert.match(await ended(wild), /head/)
    const twice = open(8, { keep: true })
    twice.ring.offer(twice.ring.add(blockRequest(twice.guest, BLK_IN, 0, [512]).chain))
    assert.match(await ended(twice), /again/)
    assert.equal(twice.disk.taken.length, 1)
  })

  test('whose used index says that more is under way than the ring holds is broken', async () => {
    const guest = new GuestMemory(MIB)
    const ring = new SplitDriver(guest, 8)
    guest.write16(ring.at.used + 2, 100)
    const disk = new RamDisk(guest, ring, { queue: { base: 109 } })
    disk.queue.start()
    assert.match(await ended({ guest, ring, disk }), /under way/)
  })

  test('may fill the ring with one chain of 1,024 descriptors', async () => {
    const { guest, disk, ring } = open(1024)
    ring.add(blockRequest(guest, BLK_IN, 0, Array(1022).fill(1)).chain)
    disk.kickNow()
    await disk.until(() => disk.taken.length === 1)
    assert.equal(disk.taken[0]?.in, 1022)
    assert.equal(disk.broken, undefined)
    disk.close()
    guest.close()
  })
})
