// The arithmetic of the reserve, over a file system that says what the test wants: to the byte, and under races.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { DONE, ENOSPC, type Outcome, RESERVED } from '../../backends/index.js'
import { Disk, roomOn, SOMEBODY } from '../support/pretended-disk.js'

const KIB = 1024

describe('the reserve', () => {
  test('is kept to the byte: what leaves just as much is written, one byte more is not', async () => {
    const disk = new Disk(100 * KIB)
    const { room } = await roomOn(disk, { reserve: 60 * KIB })
    const done = async () => DONE
    assert.equal(await room.within(0, 40 * KIB + 1, done), RESERVED)
    assert.equal(await room.within(0, 40 * KIB, done), DONE)
    assert.equal(room.has(0), true)
    assert.equal(room.has(1), false)
  })

  test('costs no look while there is plenty', async () => {
    const disk = new Disk(1 << 29)
    const { room } = await roomOn(disk, { reserve: KIB })
    const { looks } = disk
    for (let count = 0; count < 1000; count++) {
      assert.equal(room.has(4 * KIB), true)
      room.took(4 * KIB)
      await room.within(0, 4 * KIB, async () => DONE)
    }
    assert.deepEqual([disk.asked, disk.looks], [0, looks])
  })

  test('does not refuse what takes no space, however little is free', async () => {
    const disk = new Disk(0)
    disk.share = 0
    const { room } = await roomOn(disk, { reserve: KIB })
    assert.equal(await room.within(0, 1 << 20, async () => DONE), DONE)
  })

  test('counts writes in flight as taken: of many at once no more are admitted than there is room for', async () => {
    const disk = new Disk(100 * KIB)
    const { room } = await roomOn(disk, { reserve: 60 * KIB })
    const finish: ((outcome: Outcome) => void)[] = []
    const change = () => new Promise<Outcome>((resolve) => finish.push(resolve))
    const outcomes = Array.from({ length: 32 }, (_, index) => room.within(index * 4 * KIB, 4 * KIB, change))
    const refused = outcomes.slice(10)
    assert.deepEqual(new Set(await Promise.all(refused)), new Set([RESERVED]))
    assert.equal(finish.length, 10)
    // A look that does not know of them yet does not make them forgotten.
    assert.equal(await room.within(0, KIB, async () => DONE), RESERVED)
    for (const done of finish) done(DONE)
    await Promise.all(outcomes)
    disk.free = 60 * KIB
    assert.equal(await room.within(0, KIB, async () => DONE), RESERVED)
  })

  test('a look that began before a write does not know of it', async () => {
    const disk = new Disk(90 * KIB)
    const { room } = await roomOn(disk, { reserve: 60 * KIB })
    disk.free = 100 * KIB
    const open = disk.close()
    // It does not fit by what is known, so the host is asked; meanwhile another write is done in its turn.
    const asking = room.within(0, 35 * KIB, async () => DONE)
    await new Promise((resolve) => setImmediate(resolve))
    room.took(20 * KIB)
    disk.free = 80 * KIB
    open()
    assert.equal(await asking, RESERVED)
    assert.deepEqual([room.has(20 * KIB), room.has(20 * KIB + 1)], [true, false])
  })

  test('a look that was overtaken by a later one says nothing', async () => {
    const disk = new Disk(100 * KIB)
    const { room, backing } = await roomOn(disk, { reserve: 60 * KIB })
    const open = disk.close()
    const joining = roomOn(disk, { reserve: 0, backing })
    await new Promise((resolve) => setImmediate(resolve))
    disk.gate = Promise.resolve()
    disk.free = 70 * KIB
    assert.equal(await room.within(0, 41 * KIB, async () => DONE), RESERVED)
    open()
    await joining
    assert.deepEqual([room.has(10 * KIB), room.has(10 * KIB + 1)], [true, false])
  })

  test('where free space lags behind, what was written is taken for taken until a look settles', async () => {
    const disk = new Disk(100 * KIB, true)
    const { settled } = disk
    const { room, backing } = await roomOn(disk, { reserve: 60 * KIB })
    settled.length = 0
    assert.equal(await room.within(0, 40 * KIB, async () => DONE), DONE)
    assert.equal(room.has(1), false)
    // Another one's coming makes the watch look, without settling.
    await roomOn(disk, { reserve: 0, backing })
    assert.deepEqual([room.has(1), settled.includes(true)], [false, false])
    disk.free = 90 * KIB
    assert.equal(await room.within(0, 10 * KIB, async () => DONE), DONE)
    assert.equal(settled.at(-1), true)
  })

  test('where free space lags behind, a look beside one that settles says nothing', async () => {
    const disk = new Disk(100 * KIB, true)
    const { room, backing } = await roomOn(disk, { reserve: 60 * KIB })
    room.took(30 * KIB)
    disk.free = 80 * KIB
    const settle = disk.close()
    const asking = room.within(0, 15 * KIB, async () => DONE)
    await new Promise((resolve) => setImmediate(resolve))
    // Asked later, and answered by the host before it knew of anything.
    disk.free = 100 * KIB
    const open = disk.close()
    const joining = roomOn(disk, { reserve: 0, backing })
    await new Promise((resolve) => setImmediate(resolve))
    settle()
    assert.equal(await asking, DONE)
    open()
    await joining
    assert.deepEqual([room.has(5 * KIB), room.has(5 * KIB + 1)], [true, false])
  })

  test("is each export's own, and what others write counts against it", async () => {
    const disk = new Disk(100 * KIB)
    const { room: careful, backing } = await roomOn(disk, { reserve: 60 * KIB })
    const { room: careless } = await roomOn(disk, { reserve: 0, backing })
    assert.equal(careless.has(1 << 30), true)
    careless.took(30 * KIB)
    assert.deepEqual([careful.has(10 * KIB), careful.has(10 * KIB + 1)], [true, false])
  })
})

describe('the watch', () => {
  test('wakes all who are held, reserve or not, as soon as the file system tells of space', {
    timeout: 20_000,
  }, async (t) => {
    // What is tried twice a second without a sign stands still, so that only the watch can wake.
    t.mock.timers.enable({ apis: ['setInterval'] })
    const disk = new Disk(0)
    const policy = { kind: 'hold', timeoutMs: 60_000 } as const
    const { room, hold, backing } = await roomOn(disk, { reserve: KIB, policy })
    const { hold: other } = await roomOn(disk, { reserve: 0, policy, backing })
    let full = true
    let tries = 0
    const host = async () => {
      tries += 1
      return full ? ENOSPC : DONE
    }
    const held = [
      hold.run(
        () => room.within(0, KIB, async () => DONE),
        () => true,
        SOMEBODY,
      ),
      ...Array.from({ length: 8 }, () => other.run(host, () => true, SOMEBODY)),
    ]
    while (hold.held + other.held < held.length) await new Promise((resolve) => setImmediate(resolve))
    const { looks } = disk
    while (disk.looks < looks + 4) await new Promise((resolve) => setTimeout(resolve, 5))
    full = false
    disk.free = 64 * KIB
    assert.deepEqual(new Set(await Promise.all(held)), new Set([DONE]))
    assert.ok(tries >= 16)
    assert.deepEqual([hold.held, other.held], [0, 0])
  })
})
