// Each state of an export and of a file system in words: what is told, what is not, and which remedy stands beside it.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { NBD_CMD_FLUSH, NBD_CMD_WRITE } from 'nbd-protocol'
import { EIO, ENOSPC, EROFS } from '../../backends/index.js'
import { backingBlock, FREE, LOOKED, MAY_TAKE, SIZE, takePart, UNTIL_FULL } from '../../server/observe/backing-block.js'
import {
  ALLOCATED_AT,
  count,
  errorAt,
  exportCounters,
  HELD_AT,
  INJECTING_AT,
  LEDGER_LOST_AT,
  pulseBlock,
  RECORD_FAILED_AT,
  REFUSED_BY_RESERVE_AT,
  RELEASED_SINCE_AT,
  RESERVE_AT,
  STATE_AT,
  STATE_ERRNO_AT,
  SUSPECT_BYTES_AT,
  serverCounters,
} from '../../server/observe/counters.js'
import type { Observed, ObservedBacking } from '../../server/observe/family.js'
import { allViews } from '../../server/observe/overview.js'
import { allProblems } from '../../server/observe/problems.js'
import { backingViews } from '../../server/observe/space-view.js'
import { Watch } from '../../server/observe/watch.js'

const MIB = 2 ** 20
const NOW = Date.parse('2026-11-20T12:00:00Z')

/** One export on one file system, with these numbers. */
class Scene {
  readonly counters = exportCounters()
  readonly pulse = pulseBlock()
  readonly watch = new Watch()
  readonly #backing: ObservedBacking = { device: '8:1', mount: '/srv', block: backingBlock() }
  readonly #at = takePart(this.#backing.block)
  now = NOW

  set(...places: readonly (readonly [at: number, value: number])[]): this {
    for (const [at, value] of places) this.counters[at] = value
    return this
  }

  space(free: number, mayTake: number, untilFull = Number.POSITIVE_INFINITY): this {
    const values = [
      [LOOKED, this.now],
      [FREE, free],
      [SIZE, 200 * MIB],
      [MAY_TAKE, mayTake],
      [UNTIL_FULL, untilFull],
    ] as const
    for (const [place, value] of values) this.#backing.block[this.#at + place] = value
    return this
  }

  /** Seconds go by. */
  wait(seconds: number): this {
    for (let second = 0; second <= seconds; second++) this.watch.sample(this.observed, this.now + second * 1000)
    this.now += seconds * 1000
    this.pulse[0] = this.now
    return this
  }

  get observed(): Observed {
    const { counters, pulse } = this
    const disk = { name: 'd', size: MIB, readOnly: false, path: '/srv/d', device: '8:1', counters, pulse }
    const server = { version: '0', server: serverCounters(), pulse: pulseBlock(), ioEngine: 'pool' }
    return { ...server, backings: [this.#backing], exports: [disk] }
  }

  get backings() {
    return backingViews(this.observed, this.watch.fillings)
  }

  get problems() {
    return allProblems(allViews(this.observed.exports, this.watch, this.now), this.backings, this.now)
  }

  get health() {
    return allViews(this.observed.exports, this.watch, this.now)[0]?.health
  }

  get told(): string[] {
    return this.problems.map(({ severity, title, command = '' }) => `${severity}: ${title} [${command}]`)
  }
}

describe('a state of an export', () => {
  test('that is degraded by a sync without space is no full disk, and tells its FLUSHes once', () => {
    const scene = new Scene().set([STATE_AT, 1], [STATE_ERRNO_AT, ENOSPC], [SUSPECT_BYTES_AT, MIB])
    count(scene.counters, errorAt(NBD_CMD_FLUSH, ENOSPC), 3)
    scene.wait(1)
    assert.deepEqual(scene.told, ['broken: writes that were acknowledged may be lost (ENOSPC) [candor ctl resume d]'])
    assert.match(scene.problems[0]?.remedy ?? '', /thin pool/)
    assert.equal(scene.health, 'degraded')
  })

  test('that was resumed and still has suspect ranges says so, with what drops them after a restore', () => {
    const scene = new Scene().set([SUSPECT_BYTES_AT, 4 * MIB]).wait(1)
    assert.deepEqual([scene.told, scene.health], [['warning: 4 MiB may be lost [candor ctl forget d]'], 'suspect'])
  })

  test('that is released waits for an operator, not for storage, and tells since when', () => {
    const scene = new Scene().set([RELEASED_SINCE_AT, NOW]).wait(60)
    assert.deepEqual(
      [scene.told, scene.problems[0]?.since, scene.health],
      [
        ['waiting: an operator has let go of the image; requests wait [candor ctl resume d]'],
        '2026-11-20T12:00:00.000Z',
        'released',
      ],
    )
  })

  test('that holds writes tells the reserve from a full disk', () => {
    const scene = new Scene().set([HELD_AT, 2]).wait(1)
    assert.match(scene.told[0] ?? '', /^waiting: the host's disk is full; 2 writes wait for space \[candor ctl hold-f/)
    scene.set([RESERVE_AT, MIB])
    assert.match(scene.told[0] ?? '', /^waiting: free space is down to the reserve; 2 writes wait for space/)
  })

  test('that refuses because of the reserve says so, and later that it did', () => {
    const scene = new Scene().set([RESERVE_AT, MIB], [REFUSED_BY_RESERVE_AT, 2]).wait(1)
    assert.deepEqual(
      [scene.told, scene.health],
      [['broken: free space is down to the reserve [candor errors d]'], 'failing'],
    )
    assert.deepEqual(scene.wait(61).told, ['notice: free space was down to the reserve, earlier [candor errors d]'])
  })

  test('whose record or ledger cannot be written is told, and its EIO is not blamed on storage', () => {
    const scene = new Scene().set([RECORD_FAILED_AT, 1], [LEDGER_LOST_AT, 7])
    count(scene.counters, errorAt(NBD_CMD_WRITE, EIO))
    scene.wait(1)
    assert.deepEqual(scene.told, [
      'broken: its record in the state directory cannot be written []',
      'warning: where requests fail cannot be written down []',
    ])
    assert.equal(scene.health, 'failing')
  })

  test('whose file system became read-only is released first; made-up faults are ended first', () => {
    const scene = new Scene()
    count(scene.counters, errorAt(NBD_CMD_WRITE, EROFS))
    scene.wait(1)
    assert.match(scene.told[0] ?? '', /^broken: the host's file system has become read-only \[candor ctl release d\]$/)
    scene.set([INJECTING_AT, 1])
    assert.match(scene.told[0] ?? '', /, or fault injection makes it so \[candor ctl inject d off\]$/)
  })
})

describe('a file system', () => {
  test('that its images could outgrow is a problem when it is full, low, or falling for a minute, and not before', () => {
    const scene = new Scene().space(100 * MIB, 800 * MIB, 600).wait(1)
    assert.deepEqual(scene.told, [], 'a burst of writes')
    assert.match(
      scene.wait(60).space(100 * MIB, 800 * MIB, 600).told[0] ?? '',
      /^warning: \/srv is filling: full in about 10 minutes at this rate/,
    )
    assert.equal(scene.problems[0]?.since, '2026-11-20T12:00:00.000Z')
    scene.space(100 * MIB, 800 * MIB).wait(1)
    assert.deepEqual(scene.told, [], 'it falls no more')
    assert.match(scene.space(9 * MIB, 800 * MIB).told[0] ?? '', /^warning: \/srv has only 9 MiB left of 200 MiB/)
    assert.match(scene.space(0, 800 * MIB).told[0] ?? '', /^warning: \/srv is full/)
    assert.deepEqual(scene.space(9 * MIB, 9 * MIB).told, [], 'there is room for all that its images may take')
  })

  test('of which a guest has heard is not told twice, and one that was looked at long ago is not told at all', () => {
    const scene = new Scene().space(0, 800 * MIB)
    count(scene.counters, errorAt(NBD_CMD_WRITE, ENOSPC))
    assert.deepEqual(scene.wait(1).told, ["broken: the host's disk is full [candor errors d]"])
    assert.deepEqual(scene.wait(61).told, ["notice: the host's disk was full, earlier [candor errors d]"])
    assert.match(scene.space(0, 800 * MIB).told[0] ?? '', /^warning: \/srv is full/)
  })

  test('is seen with the sum of what its images take, and not at all before the first look or without a bound', () => {
    const scene = new Scene().set([ALLOCATED_AT, 3 * MIB], [RESERVE_AT, MIB])
    assert.deepEqual(scene.backings, [])
    assert.deepEqual(scene.space(50 * MIB, 60 * MIB).backings, [
      {
        device: '8:1',
        mount: '/srv',
        size: 200 * MIB,
        free: 50 * MIB,
        allocated: 3 * MIB,
        mayTake: 60 * MIB,
        overcommit: 10 * MIB,
        reserve: MIB,
        looked: '2026-11-20T12:00:00.000Z',
        exports: 1,
      },
    ])
  })
})
