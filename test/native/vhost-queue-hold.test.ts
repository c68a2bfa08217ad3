// Answers that are held for what a guest asks next. Law under test: its driver is told of them at the end of a turn at the
// latest, and whenever it might otherwise not be told at all.
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { PackedDriver } from '../support/vhost-drivers.js'
import { RING_KINDS, ringFixture } from '../support/vhost-kinds.js'
import { BLK_IN, blockRequest, type RamDisk } from '../support/vhost-ram-disk.js'

const LONG_NS = 4_000_000_000
const ROUNDS = 20
/** Of the guest's wish to be told of a place in a packed ring. */
const RING_EVENT_FLAGS_DESC = 2

const ask = (disk: RamDisk, sector: number, indirect = false) =>
  disk.ring.add(blockRequest(disk.guest, BLK_IN, sector, [512]).chain, indirect)

function serveAll(disk: RamDisk): void {
  for (const request of disk.taken.splice(0)) disk.serve(request)
}

const turn = () => new Promise((resolve) => setImmediate(resolve))

for (const [kind, driverOf] of RING_KINDS) {
  const { open, close } = ringFixture(driverOf)
  after(close)

  describe(`a ${kind} ring whose answers are held`, () => {
    test('has its driver told at the end of the turn, though it asked on', async () => {
      const disk = open({ keep: true })
      ask(disk, 0)
      const callsWithin: number[] = []
      const hold = () => {
        serveAll(disk)
        callsWithin.push(disk.calls())
        if (callsWithin.length > 1) return
        ask(disk, 1)
        assert.ok(disk.queue.hold(LONG_NS))
      }
      disk.on('event', hold)
      disk.calls()
      disk.kickNow()
      await disk.until(() => callsWithin.length === 2)
      disk.off('event', hold)
      await turn()
      assert.equal(callsWithin[0], 0, 'nobody told it')
      assert.ok((callsWithin[1] ?? 0) + disk.calls() > 0, 'the turn has ended')
    })

    test('is not waited for where nothing is held', async () => {
      const disk = open({ keep: true })
      const waited: boolean[] = []
      disk.once('event', () => {
        serveAll(disk)
        disk.queue.notify()
        ask(disk, 1)
        waited.push(disk.queue.hold(LONG_NS), disk.queue.await(LONG_NS))
      })
      ask(disk, 0)
      disk.kickNow()
      await disk.until(() => waited.length > 0)
      assert.deepEqual(waited, [false, true])
      await disk.until(() => disk.taken.length > 0)
      serveAll(disk)
      disk.queue.notify()
    })
  })
}

test('a packed ring that is used twice over while answers are held has its driver told: its wish names a place only', async () => {
  const size = 4
  const { open, close } = ringFixture((guest, entries) => new PackedDriver(guest, entries))
  after(close)
  const disk = open({ keep: true, queue: { eventIdx: true } }, size)
  const ring = disk.ring as PackedDriver
  const wishes = (place: number) => {
    disk.guest.write16(ring.at.driver, place | 0x8000)
    disk.guest.write16(ring.at.driver + 2, RING_EVENT_FLAGS_DESC)
  }
  let served = 0
  let wanted = 1
  disk.on('event', () => {
    serveAll(disk)
    served += ring.used().length
    // It asks on meanwhile, so that nobody has to tell it.
    if (served < wanted) ask(disk, 0, true)
  })
  wishes(0)
  ask(disk, 0, true)
  disk.kickNow()
  await disk.until(() => served === wanted)
  await turn()
  // A turn lasts for half a millisecond, and is over in the middle of it now and then.
  for (let round = 0; round < ROUNDS; round++) {
    disk.calls()
    wishes(served % size)
    wanted += 2 * size
    ask(disk, 0, true)
    disk.kickNow()
    await disk.until(() => served === wanted)
    await turn()
    assert.ok(disk.calls() > 0, 'the driver sleeps for ever')
  }
})
