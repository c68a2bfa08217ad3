// The order of overlapping changes by itself: against the plainest model there is, and how it grows with what is pending.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { DONE, MOVED, SHUT_DOWN } from '../../backends/index.js'
import { RangeMap } from '../../server/exports/range-map.js'
import { type Turn, WriteOrder } from '../../server/exports/write-order.js'
import { type Random, randomFrom, seededRandom } from '../support/random.js'

const BYTES = 64
const PENDING = 8192

interface Entered {
  readonly turn: Turn
  /** Its turn has come. */
  come: boolean
}

function overlap(one: Turn, other: Turn): boolean {
  return one.start < other.end && other.start < one.end
}

/** Enters a change and keeps it in mind. */
function enter(order: WriteOrder, pending: Entered[], random: Random): void {
  const start = random.below(BYTES)
  const turn = order.enter(start, 1 + random.below(BYTES - start))
  const entered = { turn, come: turn.waitsFor === 0 }
  void order
    .wait(turn, () => true)
    .then((told) => {
      if (told === DONE) entered.come = true
    })
  pending.push(entered)
}

describe('the order of overlapping changes', () => {
  for (const [what, early] of [
    ['nobody leaves before its turn', false],
    ['some leave before their turn', true],
  ] as const) {
    test(`a turn comes when all have left that were pending there before, and no sooner: ${what}`, async (scope) => {
      const random = seededRandom(scope)
      for (let round = 0; round < 300; round++) {
        const order = new WriteOrder()
        const pending: Entered[] = []
        for (let step = 0; step < 60; step++) {
          if (random.below(5) < 3) enter(order, pending, random)
          else {
            const mayLeave = pending.filter(({ come }) => come || early)
            const leaving = mayLeave[random.below(mayLeave.length)]
            if (leaving !== undefined) {
              pending.splice(pending.indexOf(leaving), 1)
              order.leave(leaving.turn)
            }
          }
          await undefined
          assert.equal(order.pending, pending.length)
          pending.forEach(({ turn, come }, index) => {
            const isFirst = !pending.slice(0, index).some((before) => overlap(before.turn, turn))
            // Behind one that left early a turn may come late: when what was ahead of that one has left as well.
            if (come || !early) assert.equal(come, isFirst)
            if (come && pending.slice(index + 1).some((after) => overlap(after.turn, turn)))
              assert.ok(order.delays(turn))
            else if (!early && come) assert.equal(order.delays(turn), false)
          })
          const [from, length] = [random.below(BYTES), 1 + random.below(8)]
          const met = pending.some(({ turn }) => turn.start < from + length && from < turn.end)
          if (met || !early) assert.equal(order.overlaps(from, length), met)
        }
        while (pending.length > 0) {
          const next = pending.findIndex(({ come }) => come)
          assert.notEqual(next, -1, 'nobody can go on')
          for (const { turn } of pending.splice(next, 1)) order.leave(turn)
          await undefined
        }
        assert.equal(order.pending, 0)
      }
    })
  }
})

test('a freeze ends all waits, and those to come, until it is over', async () => {
  const order = new WriteOrder()
  const [first, second] = [order.enter(0, 10), order.enter(5, 10)]
  const told = order.wait(second, () => true)
  order.freeze(true)
  assert.equal(await told, MOVED)
  assert.equal(await order.wait(second, () => true), MOVED)
  assert.equal(await order.wait(first, () => true), DONE)
  order.freeze(false)
  const waited = order.wait(second, () => true)
  order.leave(first)
  assert.equal(await waited, DONE)
  order.leave(second)
})

describe('with 8,192 changes pending', () => {
  for (const [what, range] of [
    ['that are all of the same bytes', () => [4096, 4096]],
    ['of which each covers most of the one before', (index: number) => [index * 512, 1 << 20]],
    ['of which each lies within the one before', (index: number) => [index * 512, (2 * PENDING - 2 * index) * 512]],
    ['anywhere, of any length', (_: number, random: Random) => [random.below(1 << 30), 1 + random.below(1 << 25)]],
    ['small and large in turns', (index: number) => (index % 64 === 63 ? [0, 1 << 30] : [index << 16, 4096])],
  ] satisfies [string, (index: number, random: Random) => number[]][]) {
    test(`${what}, turns wait for three others each at the most, on average`, async () => {
      const order = new WriteOrder()
      const random = randomFrom(7)
      const turns: Turn[] = []
      let waits = 0
      for (let index = 0; index < PENDING; index++) {
        const [offset = 0, length = 0] = range(index, random)
        const turn = order.enter(offset, length)
        waits += turn.waitsFor
        turns.push(turn)
      }
      assert.ok(waits <= 3 * PENDING, `${waits} waits`)
      for (const turn of turns) {
        assert.equal(await order.wait(turn, () => true), DONE)
        order.leave(turn)
      }
      assert.equal(order.pending, 0)
    })
  }

  test('a look at a range asks one of them, wherever it lies', () => {
    const map = new RangeMap<number>()
    for (let index = 0; index < PENDING; index++) map.give(2 * index, 2 * index + 1, index)
    let asked = 0
    const counts = () => {
      asked += 1
      return true
    }
    for (let index = 0; index < PENDING; index++) {
      assert.ok(map.intersects(2 * index, 2 * index + 2, counts))
      assert.ok(!map.intersects(2 * index + 1, 2 * index + 2, counts))
    }
    assert.equal(asked, PENDING)
  })

  for (const [what, first] of [
    ['of the same bytes', (_: number) => [0, 4096]],
    ['anywhere', (_: number, random: Random) => [random.below(1 << 30), 1 + random.below(1 << 20)]],
    ['over the edge between two', (index: number) => [2 ** 30 - (index % 7) - 1, 1000]],
  ] satisfies [string, (index: number, random: Random) => number[]][]) {
    test(`what came and left behind one that hangs is not kept: ${what}`, async () => {
      const order = new WriteOrder()
      const random = randomFrom(3)
      const hung = [order.enter(0, 2 ** 30), order.enter(2 ** 30, 2 ** 30)]
      for (let round = 0; round < PENDING / 64; round++) {
        const turns = Array.from({ length: 64 }, (_, index) => {
          const [offset = 0, length = 0] = first(index, random)
          return order.enter(offset, length)
        })
        const told = turns.map((turn) => order.wait(turn, () => false))
        order.dropUnwanted()
        assert.deepEqual(new Set(await Promise.all(told)), new Set([SHUT_DOWN]))
        while (turns.length > 0) for (const turn of turns.splice(random.below(turns.length), 1)) order.leave(turn)
        assert.deepEqual([order.pending, order.kept], [2, 2])
      }
      const last = order.enter(2 ** 30 - 1, 2)
      assert.equal(last.waitsFor, 2)
      for (const turn of hung) order.leave(turn)
      assert.equal(last.waitsFor, 0)
      order.leave(last)
      assert.equal(order.kept, 0)
    })
  }

  test('what is over is not kept while others are pending', () => {
    const order = new WriteOrder()
    const last = order.enter(0, 1)
    const waits: number[] = []
    for (let index = 1; index <= PENDING; index++) {
      const turn = order.enter(2 * index, 1)
      waits.push(turn.waitsFor)
      order.leave(turn)
    }
    assert.ok(waits.every((each) => each === 0))
    assert.ok(order.kept < 100, `${order.kept} intervals`)
    order.leave(last)
    assert.equal(order.kept, 0)
  })
})
