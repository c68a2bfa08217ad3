// A thread that is ended while storage keeps one of its reads. Law: its buffers are not freed before storage has let go of
// them, and so it ends when storage answers, and not before.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { lastFirst } from '../support/faults.js'
import { mountFuse, needsFuse } from '../support/fuse-disk.js'

const WORKER = new URL('../support/hanging-worker.js', import.meta.url)
/** A thread that does not wait for storage has ended long before. */
const LOOK_AGAIN_MS = 1000

test('a thread that is ended while a read hangs ends when storage answers, and takes nothing down', {
  skip: needsFuse(),
}, async (t) => {
  const disk = await mountFuse(lastFirst(t), 1)
  const worker = new Worker(WORKER, { workerData: disk.image })
  await once(worker, 'message')
  disk.stop()
  worker.postMessage('read')
  await once(worker, 'message')
  const ended = worker.terminate().then(() => 'ended')
  const early = await Promise.race([ended, pause(LOOK_AGAIN_MS, 'waits')])
  disk.goOn()
  assert.equal(early, 'waits')
  assert.equal(await ended, 'ended')
})
