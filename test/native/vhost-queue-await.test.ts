// Waiting in place for what a guest asks next. Law under test: what comes meanwhile is told of in the same turn and without a
// kick, and nothing that the event loop has to bring is waited away.
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { RING_KINDS, ringFixture } from '../support/vhost-kinds.js'
import { BLK_IN, blockRequest, type RamDisk } from '../support/vhost-ram-disk.js'

const LONG_NS = 4_000_000_000
const SHORT_NS = 20_000
const ROUNDS = 20

for (const [kind, driverOf] of RING_KINDS) {
  const { open, close } = ringFixture(driverOf)
  after(close)

  const ask = (disk: RamDisk, sector: number) => disk.ring.add(blockRequest(disk.guest, BLK_IN, sector, [512]).chain)

  /** Asks for one sector with a kick, and calls `then` from within the turn that took it. */
  const within = async <Answer>(disk: RamDisk, then: () => Answer): Promise<Answer> => {
    const answers: Answer[] = []
    disk.once('event', () => answers.push(then()))
    ask(disk, 0)
    disk.kickNow()
    await disk.until(() => answers.length > 0)
    return answers[0] as Answer
  }

  describe(`a ${kind} ring that is waited for in place`, () => {
    test('has what came meanwhile: it is told of without a kick, in the same turn while that lasts', async () => {
      const disk = open()
      let inTurn = 0
      for (let round = 1; round <= ROUNDS; round++) {
        let turnEnded = false
        const seen = await within(disk, () => {
          setImmediate(() => {
            turnEnded = true
          })
          ask(disk, 1)
          return disk.queue.await(LONG_NS)
        })
        assert.equal(seen, true)
        await disk.until(() => disk.taken.length === 2 * round)
        if (!turnEnded) inTurn += 1
        assert.equal(disk.ring.used().length, 2)
      }
      assert.deepEqual(disk.batches, new Array(2 * ROUNDS).fill(1))
      // A turn lasts for half a millisecond, which this process may spend without a processor.
      assert.ok(inTurn > ROUNDS / 4, `${inTurn} of ${ROUNDS} in the same turn`)
    })

    test('has nothing when nothing came, and a kick wakes it as before', async () => {
      const disk = open()
      assert.equal(await within(disk, () => disk.queue.await(SHORT_NS)), false)
      ask(disk, 1)
      disk.kickNow()
      await disk.until(() => disk.taken.length === 2)
    })

    test('is not waited for while a request is out: its answer comes through the event loop', async () => {
      const disk = open({ keep: true })
      const seen = await within(disk, () => {
        ask(disk, 1)
        return disk.queue.await(LONG_NS)
      })
      assert.equal(seen, false)
      await disk.until(() => disk.taken.length === 2)
      for (const request of disk.taken) disk.serve(request)
      disk.queue.notify()
    })

    test('is not waited for while another ring of the thread has something, or storage has something of it', async () => {
      const [disk, other] = [open(), open()]
      const waitBeside = (what: () => void) =>
        within(disk, () => {
          what()
          ask(disk, 1)
          return disk.queue.await(LONG_NS)
        })
      assert.equal(await waitBeside(() => ask(other, 1)), false)
      other.kickNow()
      await other.until(() => other.taken.length === 1)

      const slow = open({ keep: true })
      ask(slow, 0)
      slow.kickNow()
      await slow.until(() => slow.taken.length === 1)
      assert.equal(await waitBeside(() => {}), false)
      for (const request of slow.taken) slow.serve(request)
      slow.queue.notify()
    })

    test('is not waited for while the driver of another ring was not told of an answer yet', async () => {
      const [disk, other] = [open(), open({ keep: true })]
      ask(other, 0)
      other.kickNow()
      await other.until(() => other.taken.length === 1)
      other.calls()
      const waited = await within(disk, () => {
        for (const request of other.taken) other.serve(request)
        ask(disk, 1)
        return [disk.queue.await(LONG_NS), other.calls()]
      })
      // It is signalled at the end of the turn, and not by the answer itself.
      assert.deepEqual(waited, [false, 0])
      other.queue.notify()
      assert.equal(other.calls(), 1)
      const again = await within(disk, () => {
        ask(disk, 1)
        return disk.queue.await(LONG_NS)
      })
      assert.equal(again, true)
    })

    test('is not waited for once it has stopped', async () => {
      const disk = open()
      const seen = await within(disk, () => {
        disk.queue.stop()
        return disk.queue.await(LONG_NS)
      })
      assert.equal(seen, false)
    })
  })
}
