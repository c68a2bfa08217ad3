// What is told of suspect ranges to the record, against three plain sets of bytes.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { SuspectRanges } from '../../server/exports/suspect-ranges.js'
import { seededRandom } from '../support/random.js'

const BYTES = 48

function bytesOf(ranges: Iterable<{ readonly start: number; readonly end: number }>): number[] {
  return [...ranges].flatMap(({ start, end }) => Array.from({ length: end - start }, (_, index) => start + index))
}

describe('suspect ranges', () => {
  test('are stored until a sync that began after the rewrite succeeds, in order and never twice', (scope) => {
    const random = seededRandom(scope)
    for (let round = 0; round < 300; round++) {
      const ranges = new SuspectRanges()
      let [now, rewritten, covered] = [new Set<number>(), new Set<number>(), new Set<number>()]
      for (let step = 0; step < 30; step++) {
        const start = random.below(BYTES)
        const bytes = bytesOf([{ start, end: Math.min(BYTES, start + random.below(12)) }])
        const act = random.below(5)
        if (act < 2) {
          ranges.now.add(start, start + bytes.length)
          for (const byte of bytes) now.add(byte)
        } else if (act === 2) {
          ranges.rewrite(start, start + bytes.length)
          for (const byte of bytes) if (now.delete(byte)) rewritten.add(byte)
        } else if (act === 3) {
          // One that runs ends before the next begins.
          if (covered.size > 0) continue
          ranges.syncBegins()
          covered = rewritten
          rewritten = new Set()
        } else {
          const succeeded = random.below(2) === 0
          assert.equal(ranges.syncEnds(succeeded), succeeded && covered.size > 0)
          if (!succeeded) for (const byte of covered) rewritten.add(byte)
          covered = new Set()
        }
        const stored = [...ranges.stored()]
        const all = [...new Set([...now, ...rewritten, ...covered])].sort((a, b) => a - b)
        assert.deepEqual(bytesOf(stored), all)
        assert.ok(stored.every(({ start }, index) => start > (stored[index - 1]?.end ?? -1)))
      }
    }
  })
})
