// The interval structure against the plainest model there is: one flag for each byte.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { RangeSet } from '../../server/exports/range-set.js'
import { seededRandom } from '../support/random.js'

const BYTES = 64

function rangesOf(flags: readonly boolean[]): { start: number; end: number }[] {
  const ranges: { start: number; end: number }[] = []
  flags.forEach((set, at) => {
    const last = ranges.at(-1)
    if (set && last?.end === at) last.end = at + 1
    else if (set) ranges.push({ start: at, end: at + 1 })
  })
  return ranges
}

describe('a set of ranges', () => {
  test('holds what the model holds after any sequence of additions and removals', (scope) => {
    const random = seededRandom(scope)
    for (let round = 0; round < 500; round++) {
      const set = new RangeSet()
      const flags = new Array<boolean>(BYTES).fill(false)
      for (let step = 0; step < 40; step++) {
        const start = random.below(BYTES)
        const end = Math.min(BYTES, start + random.below(BYTES / 4))
        const add = random.below(2) === 0
        if (add) set.add(start, end)
        else set.remove(start, end)
        flags.fill(add, start, Math.max(start, end))
        const ranges = rangesOf(flags)
        assert.deepEqual([...set], ranges)
        assert.equal(set.bytes, flags.filter(Boolean).length)
        assert.equal(set.count, ranges.length)
        const from = random.below(BYTES)
        const to = from + random.below(BYTES)
        const first = flags.findIndex((flag, at) => flag && at >= from && at < to)
        assert.equal(set.firstWithin(from, to), first === -1 ? undefined : first)
        assert.equal(set.intersects(from, to), first !== -1)
      }
    }
  })

  test('of many chunks holds what the model holds, also where one change joins or cuts thousands of intervals', (scope) => {
    const random = seededRandom(scope)
    const bytes = 20_000
    const set = new RangeSet()
    const flags = new Array<boolean>(bytes).fill(false)
    const change = (add: boolean, start: number, end: number) => {
      if (add) set.add(start, end)
      else set.remove(start, end)
      flags.fill(add, start, end)
    }
    for (let round = 0; round < 8; round++) {
      set.clear()
      flags.fill(false)
      for (let step = 0; step < 20_000; step++) {
        const start = random.below(bytes / 2) * 2
        change(random.below(4) !== 0, start, start + 1)
      }
      assert.ok(set.count > 5_000)
      const start = random.below(bytes)
      change(random.below(2) === 0, start, Math.min(bytes, start + random.below(bytes)))
      const ranges = rangesOf(flags)
      assert.deepEqual([...set], ranges)
      assert.deepEqual([set.count, set.bytes], [ranges.length, flags.filter(Boolean).length])
      const cut = { start: Math.max(start - 5_000, 0), end: start }
      const clipped = ranges.filter((range) => range.end > cut.start && range.start < cut.end)
      const parts = clipped.map((range) => ({
        start: Math.max(range.start, cut.start),
        end: Math.min(range.end, cut.end),
      }))
      assert.deepEqual([...set.within(cut.start, cut.end)], parts)
      const first = flags.findIndex((flag, at) => flag && at >= cut.start && at < cut.end)
      assert.equal(set.firstWithin(cut.start, cut.end), first === -1 ? undefined : first)
    }
  })

  test('takes 100,000 intervals and gives them back in order', () => {
    const set = new RangeSet()
    const count = 100_000
    for (let index = 0; index < count; index++)
      set.add(((index * 7919) % count) * 10, ((index * 7919) % count) * 10 + 5)
    assert.equal(set.count, count)
    assert.equal(set.bytes, count * 5)
    set.remove(0, count * 10)
    assert.equal(set.count, 0)
  })
})
