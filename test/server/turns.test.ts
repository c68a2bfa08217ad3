// How long a connection keeps the thread. Law: after half a millisecond others have their turn, whatever it is that comes.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { disk, MIB } from '../support/large-writes.js'

const LENGTH = 16 * MIB
/** Longer than a connection may stay. */
const PIECE_MS = 1

test('a large payload leaves others their turn after each piece that takes long', { timeout: 60_000 }, async () => {
  const served = await disk()
  let [turn, inTurn, most] = [0, 0, 0]
  let seenIn = -1
  let counting = true
  const count = () => {
    turn += 1
    if (counting) setImmediate(count)
  }
  count()
  served.plan = ({ command, now, offset }) => {
    // The first read of a connection brings more than one piece: the slab is large.
    if (command !== 'write' || !now || offset < 4 * MIB) return undefined
    inTurn = seenIn === turn ? inTurn + 1 : 1
    most = Math.max(most, inTurn)
    seenIn = turn
    for (const since = performance.now(); performance.now() - since < PIECE_MS; );
    return undefined
  }
  const workerData = { path: served.server.path, length: LENGTH }
  const client = new Worker(new URL('../support/flooding-client.js', import.meta.url), { workerData })
  await once(client, 'message')
  counting = false
  assert.equal(served.writes.length, LENGTH / (256 << 10))
  assert.ok(most <= 2, `${most} pieces were written in one turn`)
})
