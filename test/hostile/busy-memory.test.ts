// What a busy server needs: 64 connections that write and read as much as they may, and take none of it for a while.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { MIB } from '../support/conformance-numbers.js'
import { WATCHDOG_MS } from '../support/conformance-server.js'
import { attach } from '../support/faults.js'
import { request, writeRequest } from '../support/raw-bytes.js'
import { RawClient } from '../support/raw-client.js'
import { serveTls } from '../support/tls-server.js'

const CONNECTIONS = 64
const SIZES = [1, 4096, 65_536, 262_144, MIB, 4 * MIB, 16 * MIB, 32 * MIB]
const BOUND_MIB = 250

/** The most memory that a process has ever had, in MiB. */
function peakMiB(pid: number): number {
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024
}

interface Busy {
  /** Takes what it was sent; resolves when all of it was. */
  finish(): Promise<void>
}

/** Writes and reads of one size over a connection, all sent at once; nothing of the answers is taken at first. */
async function busy(path: string, length: number, payload: Uint8Array): Promise<Busy> {
  const client = await RawClient.enter(path, 'simple')
  const frame = writeRequest('simple', 1n, 0, payload.subarray(0, length))
  const reads = request('simple', { type: 0, cookie: 2n, length })
  const expected = client.received + 2 * 16 + 2 * (16 + length)
  // What comes is counted and thrown away: sixty-four clients would need more memory than the server.
  client.socket.removeAllListeners('data').pause()
  for (const bytes of [reads, frame, reads, frame]) client.socket.write(bytes)
  const finish = async () => {
    let { received } = client
    await new Promise<void>((resolve, reject) => {
      client.socket.on('data', (chunk: Buffer) => {
        received += chunk.length
        if (received >= expected) resolve()
      })
      client.closed.then(() => reject(new Error(`closed after ${received} of ${expected} bytes`)))
      client.socket.resume()
    })
    client.vanish()
  }
  return { finish }
}

describe('a busy server', { timeout: WATCHDOG_MS }, () => {
  test(`stays under ${BOUND_MIB} MiB with ${CONNECTIONS} connections that write and read 1 byte to 32 MiB at a time`, async (scope) => {
    const { candor, unix } = await serveTls(scope, '32M')
    const payload = new Uint8Array(32 * MIB).fill(7)
    const before = peakMiB(candor.pid)
    const connections = await Promise.all(
      Array.from({ length: CONNECTIONS }, (_, index) => busy(unix, SIZES[index % SIZES.length] ?? 1, payload)),
    )
    // Whoever is answered in so many turns of the server knows that it has looked at all the others too.
    const good = await attach(candor.uris[0] ?? '')
    for (let turn = 0; turn < 100; turn++) await good.read(0, 4096)
    await good.disconnect()
    await Promise.all(connections.map(({ finish }) => finish()))
    const peak = peakMiB(candor.pid)
    scope.diagnostic(`${before.toFixed(0)} MiB before, ${peak.toFixed(0)} MiB at the most`)
    assert.ok(peak < BOUND_MIB, `${peak} MiB`)
  })
})
