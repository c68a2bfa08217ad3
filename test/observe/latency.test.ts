// How long requests took. Law under test: what is told together counts from the first request that came; none counts as
// shorter than it took, and none twice.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NBD_CMD_READ } from 'nbd-protocol'
import { exportCounters, latencyAt } from '../../server/observe/counters.js'
import { Latency } from '../../server/observe/latency.js'
import { LATENCY_SUM_AT, OK, OUTCOMES } from '../../server/observe/latency-buckets.js'

test('requests of batches that are told together count from the first that came', (t) => {
  let nowMs = 0
  t.mock.method(performance, 'now', () => nowMs)
  const counters = exportCounters()
  const latency = new Latency(counters)
  const arrive = (atMs: number) => {
    nowMs = atMs
    latency.arrived()
    latency.served(NBD_CMD_READ)
  }
  const secondsAfter = (atMs: number) => {
    nowMs = atMs
    latency.handedOver()
    return counters[latencyAt(NBD_CMD_READ * OUTCOMES.length + OK) + LATENCY_SUM_AT]
  }
  arrive(1000)
  arrive(1500)
  assert.deepEqual([latency.untold, latency.sinceMs], [2, 1500])
  assert.equal(secondsAfter(2000), 2)
  assert.equal(latency.untold, 0)
  arrive(3000)
  assert.equal(secondsAfter(3500), 2.5)
  assert.equal(secondsAfter(4000), 2.5)
})
