// The smoothed fall of free space, over clocks and sizes of the test's own.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { FallRate } from '../../server/exports/fall-rate.js'

describe('the time until a file system is full', () => {
  test('is what is left at the present rate, and never while nothing falls', () => {
    const fall = new FallRate()
    assert.equal(fall.secondsUntil(1000), Number.POSITIVE_INFINITY)
    for (let second = 0; second <= 10; second++) fall.sample(10_000 - second * 100, second * 1000)
    assert.equal(Math.round(fall.perSecond), 100)
    assert.equal(Math.round(fall.secondsUntil(9000)), 90)
    assert.equal(fall.secondsUntil(0), 0)
    for (let second = 11; second <= 600; second++) fall.sample(9000, second * 1000)
    assert.equal(fall.secondsUntil(9000), Number.POSITIVE_INFINITY)
  })

  test('is not told from the first seconds of a burst', () => {
    const fall = new FallRate()
    for (let second = 0; second <= 9; second++) fall.sample(10_000 - second * 100, second * 1000)
    assert.equal(fall.secondsUntil(9000), Number.POSITIVE_INFINITY)
    fall.sample(9000, 10_000)
    assert.equal(Math.round(fall.secondsUntil(9000)), 90)
  })

  test('smooths bursts: one second of a fall weighs a sixtieth of a minute', () => {
    const fall = new FallRate()
    for (let second = 0; second <= 600; second++) fall.sample(1_000_000, second * 1000)
    fall.sample(940_000, 601_000)
    assert.ok(Math.abs(fall.perSecond - 1000) < 20, String(fall.perSecond))
  })

  test('leaves samples out that come too close together, and begins anew when told', () => {
    const fall = new FallRate()
    fall.sample(1000, 0)
    fall.sample(0, 499)
    assert.equal(fall.perSecond, 0)
    fall.sample(500, 500)
    assert.equal(Math.round(fall.perSecond), 1000)
    fall.forget()
    fall.sample(1_000_000, 1000)
    assert.equal(fall.secondsUntil(1), Number.POSITIVE_INFINITY)
  })
})
