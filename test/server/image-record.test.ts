// What outlives the server: records are found again, survive damage, and never tell less than what may be lost.
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { DONE } from '../../backends/index.js'
import { openRecord } from '../../server/state/image-record.js'
import { claimRecord, locateRecord, readRecord } from '../../server/state/record-files.js'
import { SLOT_BYTES } from '../../server/state/record-format.js'
import { temporaryFolder } from '../support/candor.js'

const MIB = 1 << 20
const folder = temporaryFolder()
after(() => folder.remove())
let records = 0

function newPath(): string {
  return join(folder.path, `record-${records++}`)
}

const image = { identity: '1-2', path: '/images/disk.img', size: 40 * MIB + 5 }

function open(path: string): ReturnType<typeof openRecord> {
  return openRecord(path, image)
}

describe('the record of an image', () => {
  test('is found whether or not the kernel told the UUID of the file system then, and tells it now', () => {
    const home = temporaryFolder()
    after(() => home.remove())
    const [uuid, other] = ['0123456789abcdef'.repeat(2), 'f'.repeat(32)]
    const name = (identity: string) => join(home.path, `image-${identity}`)
    const identities = ['12-34', `${uuid}-12-34`, '12-34']
    writeFileSync(name('12-34'), 'a record')
    for (const identity of identities) {
      assert.equal(readFileSync(locateRecord(home.path, { identity }), 'utf8'), 'a record')
      assert.equal(claimRecord(home.path, { identity }), name(identity))
      assert.deepEqual(readdirSync(home.path), [`image-${identity}`])
    }
    for (const identity of ['12-345', '112-34', 'device-34', `${uuid}-112-34`]) {
      assert.equal(locateRecord(home.path, { identity }), name(identity))
    }
    claimRecord(home.path, { identity: `${uuid}-12-34` })
    assert.equal(locateRecord(home.path, { identity: `${other}-12-34` }), name(`${other}-12-34`), 'another file system')
  })

  test('has its full size from the start, and never changes it', async () => {
    const path = newPath()
    const { record } = await open(path)
    const size = readFileSync(path).length
    record.touched(0, image.size)
    await record.store('degraded', 5, [{ start: 0, end: image.size }])
    assert.equal(readFileSync(path).length, size)
    await record.closed(true)
  })

  test('of an image that grew tells of what was unflushed behind the old end; of one that was cut off it does not', async () => {
    const path = newPath()
    const { record } = await open(path)
    await record.opened()
    assert.equal(await record.resized(400 * MIB), DONE)
    assert.ok(record.touched(399 * MIB, MIB))
    const found = readRecord(path, 400 * MIB)
    assert.deepEqual(found.shadow, [{ start: 399 * MIB, end: 400 * MIB }])
    assert.deepEqual([found.stored?.size, found.stored?.dirty], [400 * MIB, true])
    assert.equal(await record.resized(MIB), DONE)
    assert.ok(record.touched(0, MIB))
    assert.deepEqual(readRecord(path, MIB).shadow, [{ start: 0, end: MIB }])
    await record.closed(true)
  })

  test('tells the next server the state, the errno and the suspect ranges', async () => {
    const path = newPath()
    const { record } = await open(path)
    await record.opened()
    await record.store('degraded', 28, [
      { start: 4096, end: 8192 },
      { start: MIB, end: 3 * MIB },
    ])
    await record.closed(true)
    const { found } = await open(path)
    assert.deepEqual(
      [found.stored?.state, found.stored?.errno, found.stored?.dirty, found.stored?.suspect],
      [
        'degraded',
        28,
        false,
        [
          [4096, 8192],
          [MIB, 3 * MIB],
        ],
      ],
    )
  })

  test('is dirty until it is closed clean, and its shadow tells what was not synced', async () => {
    const path = newPath()
    const { record } = await open(path)
    await record.opened()
    record.touched(5 * MIB + 1, 2)
    record.touched(image.size - 1, 1)
    record.touched(9 * MIB - 1, 2)
    const killed = readRecord(path, image.size)
    assert.equal(killed.stored?.dirty, true)
    assert.deepEqual(killed.shadow, [
      { start: 5 * MIB, end: 6 * MIB },
      { start: 8 * MIB, end: 9 * MIB },
      { start: 9 * MIB, end: 10 * MIB },
      { start: 40 * MIB, end: image.size },
    ])
    record.synced([{ start: 8 * MIB, end: 8 * MIB + 1 }])
    assert.deepEqual(readRecord(path, image.size).shadow, [{ start: 8 * MIB, end: 9 * MIB }])
    await record.closed(false)
    assert.equal(readRecord(path, image.size).stored?.dirty, true)
  })

  test('whose shadow an earlier server left is cleared by the next sync, wherever the marks lie', async () => {
    const path = newPath()
    const { record } = await open(path)
    record.touched(0, 1)
    record.touched(image.size - 1, 1)
    await record.closed(false)
    const { record: next } = await open(path)
    assert.equal(
      readRecord(path, image.size).shadow.length,
      2,
      'what was not synced stays marked while it is served again',
    )
    next.touched(20 * MIB, 1)
    next.synced([])
    assert.deepEqual(readRecord(path, image.size).shadow, [])
    next.touched(30 * MIB, 1)
    next.synced([{ start: 0, end: 1 }])
    next.synced([{ start: 39 * MIB, end: 39 * MIB + 1 }])
    assert.deepEqual(readRecord(path, image.size).shadow, [{ start: 39 * MIB, end: 40 * MIB }])
    await next.closed(true)
  })

  test('that is opened again keeps its newest slot until the next one is whole', async () => {
    const path = newPath()
    const { record } = await open(path)
    await record.store('degraded', 5, [{ start: 0, end: 4096 }])
    await record.closed(false)
    const before = readFileSync(path).subarray(0, 2 * SLOT_BYTES)
    const { record: next } = await open(path)
    assert.ok(
      readFileSync(path)
        .subarray(0, 2 * SLOT_BYTES)
        .equals(before),
    )
    await next.closed(false)
  })

  test('survives a slot that was torn while it was written: the older one counts', async () => {
    const path = newPath()
    const { record } = await open(path)
    await record.store('degraded', 5, [{ start: 0, end: 4096 }])
    await record.store('detached', 5, [{ start: 0, end: 8192 }])
    const bytes = readFileSync(path)
    const newest = readRecord(path, image.size).stored?.seq ?? 0
    bytes.fill(0x41, (newest % 2) * SLOT_BYTES + 20, (newest % 2) * SLOT_BYTES + 40)
    writeFileSync(path, bytes)
    const found = readRecord(path, image.size)
    assert.deepEqual([found.stored?.state, found.damaged], ['degraded', false])
    await record.closed(false)
  })

  test('that was damaged by hand is set aside, and its shadow still counts', async () => {
    const path = newPath()
    const { record } = await open(path)
    record.touched(3 * MIB, 1)
    await record.closed(false)
    const bytes = readFileSync(path)
    bytes.fill(0x42, 0, 2 * SLOT_BYTES)
    writeFileSync(path, bytes)
    const { record: next, found } = await open(path)
    assert.equal(found.damaged, true)
    assert.deepEqual(found.shadow, [{ start: 3 * MIB, end: 4 * MIB }])
    assert.ok(existsSync(`${path}.damaged`))
    await next.closed(true)
  })

  test('that was cut short makes all of the rest count as unsynced', async () => {
    const path = newPath()
    await (await open(path)).record.closed(false)
    truncateSync(path, 100)
    const found = readRecord(path, image.size)
    assert.equal(found.damaged, true)
    assert.deepEqual(found.shadow.at(-1), { start: 40 * MIB, end: image.size })
  })

  test('keeps 100,000 suspect ranges by making them coarser, never fewer bytes', async () => {
    const path = newPath()
    const { record } = await open(path)
    const ranges = Array.from({ length: 100_000 }, (_, index) => ({ start: index * 400, end: index * 400 + 100 }))
    await record.store('degraded', 5, ranges)
    const suspect = readRecord(path, image.size).stored?.suspect ?? []
    assert.ok(suspect.length > 0 && suspect.length < 100_000)
    for (const { start, end } of ranges.filter((_, index) => index % 997 === 0)) {
      assert.ok(suspect.some(([from, to]) => from <= start && end <= to))
    }
    await record.closed(true)
  })
})
