// How many answers are told together. Law under test: a larger number is kept where it was measured to serve faster, and left
// as soon as the client waits for us; a client that gains nothing by it is told of each answer.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Coalescing } from '../../server/exports/coalescing.js'

const SIZE_MAX = 16

/** A client whose requests take as long as `costMs` says of answers that are told `together`, `depth` of them at once. */
class Client {
  depth = 32
  nowMs = 0
  /** How many answers were told together, each time. */
  readonly tells: number[] = []
  /** Waits in vain. */
  waits = 0
  readonly coalescing = new Coalescing(() => this.nowMs)
  readonly #costMs: (together: number) => number

  constructor(costMs: (together: number) => number) {
    this.#costMs = costMs
  }

  asks(requests: number): this {
    let untold = 0
    for (let request = 0; request < requests; request++) {
      untold += 1
      if (this.coalescing.holds(untold)) {
        const asksOn = untold < this.depth
        this.coalescing.held(asksOn)
        if (asksOn) continue
        this.waits += 1
        this.nowMs += 0.05
      }
      this.nowMs += this.#costMs(untold) * untold
      this.tells.push(untold)
      this.coalescing.told(untold)
      untold = 0
    }
    return this
  }

  /** Answers told together, on average over the last thousand times. */
  get together(): number {
    const recent = this.tells.slice(-1000)
    return recent.reduce((sum, told) => sum + told, 0) / recent.length
  }
}

/** Each time that it is told costs the client as much as serving two requests does. */
const interrupted = (together: number) => 0.01 + 0.02 / together
const indifferent = () => 0.01
/** It has nothing to do but to wait for what is held. */
const idle = (together: number) => 0.01 * together

describe('answers', () => {
  test('are told together, up to sixteen, where each interruption costs the client', () => {
    const client = new Client(interrupted).asks(100_000)
    assert.equal(Math.max(...client.tells), SIZE_MAX)
    assert.ok(client.together > 8, `${client.together} together`)
    assert.equal(client.waits, 0)
  })

  test('are told one by one where that is as fast, but for a try in so many', () => {
    for (const cost of [indifferent, idle]) {
      const client = new Client(cost).asks(200_000)
      assert.ok(client.together < 1.1, `${client.together} together`)
      assert.ok(client.tells.filter((told) => told > 1).length < client.tells.length / 20)
    }
  })

  test('are told one by one to a client that asks one thing at a time, which waits in vain once in thousands of times', () => {
    const client = new Client(interrupted)
    client.depth = 1
    client.asks(200_000)
    assert.ok(client.tells.every((told) => told === 1))
    assert.ok(client.waits > 0 && client.waits <= 6 * 50, `${client.waits} waits in vain`)
  })

  test('are told one by one again once the client asks one thing at a time, and together when it asks ahead again', () => {
    const client = new Client(interrupted).asks(100_000)
    client.depth = 1
    client.asks(1000)
    assert.ok(client.waits > 0 && client.waits <= 30, `${client.waits} waits in vain`)
    client.depth = 32
    client.asks(100_000)
    assert.ok(client.together > 8, `${client.together} together`)
  })

  test('are not held for a client that was silent for long, which says nothing of what is faster', () => {
    const client = new Client(() => 1).asks(100_000)
    assert.ok(client.tells.every((told) => told === 1))
  })
})
