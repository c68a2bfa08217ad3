// Where the data of a request is, and the life of a queue: windows, files, stop and start again, what is refused. Law under
// test: memory is pinned while a request is in it, and no queue is opened on a ring that cannot be.
import assert from 'node:assert/strict'
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import {
  errnoName,
  REQUEST_SEGMENTS,
  REQUEST_START,
  REQUEST_WINDOW,
  REQUEST_WORDS,
  WOULD_BLOCK,
} from '../../backends/index.js'
import { temporaryFolder } from '../support/candor.js'
import type { RingDriver } from '../support/vhost-drivers.js'
import { GuestMemory, USER_BASE } from '../support/vhost-guest.js'
import { pattern, RING_KINDS, ringFixture } from '../support/vhost-kinds.js'
import { BLK_IN, BLK_OUT, blockRequest, type DiskWishes, RamDisk } from '../support/vhost-ram-disk.js'

const MIB = 1 << 20
const folder = temporaryFolder()
after(() => folder.remove())

function ringFields({ size, packed, descriptors, driver, device }: RingDriver): RingDriver {
  return { size, packed, descriptors, driver, device, add: () => 0, used: () => [] }
}

for (const [kind, driverOf] of RING_KINDS) {
  const { open, run, close } = ringFixture(driverOf)
  after(close)

  describe(`a queue on a ${kind} ring`, () => {
    test('data in one piece is named in a window, and goes between image and guest without a copy', async () => {
      const disk = open({ keep: true })
      const { guest, queue } = disk
      const bytes = pattern(8192, 9)
      const path = join(folder.path, `${kind}.img`)
      const fd = openSync(path, 'w+')
      writeSync(fd, bytes)
      const one = blockRequest(guest, BLK_IN, 0, [4096])
      const many = blockRequest(guest, BLK_IN, 0, [1024, 3072, 1024])
      const out = blockRequest(guest, BLK_OUT, 0, [512, 512])
      for (const at of out.data) guest.write(at, Buffer.alloc(512, 0x55))
      for (const { chain } of [one, many, out]) disk.ring.add(chain)
      disk.kickNow()
      await disk.until(() => disk.taken.length === 3)
      const word = (entry: number, index: number) => queue.table[entry * REQUEST_WORDS + index]
      assert.deepEqual(
        [0, 1, 2].map((entry) => word(entry, REQUEST_SEGMENTS)),
        [1, 3, 2],
      )
      assert.deepEqual(
        [0, 1, 2].map((entry) => word(entry, REQUEST_WINDOW)),
        [0, -1, -1],
      )
      assert.equal(word(0, REQUEST_START), one.data[0])
      const [first = 0, second = 0, third = 0] = disk.taken.map(({ id }) => id)
      assert.equal(queue.vector(first).readNow(fd, 0, 4096, 4096, 0), 0)
      assert.equal(queue.vector(second).readNow(fd, 0, 5120, 0, 0), 0)
      assert.equal(queue.vector(third).writeNow(fd, 0, 1024, 1024, 0), 0)
      assert.deepEqual(guest.read(one.data[0] ?? 0, 4096), bytes.subarray(4096))
      const read = Buffer.concat(many.data.map((at, index) => guest.read(at, [1024, 3072, 1024][index] ?? 0)))
      assert.deepEqual(read, bytes.subarray(0, 5120))
      bytes.fill(0x55, 1024, 2048)
      assert.deepEqual(readFileSync(path), bytes)
      assert.equal(queue.vector(first).readNow(fd, 0, 4096, 8000, 0), WOULD_BLOCK)
      assert.equal(queue.vector(second).readNow(fd, 1000, 200, 0, 0), 0)
      assert.deepEqual(guest.read((many.data[0] ?? 0) + 1000, 24), bytes.subarray(0, 24))
      assert.deepEqual(guest.read(many.data[1] ?? 0, 176), bytes.subarray(24, 200))
      assert.equal(queue.vector(second).readNow(fd, 1000, 4121, 0, 0), 14)
      assert.equal(queue.gather(first, new Uint8Array(1), 0, 1, 0), 14)
      assert.equal(queue.scatter(first, new Uint8Array(4097), 0, 4097, 0), 14)
      assert.equal(queue.scatter(first, new Uint8Array(2), 0, 2, 4095), 14)
      closeSync(fd)
    })

    test('an answer is given once, and to what was asked', async () => {
      const disk = open({ keep: true })
      assert.throws(() => disk.queue.complete(0, 0, 0), /not out/)
      disk.ring.add(blockRequest(disk.guest, BLK_IN, 0, [512]).chain)
      disk.kickNow()
      await disk.until(() => disk.taken.length === 1)
      const id = disk.taken[0]?.id ?? 0
      disk.queue.complete(id, 0, 512)
      assert.throws(() => disk.queue.complete(id, 0, 512), /not out/)
      assert.throws(() => disk.queue.gather(id, new Uint8Array(1), 0, 1, 0), /not out/)
      assert.throws(() => disk.queue.complete(5000, 0, 0), /not out/)
      assert.equal(disk.ring.used().length, 1)
    })

    test('a ring that is stopped says where it stands, and a queue that goes on from there misses nothing', async () => {
      const first = open({}, 8)
      await run(first, BLK_IN, 1, [Buffer.alloc(512)])
      await run(first, BLK_IN, 2, [Buffer.alloc(512)])
      const base = first.queue.stop()
      assert.equal(base, kind === 'split' ? 2 : 0x8006 + 0x8006 * 0x1_0000)
      first.ring.add(blockRequest(first.guest, BLK_IN, 3, [512]).chain)
      first.kickNow()
      await new Promise((resolve) => setImmediate(resolve))
      assert.equal(first.taken.length, 2)
      const second = new RamDisk(first.guest, first.ring, { queue: { base } })
      second.queue.start()
      await second.until(() => second.taken.length === 1)
      assert.equal(second.taken[0]?.sector, 3)
      assert.equal(first.ring.used().length, 1)
      second.close()
    })

    test('a queue without a kick reads its ring when it is asked, and not otherwise', async () => {
      const disk = open({ keep: true, queue: { requestsMax: 2 } })
      for (let sector = 0; sector < 5; sector++) disk.ring.add(blockRequest(disk.guest, BLK_IN, sector, [512]).chain)
      disk.kickNow()
      await disk.until(() => disk.taken.length === 2)
      assert.equal(disk.queue.setKick(-1), 0)
      for (const request of disk.taken) disk.serve(request)
      disk.kickNow()
      for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve))
      assert.equal(disk.taken.length, 2)
      disk.queue.poll()
      await disk.until(() => disk.taken.length === 4)
      for (const request of disk.taken.slice(2)) disk.serve(request)
      assert.equal(disk.queue.setKick(disk.kick), 0)
      await disk.until(() => disk.taken.length === 5)
    })

    test('a region that is taken out stays until what is being served in it is complete', async () => {
      const disk = open({ keep: true })
      const { guest } = disk
      guest.write(4 * MIB, Buffer.alloc(16))
      const request = blockRequest(guest, BLK_IN, 0, [512])
      disk.ring.add(request.chain)
      disk.kickNow()
      await disk.until(() => disk.taken.length === 1)
      const window = guest.memory.window(0)
      assert.equal(guest.memory.remove(guest.region), 0)
      assert.equal(window?.length, 8 * MIB)
      const [taken] = disk.taken
      if (taken) disk.serve(taken)
      assert.equal(disk.ring.used().length, 1)
      disk.queue.close()
      assert.equal(window?.length, 0)
    })

    test('rings that cannot be are refused', () => {
      const guest = new GuestMemory(MIB)
      const ring = driverOf(guest, 64)
      const refused = (queue: DiskWishes['queue'], size = 64) => {
        try {
          new RamDisk(guest, { ...ringFields(ring), size }, { queue: queue ?? {} }).close()
        } catch (error) {
          return errnoName((error as { errno?: number }).errno ?? 0)
        }
        return 'none'
      }
      assert.equal(refused({}), 'none')
      assert.equal(refused({ size: 0 }), 'EINVAL')
      assert.equal(refused({ size: 32_769 }), 'EINVAL')
      assert.equal(refused({ size: 65_536 }), 'EINVAL')
      assert.equal(refused({ size: 48 }), kind === 'split' ? 'EINVAL' : 'none')
      assert.equal(refused({ requestsMax: 0 }), 'EINVAL')
      assert.equal(refused({ base: kind === 'split' ? 65_536 : 64 }), 'EINVAL')
      assert.equal(refused({ descriptors: USER_BASE + BigInt(MIB) - 512n }), 'EFAULT')
      assert.equal(refused({ driver: USER_BASE + BigInt(MIB) - 2n }), 'EFAULT')
      assert.equal(refused({ device: USER_BASE - 4n }), 'EFAULT')
      assert.equal(refused({ descriptors: 2n ** 64n - 16n }), 'EFAULT')
      assert.equal(refused({ descriptors: ring.descriptors + 8n }), 'EINVAL')
      assert.equal(refused({ driver: ring.driver + 1n }), 'EINVAL')
      assert.equal(refused({ device: ring.device + 2n }), 'EINVAL')
      assert.equal(refused({ kick: 0 }), 'EBADF')
      assert.equal(refused({ call: guest.fd }), 'EBADF')
      assert.equal(refused({ inflight: { fd: guest.fd, offset: 0, size: 128 } }), 'ENXIO')
      guest.close()
    })
  })
}
