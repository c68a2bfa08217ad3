// Waiting for a client's next request in place, before the event loop is asked: who makes the server wait in vain is soon
// left to the event loop, and is waited for again when it is quick again.
import assert from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { describe, test } from 'node:test'
import { socketIo, socketPair } from '../../backends/index.js'
import { fileIo } from '../../backends/native/file-io.js'
import { Patience } from '../../server/exports/patience.js'

const TRIES = 6400

describe('patience', () => {
  test('is lost after eight waits in vain, but for one try in 64, and comes back with the first that is not', () => {
    const patience = new Patience()
    for (let wait = 0; wait < 8; wait++) {
      assert.ok(patience.waitNs > 0)
      patience.waited(false)
    }
    let waits = 0
    for (let turn = 0; turn < TRIES; turn++) {
      if (patience.waitNs === 0) continue
      waits += 1
      patience.waited(false)
    }
    assert.equal(waits, TRIES / 64)
    while (patience.waitNs === 0);
    patience.waited(true)
    assert.ok(patience.waitNs > 0)
    patience.end()
  })

  test('is for a client that is alone in its thread', () => {
    const [one, other] = [new Patience(), new Patience()]
    assert.deepEqual([one.waitNs, other.waitNs], [0, 0])
    other.end()
    assert.ok(one.waitNs > 0)
    one.end()
  })

  test('is for a client that was alone for a while, whoever else is there', () => {
    const [one, other] = [new Patience(), new Patience()]
    const waits = (nowMs: number) => {
      one.came(nowMs)
      return one.waitNs > 0
    }
    assert.deepEqual([0, 9.9, 10, 20].map(waits), [false, false, true, true])
    other.came(21)
    assert.equal(one.waitNs, 0)
    assert.deepEqual([22, 31.9, 32].map(waits), [false, false, true])
    one.end()
    other.end()
  })

  test('brings what has come, nothing when nothing came, and neither hides the end of the stream', () => {
    const [one, other] = socketPair()
    const target = new Uint8Array(16)
    assert.equal(socketIo.receiveNow(one, target, 0), 0)
    assert.equal(socketIo.receiveNow(one, target, 20_000), 0)
    assert.equal(fileIo.sendNow(other, new Uint8Array([1, 2, 3]), 0, 3), 3)
    assert.equal(socketIo.receiveNow(one, target, 0), 3)
    assert.deepEqual([...target.subarray(0, 4)], [1, 2, 3, 0])
    closeSync(other)
    assert.equal(socketIo.receiveNow(one, target, 20_000), 0)
    assert.notEqual(fileIo.hungUp(one), 0)
    closeSync(one)
  })
})
