// The map of a disk: cells of whole sectors that never hide what is wrong, whatever the image looks like.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Extent } from '../../backends/index.js'
import { EIO } from '../../backends/index.js'
import { mapPicture } from '../../server/cli/map-picture.js'
import {
  CELL_DATA,
  CELL_FAILED,
  CELL_HELD,
  CELL_HOLE,
  CELL_SUSPECT,
  drawMap,
  MAP_CELLS_MAX,
  MAP_RANGES_MAX,
  MAP_RUNS_MAX,
  type MapSources,
  windowFault,
} from '../../server/exports/disk-map.js'
import type { LedgerEntry } from '../../server/state/ledger.js'

const MIB = 2 ** 20

function failure(offset: number, length: number): LedgerEntry {
  return {
    time: '2026-11-20T14:03:00.000Z',
    client: 'unix',
    command: 'write',
    errno: 'ENOSPC',
    offset,
    length,
    count: 1,
  }
}

/** An image that alternates between data and holes of `period` bytes, data first; `asked` counts calls and runs. */
function striped(size: number, period: number, rest: Partial<MapSources> = {}) {
  const asked = { calls: 0, runs: 0 }
  const extents = async (offset: number, length: number, limit: number) => {
    const runs: Extent[] = []
    asked.calls += 1
    for (let at = offset; at < offset + length && runs.length < limit; ) {
      const end = Math.min(offset + length, (Math.floor(at / period) + 1) * period)
      const hole = Math.floor(at / period) % 2 === 1
      runs.push({ length: end - at, hole, zero: hole })
      at = end
    }
    asked.runs += runs.length
    return runs
  }
  const sources: MapSources = { name: 'disk', size, extents, suspect: [], failures: [], held: [], ...rest }
  return { sources, asked }
}

describe('the map of a disk', () => {
  test('tells data, holes, failed, held and suspect bytes in each cell', async () => {
    const { sources } = striped(8 * MIB, 2 * MIB, {
      suspect: [{ start: 5 * MIB, end: 5 * MIB + 1 }],
      failures: [failure(3 * MIB - 512, 1024), failure(7 * MIB, 0)],
      held: [{ kind: 'held', offset: 7 * MIB, length: MIB }],
    })
    const map = await drawMap(sources, { from: 0, to: 8 * MIB, cells: 8 })
    const [data, hole] = [CELL_DATA, CELL_HOLE]
    const failedHole = CELL_FAILED | hole
    assert.deepEqual(map.cells, [data, data, failedHole, failedHole, data, data | CELL_SUSPECT, hole, hole | CELL_HELD])
    assert.deepEqual(
      map.data.map((bytes) => bytes / MIB),
      [1, 1, 0, 0, 1, 1, 0, 0],
    )
    assert.deepEqual(
      map.ranges.map(({ kind, offset }) => [kind, offset]),
      [
        ['failed', 3 * MIB - 512],
        ['suspect', 5 * MIB],
        ['held', 7 * MIB],
      ],
    )
    assert.equal(map.exact, true)
  })

  test('goes down to single sectors, rounds its window outwards to them, and stops at the end of the export', async () => {
    const { sources } = striped(4096 + 100, 512)
    const map = await drawMap(sources, { from: 600, to: 1500, cells: 100 })
    assert.deepEqual([map.from, map.to, map.cellBytes, map.cells], [512, 1536, 512, [CELL_HOLE, CELL_DATA]])
    const end = await drawMap(sources, { from: 3584, to: 4196, cells: 2 })
    assert.deepEqual([end.from, end.to, end.cells, end.data], [3584, 4196, [CELL_HOLE, CELL_DATA], [0, 100]])
  })

  test('of an empty export is empty', async () => {
    const { sources } = striped(0, 512)
    assert.deepEqual((await drawMap(sources, { from: 0, to: 0, cells: 4 })).cells, [])
    assert.equal(windowFault({ from: 0, to: 0, cells: 4 }, 0), undefined)
  })

  test('with more runs than are counted looks at a few of each cell, and says that bytes are not exact', async () => {
    const period = 4096
    const size = 4 * MAP_RUNS_MAX * period
    const { sources, asked } = striped(size, period)
    const cells = 1000
    const map = await drawMap(sources, { from: 0, to: size, cells })
    assert.equal(map.exact, false)
    assert.ok(map.cells.every((bits) => bits === (CELL_DATA | CELL_HOLE)))
    assert.ok(asked.runs < MAP_RUNS_MAX + 4096 + 8 * cells, `${asked.runs} runs`)
  })

  test('names the latest ranges of each kind and marks all of them, however many and long they are', async () => {
    const count = MAP_RANGES_MAX + 7
    const failures = Array.from({ length: count }, (_, index) => failure(index * 512, 8 * MIB))
    const { sources } = striped(16 * MIB, MIB, { failures })
    const map = await drawMap(sources, { from: 0, to: 16 * MIB, cells: MAP_CELLS_MAX })
    assert.deepEqual([map.ranges.length, map.rangesOmitted], [MAP_RANGES_MAX, 7])
    const marked = map.cells.filter((bits) => (bits & CELL_FAILED) !== 0).length
    assert.equal(marked, Math.ceil((8 * MIB + (count - 1) * 512) / map.cellBytes))
  })

  test('shows what is wrong also when storage does not tell where data lies', async () => {
    const { sources } = striped(MIB, 4096, { extents: async () => EIO, failures: [failure(0, 512)] })
    const map = await drawMap(sources, { from: 0, to: MIB, cells: 2 })
    assert.deepEqual([map.error, map.cells], ['EIO', [CELL_FAILED, 0]])
  })

  for (const [window, names] of [
    [{ from: -1, to: 10, cells: 1 }, 'from'],
    [{ from: 100, to: 100, cells: 1 }, 'from'],
    [{ from: 0, to: 101, cells: 1 }, 'to'],
    [{ from: 50, to: 50, cells: 1 }, 'to'],
    [{ from: 0, to: Number.NaN, cells: 1 }, 'to'],
    [{ from: 0, to: 100, cells: 0 }, 'cells'],
    [{ from: 0, to: 100, cells: MAP_CELLS_MAX + 1 }, 'cells'],
  ] as const) {
    test(`refuses ${JSON.stringify(window)} of 100 bytes in a sentence that names ${names}`, () => {
      assert.match(windowFault(window, 100) ?? '', new RegExp(`^${names} has to be`))
    })
  }
})

describe('the picture of a map in a terminal', () => {
  test('shows the worst of each cell as a letter, with and without colour, and the ranges in words', async () => {
    const { sources } = striped(8 * MIB, 4 * MIB, { failures: [failure(4 * MIB, 512)] })
    const map = await drawMap(sources, { from: 0, to: 8 * MIB, cells: 8 })
    const plain = mapPicture(map, 4, false)
    assert.ok(plain.includes('   0 bytes  ####'), plain.join('\n'))
    assert.ok(plain.includes('     4 MiB  X...'), plain.join('\n'))
    assert.ok(plain.some((line) => /failed +write ENOSPC at 4194304, 512 bytes \(sectors 8192-8192\)/.test(line)))
    assert.ok(!plain.join('').includes('\x1b'))
    const coloured = mapPicture(map, 4, true).join('\n')
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what a terminal takes
    assert.equal(coloured.replaceAll(/\x1b\[[\d;]*m/g, ''), plain.join('\n'))
    assert.notEqual(coloured, plain.join('\n'))
  })
})
