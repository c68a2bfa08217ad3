// How many requests storage is given at once: one past it waits, and goes with its client or to another process.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DONE, MOVED, RESERVED, SHUT_DOWN } from '../../backends/index.js'
import { STORAGE_DEPTH_MAX, StorageGate } from '../../server/exports/storage-gate.js'

/** A gate behind which storage hangs with all that it takes. */
function fullGate(recess = async () => DONE) {
  const gate = new StorageGate(recess)
  const answer: (() => void)[] = []
  let asked = 0
  const ask = () => {
    asked += 1
    return new Promise<number>((resolve) => answer.push(() => resolve(DONE)))
  }
  const inside = Array.from({ length: STORAGE_DEPTH_MAX }, () => gate.pass(ask, () => true))
  return { gate, ask, answer, inside, asked: () => asked }
}

test('one past the depth waits until one inside is answered, in order of arrival', async () => {
  const { gate, ask, answer, inside, asked } = fullGate()
  const late = [1, 2].map((name) =>
    gate.pass(
      () => Promise.resolve(`it was ${name}`),
      () => true,
    ),
  )
  const last = gate.pass(ask, () => true)
  assert.equal(asked(), STORAGE_DEPTH_MAX)
  answer.shift()?.()
  assert.deepEqual(await Promise.all(late), ['it was 1', 'it was 2'])
  await undefined
  assert.equal(asked(), STORAGE_DEPTH_MAX + 1)
  assert.equal(gate.inside, STORAGE_DEPTH_MAX)
  for (const each of answer) each()
  await Promise.all([...inside, last])
  assert.equal(gate.inside, 0)
})

test('what waits goes with its client, and what is inside does not', async () => {
  const { gate, ask, answer, inside, asked } = fullGate()
  let wanted = true
  const gone = gate.pass(ask, () => wanted)
  const stays = gate.pass(ask, () => true)
  wanted = false
  gate.dropUnwanted()
  assert.equal(await gone, RESERVED)
  assert.equal(asked(), STORAGE_DEPTH_MAX)
  for (const each of answer.splice(0)) each()
  await Promise.all(inside)
  for (const each of answer) each()
  assert.equal(await stays, DONE)
  assert.equal(gate.inside, 0)
})

test('a freeze moves what waits, and what comes while it is full', async () => {
  const { gate, ask, answer, inside, asked } = fullGate()
  const waits = gate.pass(ask, () => true)
  gate.freeze(true)
  assert.equal(await waits, MOVED)
  assert.equal(await gate.pass(ask, () => true), MOVED)
  assert.equal(asked(), STORAGE_DEPTH_MAX)
  for (const each of answer) each()
  await Promise.all(inside)
  assert.equal(gate.inside, 0)
})

test('an attempt that throws gives its place back', async () => {
  const gate = new StorageGate(async () => DONE)
  const broken = gate.pass(
    () => Promise.reject(new Error('broken')),
    () => true,
  )
  await assert.rejects(broken, /broken/)
  assert.equal(gate.inside, 0)
})

test('who waited while the image was let go of waits for the operator as well', async () => {
  const { gate, ask, answer, inside, asked } = fullGate(async () => SHUT_DOWN)
  const [stays, gone] = [gate.pass(ask, () => true), gate.pass(ask, () => false)]
  for (const each of answer.splice(0)) each()
  await Promise.all(inside)
  assert.deepEqual([await stays, await gone], [SHUT_DOWN, RESERVED])
  assert.equal(asked(), STORAGE_DEPTH_MAX)
  assert.equal(gate.inside, 0)
})
