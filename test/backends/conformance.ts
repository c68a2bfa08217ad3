// One suite, many backends: what every backend promises, whatever it stores to. Each file of this folder that names a
// backend calls it.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Backend, DONE, EOPNOTSUPP, NOT_FAST, WOULD_BLOCK, ZERO_FAST, ZERO_PUNCH } from '../../backends/index.js'

/** Opens a disk of `size` bytes that reads as zeroes; closing it is the suite's. */
export type OpenDisk = (size: number) => Promise<Backend>

const SIZE = 1 << 20

function pattern(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let index = 0; index < length; index++) bytes[index] = index * 31 + seed
  return bytes
}

/** Writes as the server does: now, and later what could not be done now. */
export async function write(disk: Backend, data: Uint8Array, offset: number): Promise<number> {
  const outcome = disk.writeNow(data, 0, data.length, offset)
  return outcome === WOULD_BLOCK ? disk.write(data, 0, data.length, offset, false) : outcome
}

export async function read(disk: Backend, offset: number, length: number): Promise<Uint8Array> {
  const data = new Uint8Array(length)
  const outcome = disk.readNow(data, 0, length, offset)
  assert.equal(outcome === WOULD_BLOCK ? await disk.read(data, 0, length, offset) : outcome, DONE)
  return data
}

/** Lengths and places around block and page boundaries. */
const PLACES = [
  [0, 1],
  [0, 4096],
  [1, 511],
  [511, 2],
  [4095, 2],
  [4096, 4096],
  [5000, 12_345],
  [SIZE - 1, 1],
  [SIZE - 4097, 4097],
  [0, SIZE],
] as const

type WithDisk = (work: (disk: Backend) => Promise<void>, size?: number) => Promise<void>

export function conformance(kind: string, open: OpenDisk): void {
  const withDisk: WithDisk = async (work, size = SIZE) => {
    const disk = await open(size)
    try {
      await work(disk)
    } finally {
      await disk.close()
    }
  }
  describe(`every backend: ${kind}`, () => {
    for (const [offset, length] of PLACES) changes(withDisk, offset, length)
    answers(withDisk)
    sizes(withDisk)
    lengths(withDisk)
  })
}

function changes(withDisk: WithDisk, offset: number, length: number): void {
  test(`what is written at ${offset} for ${length} bytes is read back, and nothing beside it changes`, () =>
    withDisk(async (disk) => {
      const model = pattern(SIZE, 1)
      assert.equal(await write(disk, model, 0), DONE)
      const data = pattern(length, 99)
      assert.equal(await write(disk, data, offset), DONE)
      model.set(data, offset)
      assert.deepEqual(await read(disk, 0, SIZE), model)
    }))

  test(`zeroing at ${offset} for ${length} bytes makes zeroes in every mode, and nothing beside it changes`, () =>
    withDisk(async (disk) => {
      for (const mode of [0, ZERO_PUNCH, ZERO_FAST | ZERO_PUNCH]) {
        for (const durable of [false, true]) {
          const model = pattern(SIZE, 7)
          assert.equal(await write(disk, model, 0), DONE)
          const slow = (mode & ZERO_FAST) !== 0 && !disk.can.fastZero
          assert.equal(await disk.zero(offset, length, mode, durable), slow ? NOT_FAST : DONE)
          if (!slow) model.fill(0, offset, offset + length)
          assert.deepEqual(await read(disk, 0, SIZE), model, `mode ${mode}`)
        }
      }
    }))

  test(`a trim at ${offset} for ${length} bytes leaves what lies beside it`, () =>
    withDisk(async (disk) => {
      const model = pattern(SIZE, 13)
      assert.equal(await write(disk, model, 0), DONE)
      assert.equal(await disk.trim(offset, length, false), DONE)
      const after = await read(disk, 0, SIZE)
      assert.deepEqual(after.subarray(0, offset), model.subarray(0, offset))
      assert.deepEqual(after.subarray(offset + length), model.subarray(offset + length))
    }))
}

function answers(withDisk: WithDisk): void {
  test('a new disk has the size that was asked for and reads as zeroes', () =>
    withDisk(async (disk) => {
      assert.equal(disk.size, SIZE)
      assert.deepEqual(await read(disk, 0, SIZE), new Uint8Array(SIZE))
    }))

  test('buffers are used from `start` on, and only there', () =>
    withDisk(async (disk) => {
      const source = pattern(300, 3)
      assert.equal(await disk.write(source, 100, 100, 4096, false), DONE)
      const target = new Uint8Array(300).fill(0xee)
      assert.equal(await disk.read(target, 100, 100, 4096), DONE)
      assert.deepEqual(target.subarray(100, 200), source.subarray(100, 200))
      assert.ok(target.subarray(0, 100).every((byte) => byte === 0xee))
      assert.ok(target.subarray(200).every((byte) => byte === 0xee))
    }))

  test('a durable write and a flush succeed, and a look finds the disk whole', () =>
    withDisk(async (disk) => {
      assert.equal(await disk.write(pattern(5000, 5), 0, 5000, 123, true), DONE)
      assert.equal(await disk.flush(), DONE)
      assert.equal(disk.probe(), DONE)
      assert.equal(await disk.cache(0, SIZE), DONE)
      assert.deepEqual(disk.look(), { present: SIZE, unlinked: false })
    }))

  test('extents cover what was asked for, tell data from holes, and stop at the limit', () =>
    withDisk(async (disk) => {
      assert.equal(await write(disk, pattern(65_536, 1), 131_072), DONE)
      assert.equal(await write(disk, pattern(65_536, 1), 524_288), DONE)
      const all = await disk.extents(0, SIZE, 100)
      assert.ok(typeof all !== 'number')
      if (!disk.can.extents) return assert.deepEqual(all, [{ length: SIZE, hole: false, zero: false }])
      assert.deepEqual(
        all.map(({ length, hole, zero }) => [length, hole, zero]),
        [
          [131_072, true, true],
          [65_536, false, false],
          [327_680, true, true],
          [65_536, false, false],
          [458_752, true, true],
        ],
      )
      assert.deepEqual(await disk.extents(0, SIZE, 2), all.slice(0, 2))
      const inside = await disk.extents(140_000, 100, 10)
      assert.deepEqual(inside, [{ length: 100, hole: false, zero: false }])
    }))
}

function sizes(withDisk: WithDisk): void {
  test('a disk of 16 TiB is written and read at its very end', () =>
    withDisk(
      async (disk) => {
        const data = pattern(4096, 42)
        assert.equal(await write(disk, data, disk.size - 4096), DONE)
        assert.deepEqual(await read(disk, disk.size - 4096, 4096), data)
        assert.deepEqual(await read(disk, disk.size - 8192, 4096), new Uint8Array(4096))
        assert.equal(await disk.trim(0, disk.size - 4096, false), DONE)
        assert.deepEqual(await read(disk, disk.size - 4096, 4096), data)
      },
      16 * 2 ** 40 - 4096,
    ))

  test('a disk of 0 bytes opens and flushes', () =>
    withDisk(async (disk) => {
      assert.equal(disk.size, 0)
      assert.equal(await disk.flush(), DONE)
      assert.deepEqual(await disk.extents(0, 0, 10), [])
    }, 0))
}

function lengths(withDisk: WithDisk): void {
  test('grows by zeroes, and what was cut off is gone when it grows again', () =>
    withDisk(async (disk) => {
      assert.equal(disk.measure(), SIZE)
      const grown = await disk.resize(2 * SIZE)
      if (grown === EOPNOTSUPP) return assert.equal(disk.size, SIZE)
      assert.equal(grown, DONE)
      assert.deepEqual([disk.size, disk.measure(), disk.look().present], [2 * SIZE, 2 * SIZE, 2 * SIZE])
      assert.equal(await write(disk, pattern(SIZE, 1), SIZE), DONE)
      assert.deepEqual(await read(disk, SIZE, SIZE), pattern(SIZE, 1))
      assert.equal(await disk.resize(SIZE + 1000), DONE)
      assert.deepEqual([disk.size, disk.look().present], [SIZE + 1000, SIZE + 1000])
      assert.equal(await disk.resize(2 * SIZE), DONE)
      assert.deepEqual(await read(disk, SIZE, 1000), pattern(SIZE, 1).subarray(0, 1000))
      assert.deepEqual(await read(disk, SIZE + 1000, SIZE - 1000), new Uint8Array(SIZE - 1000))
    }))
}
