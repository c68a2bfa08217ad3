// Both kinds of ring, for suites that every kind must pass.
import assert from 'node:assert/strict'
import { PackedDriver, type RingDriver, SplitDriver } from './vhost-drivers.js'
import { GuestMemory } from './vhost-guest.js'
import { BLK_OUT, blockRequest, type DiskWishes, RamDisk } from './vhost-ram-disk.js'

export type DriverOf = (guest: GuestMemory, size: number) => RingDriver

export const RING_KINDS: readonly (readonly [string, DriverOf])[] = [
  ['split', (guest, size) => new SplitDriver(guest, size)],
  ['packed', (guest, size) => new PackedDriver(guest, size)],
]

const MIB = 1 << 20

/** Bytes of which any that is moved or lost shows. */
export function pattern(length: number, seed: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, index) => (index * 7 + seed) & 0xff))
}

/** Disks on rings of one kind, all closed by `close`. */
export function ringFixture(driverOf: DriverOf) {
  const opened: RamDisk[] = []
  function open(wishes: DiskWishes = {}, size = 64): RamDisk {
    const guest = new GuestMemory(8 * MIB)
    const disk = new RamDisk(guest, driverOf(guest, size), wishes)
    disk.queue.start()
    opened.push(disk)
    return disk
  }
  function close(): void {
    for (const disk of opened) {
      disk.close()
      disk.guest.close()
    }
  }

  /** Gives a request to the disk, and waits for its answer. */
  async function run(disk: RamDisk, type: number, sector: number, data: readonly Buffer[], indirect = false) {
    const request = blockRequest(
      disk.guest,
      type,
      sector,
      data.map(({ length }) => length),
    )
    if (type === BLK_OUT)
      for (const [index, at] of request.data.entries()) disk.guest.write(at, data[index] ?? Buffer.of())
    const id = disk.ring.add(request.chain, indirect)
    const before = disk.taken.length
    disk.kickNow()
    await disk.until(() => disk.taken.length > before)
    const [used, ...more] = disk.ring.used()
    assert.deepEqual(more, [])
    assert.equal(used?.id, id)
    const read = Buffer.concat(request.data.map((at, index) => disk.guest.read(at, data[index]?.length ?? 0)))
    return { status: disk.guest.read(request.status, 1)[0], written: used?.written, read }
  }

  return { open, run, close }
}
