// What a request costs the garbage collector when nothing waits: V8's own sampling of all that is allocated, the dead
// included, over a million requests through Transmission, the kernel's page cache and a pair of sockets.
import assert from 'node:assert/strict'
import { closeSync, writeFileSync } from 'node:fs'
import { Session } from 'node:inspector/promises'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { encodeRequest, NBD_CMD_READ, viewOf } from 'nbd-protocol'
import { openBackend, socketIo, socketPair } from '../../backends/index.js'
import { Export } from '../../server/exports/export.js'
import { DEFAULT_LIMITS } from '../../server/limits.js'
import { PayloadBudget } from '../../server/nbd/payload-budget.js'
import { ReplyBatch } from '../../server/nbd/reply-batch.js'
import { Transmission } from '../../server/nbd/transmission.js'
import { allowedFlags } from '../../server/nbd/validation.js'
import { Log } from '../../server/observe/log.js'
import { temporaryFolder } from '../support/candor.js'

const BLOCK = 512
const BLOCKS = 1024
const DEPTH = 64
const HEADER = 28
const REQUESTS = 1_000_000
/** What is allocated for each batch and each sample is spread over its requests. */
const BYTES_MAX = 24
const SAMPLE_BYTES = 16 << 10

interface Node {
  readonly selfSize: number
  readonly callFrame: { readonly functionName: string; readonly url: string }
  readonly children: readonly Node[]
}

/** Bytes by the function that allocated them. */
function sums(node: Node, into = new Map<string, number>()): Map<string, number> {
  const name = `${node.callFrame.functionName} ${node.callFrame.url.replace(/^.*\//, '')}`
  into.set(name, (into.get(name) ?? 0) + node.selfSize)
  for (const child of node.children) sums(child, into)
  return into
}

async function transmissionOver(image: string, fd: number): Promise<Transmission> {
  const backend = await openBackend('sparse-file', { path: image, readOnly: false })
  const served = new Export({ name: 'disk', backend, witness: new Log(() => {}) })
  const allowed = allowedFlags(served.transmissionFlags, false, 0)
  const sizes = { size: served.size, minimumBlockSize: 1, payloadBytesMax: 32 << 20 }
  const terms = { ...sizes, readOnly: false, extended: false, allowedFlags: allowed }
  const socket = { destroyed: false, writableEnded: false, writableLength: 0 } as Socket
  const batch = new ReplyBatch(socket, fd, () => {})
  const calls = { onRoom: () => {}, peerGone: () => false, stalled: () => {} }
  const budget = new PayloadBudget(DEFAULT_LIMITS.payloadBytesMax)
  const [limits, client] = [DEFAULT_LIMITS, 'test']
  return new Transmission({ served, style: 'simple', contexts: [], terms, batch, limits, budget, client, ...calls })
}

/** One segment of requests. */
function frames(): Uint8Array {
  const bytes = new Uint8Array(DEPTH * HEADER)
  for (let index = 0; index < DEPTH; index++) {
    const offset = ((index * 37) % BLOCKS) * BLOCK
    const fields = { type: NBD_CMD_READ, flags: 0, cookieHigh: 0, cookieLow: index, offset, length: BLOCK }
    encodeRequest(viewOf(bytes), index * HEADER, false, { ...fields, payloadLength: 0 })
  }
  return bytes
}

test(`a million READs from the page cache leave the garbage collector less than ${BYTES_MAX} bytes each`, async (t) => {
  const folder = temporaryFolder()
  t.after(() => folder.remove())
  const image = join(folder.path, 'image')
  writeFileSync(image, new Uint8Array(BLOCKS * BLOCK).fill(1))
  const [fd, peer] = socketPair()
  const transmission = await transmissionOver(image, fd)
  const bytes = frames()
  const [view, taken] = [viewOf(bytes), new Uint8Array(256 << 10)]
  const serve = async (requests: number) => {
    for (let served = 0; served < requests; served += DEPTH) {
      assert.equal(transmission.serve(bytes, view, 0, bytes.length), bytes.length)
      for (let left = DEPTH * (16 + BLOCK); left > 0; left -= socketIo.receiveNow(peer, taken, 0)) {
        // Only what others' work has pushed out of the page cache comes later.
        if (transmission.inFlight > 0) await turn()
      }
    }
  }
  await serve(REQUESTS / 20)
  const session = new Session()
  session.connect()
  const dead = { includeObjectsCollectedByMajorGC: true, includeObjectsCollectedByMinorGC: true }
  await session.post('HeapProfiler.startSampling', { samplingInterval: SAMPLE_BYTES, ...dead })
  await serve(REQUESTS)
  const { profile } = await session.post('HeapProfiler.stopSampling')
  session.disconnect()
  const byFunction = [...sums(profile.head as Node)].sort((a, b) => b[1] - a[1])
  const total = byFunction.reduce((sum, [, size]) => sum + size, 0)
  t.diagnostic(`${(total / REQUESTS).toFixed(2)} bytes a request`)
  const most = byFunction.slice(0, 5).map(([name, size]) => `${name}: ${(size / REQUESTS).toFixed(2)}`)
  assert.ok(total / REQUESTS < BYTES_MAX, `${total / REQUESTS} bytes a request: ${most.join(', ')}`)
  closeSync(fd)
  closeSync(peer)
})
