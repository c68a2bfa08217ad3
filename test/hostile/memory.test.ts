// What clients that mean harm cost the server in memory, at most; and that nobody else notices them.
import assert from 'node:assert/strict'
import type { Socket } from 'node:net'
import { describe, test } from 'node:test'
import type { Client } from 'nbd-protocol'
import { MIB } from '../support/conformance-numbers.js'
import { WATCHDOG_MS } from '../support/conformance-server.js'
import { attach, stamped } from '../support/faults.js'
import { ATTACH, allGone, attached, manyReads, mute, settledBytes } from '../support/hostile.js'
import { FLAGS, infoData, option, request } from '../support/raw-bytes.js'
import { serveTls, untilConnections } from '../support/tls-server.js'

const KIB = 1024
/** What the documentation says that a connection costs which does nothing. */
const IDLE_BYTES = 64 * KIB
const BACKLOG = 256 * KIB
/** Replies gather in buffers of this size. */
const BATCH = MIB
const READ_BYTES = 64 * KIB

/**
 * Spare buffers of the pool, the heaps of two threads that have grown warm, and the four reads of 32 MiB after each round, as
 * long as no collector has looked.
 */
const SLACK = 192 * MIB
/** What the third round may leave more than the first: the collectors' moods, not something of each round. */
const MOOD = 96 * MIB

/** Writes and reads until it is told to stop; each answer has to be right. Returns how often. */
function goodClient(client: Client): { stop(): Promise<number> } {
  let stopping = false
  const work = async (): Promise<number> => {
    let rounds = 0
    while (!stopping) {
      const offset = (rounds % 16) * MIB
      const data = stamped(offset, 64 * KIB, rounds)
      await client.write(offset, data)
      assert.ok(data.equals(await client.read(offset, data.length)), 'the good client reads what it wrote')
      rounds += 1
    }
    return rounds
  }
  const result = work()
  // Looked at in stop(); until then an error must not end the test's process.
  result.catch(() => undefined)
  return {
    stop: () => {
      stopping = true
      return result
    },
  }
}

/** Buffers of connections that are gone stay until V8 has a reason to look for them, such as these reads. */
async function ordinaryWork(client: Client): Promise<void> {
  for (let count = 0; count < 4; count++) await client.read(0, 32 * MIB)
}

const sayingNothing = (path: string) => mute(path, FLAGS, option(6, infoData('disk')).subarray(0, 20))
const writingSlowly = (path: string) =>
  mute(path, ATTACH, request('simple', { type: 1, cookie: 1n, length: 32 * MIB, payload: new Uint8Array(1) }))

/** 500 connections: every second one reads slowly, the others write slowly, idle, or never attach. */
async function attack(path: string): Promise<Socket[]> {
  const reads = manyReads(4000, READ_BYTES)
  const readingSlowly = (to: string) => mute(to, ATTACH, reads)
  const kinds = [readingSlowly, writingSlowly, readingSlowly, attached, readingSlowly, sayingNothing]
  const sockets: Socket[] = []
  while (sockets.length < 500) {
    const batch = kinds.map((kind) => kind(path))
    sockets.push(...(await Promise.all(batch)))
  }
  return sockets
}

describe('memory', { timeout: 2 * WATCHDOG_MS }, () => {
  test('400 connections that do nothing cost less than 64 KiB each, attached or not', async (scope) => {
    const { candor, unix } = await serveTls(scope, '64M', '--handshake-timeout', '5m')
    for (const [what, connect] of [
      ['attached', attached],
      ['in their handshake', sayingNothing],
    ] as const) {
      const before = await settledBytes(candor.pid)
      const sockets = await Promise.all(Array.from({ length: 400 }, () => connect(unix)))
      scope.after(() => allGone(sockets))
      await untilConnections(candor, 400)
      const each = ((await settledBytes(candor.pid)) - before) / sockets.length
      scope.diagnostic(`${what}: ${(each / KIB).toFixed(1)} KiB each`)
      assert.ok(each < IDLE_BYTES, `${what}: ${each} bytes each`)
      allGone(sockets)
      await untilConnections(candor, 0)
    }
  })

  test('500 hostile connections cost what the limits allow, a good client stays served, and none of three rounds leaves its memory behind', async (scope) => {
    const flags = ['--reply-backlog-max', String(BACKLOG), '--handshake-timeout', '5m']
    const { candor, unix } = await serveTls(scope, '64M', ...flags)
    const good = await attach(candor.uris[0] ?? '')
    const before = await settledBytes(candor.pid)
    const left: number[] = []
    for (let round = 0; round < 3; round++) {
      const client = goodClient(good)
      const sockets = await attack(unix)
      scope.after(() => allGone(sockets))
      await untilConnections(candor, sockets.length + 1)
      const under = await settledBytes(candor.pid)
      assert.ok((await client.stop()) > 0, 'the good client was served')
      const readers = Math.ceil(sockets.length / 2)
      const bound = readers * (BACKLOG + BATCH + READ_BYTES) + (sockets.length - readers) * IDLE_BYTES
      allGone(sockets)
      await untilConnections(candor, 1)
      await ordinaryWork(good)
      left.push(await settledBytes(candor.pid))
      const figures = [before, under, left.at(-1) ?? 0, bound].map((bytes) => Math.round(bytes / MIB))
      scope.diagnostic(`MiB before, during, after: ${figures.slice(0, 3).join(', ')}; may grow by ${figures[3]}`)
      assert.ok(under - before < bound, `${under - before} bytes more, ${bound} are allowed`)
    }
    for (const bytes of left) assert.ok(bytes - before < SLACK, `${bytes - before} bytes are left of a round`)
    const [first = 0, , last = 0] = left
    assert.ok(last - first < MOOD, `${last - first} bytes more are left of the third round than of the first`)
  })
})
