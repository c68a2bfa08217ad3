// What threads that share a file system know of each other, and what the main thread makes of it.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { DONE, type Outcome, RESERVED } from '../../backends/index.js'
import { BackingDesk } from '../../server/io/backing-desk.js'
import { FREE, lastLook, overcommitOf, UNTIL_FULL } from '../../server/observe/backing-block.js'
import { Disk, fresh, PLACE, roomOn } from '../support/pretended-disk.js'

const KIB = 1024

describe('the desk', () => {
  test('shows free space, what the images may still take beyond it, and who they are', async () => {
    const disk = new Disk(100 * KIB)
    disk.allocated = 300 * KIB
    const desk = new BackingDesk()
    const thread = {}
    await roomOn(disk, { reserve: 0, size: 1 << 20, backing: fresh(desk, thread) })
    const block = desk.observed()[0]?.block
    assert.ok(block)
    const read = lastLook(block)
    assert.deepEqual([read?.(FREE), read?.(UNTIL_FULL)], [100 * KIB, Number.POSITIVE_INFINITY])
    assert.equal(overcommitOf(block), (1 << 20) - 400 * KIB)
    const about = { mount: '/pretended', exports: ['disk'], mayTake: (1 << 20) - 300 * KIB, free: 100 * KIB }
    assert.deepEqual(desk.outgrowing(), [about])
    await roomOn(disk, { reserve: 0, size: 1 << 20, backing: fresh(desk, {}) })
    assert.equal(overcommitOf(block), 2 * ((1 << 20) - 300 * KIB) - 100 * KIB)
    for (let count = 0; count < 5; count++) desk.shareFor('disk', PLACE, thread)
    assert.deepEqual(desk.outgrowing()[0]?.exports, ['disk', 'disk', 'disk', 'disk', 'disk', 'and 2 more'])
  })
})

describe('threads that share a file system', () => {
  test('count what each other wrote and have on its way, and leave each other a margin in their turns', async () => {
    const MIB = 1 << 20
    const disk = new Disk(200 * MIB)
    const desk = new BackingDesk()
    const { room: one } = await roomOn(disk, { reserve: 100 * MIB, backing: fresh(desk, {}) })
    assert.equal(one.has(100 * MIB), true)
    const { room: other } = await roomOn(disk, { reserve: 100 * MIB, backing: fresh(desk, {}) })
    assert.deepEqual([one.has(68 * MIB), one.has(68 * MIB + 1)], [true, false])
    other.took(20 * MIB)
    assert.deepEqual([one.has(48 * MIB), one.has(48 * MIB + 1)], [true, false])
    let finish = (_: Outcome) => {}
    const pending = other.within(0, 60 * MIB, () => new Promise<Outcome>((resolve) => (finish = resolve)))
    await new Promise((resolve) => setImmediate(resolve))
    disk.free = 180 * MIB
    assert.equal(await one.within(0, 20 * MIB + 1, async () => DONE), RESERVED)
    assert.equal(await one.within(0, 20 * MIB, async () => DONE), DONE)
    finish(DONE)
    assert.equal(await pending, DONE)
  })
})
