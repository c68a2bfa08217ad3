// Changes that overlap go in order of arrival, on whichever connection they came; the others do not wait for them.
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { openBackend, WOULD_BLOCK, withFaults } from '../../backends/index.js'
import { DROPPED_AT } from '../../server/observe/counters.js'
import { type InProcess, serveInProcess } from '../support/in-process.js'

const BLOCK = 4096

interface Gate {
  readonly server: InProcess
  /** Lets the first waiting write of block 0 through. */
  open(): void
  /** Resolves when that write has reached storage. */
  readonly reached: Promise<void>
}

/** A disk whose first write to block 0 stays in storage until the gate opens. */
async function gatedDisk(): Promise<Gate> {
  let open = () => {}
  let arrive = () => {}
  const reached = new Promise<void>((resolve) => {
    arrive = resolve
  })
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  let first = true
  const disk = withFaults(await openBackend('memory', { size: 1 << 20 }), ({ command, offset, now }) => {
    if (command !== 'write' || offset !== 0 || !first) return undefined
    if (now) return { outcome: WOULD_BLOCK }
    first = false
    arrive()
    return { outcome: 0, after: opened }
  })
  const server = await serveInProcess(disk)
  after(() => server.close())
  return { server, open, reached }
}

describe('while a write is held in storage', () => {
  test('a later write of the same bytes on another connection waits, and wins', async () => {
    const gate = await gatedDisk()
    const [one, other] = [await gate.server.client(), await gate.server.client()]
    const order: string[] = []
    // Their replies travel on two sockets, in no order; what the disk holds afterwards is what counts.
    const stale = one.write(0, Buffer.alloc(BLOCK, 1)).then(() => order.push('stale'))
    await gate.reached
    const fresh = other.write(100, Buffer.alloc(BLOCK, 2)).then(() => order.push('fresh'))
    await other.write(8 * BLOCK, Buffer.alloc(BLOCK, 3))
    assert.deepEqual(order, [], 'a write elsewhere overtook them, and neither of them was answered')
    gate.open()
    await Promise.all([stale, fresh])
    assert.deepEqual(Buffer.from(await one.read(100, BLOCK)), Buffer.alloc(BLOCK, 2))
    assert.deepEqual(Buffer.from(await one.read(0, 100)), Buffer.alloc(100, 1))
  })

  test('trims and zeroing that overlap wait as well, in order of arrival', async () => {
    const gate = await gatedDisk()
    const client = await gate.server.client()
    const order: string[] = []
    const write = client.write(0, Buffer.alloc(BLOCK, 1)).then(() => order.push('write'))
    await gate.reached
    const trim = client.trim(0, 2 * BLOCK).then(() => order.push('trim'))
    const again = client.write(BLOCK, Buffer.alloc(BLOCK, 4)).then(() => order.push('again'))
    const zero = client.writeZeroes(BLOCK + 10, 10).then(() => order.push('zero'))
    await client.read(5 * BLOCK, BLOCK)
    assert.deepEqual(order, [])
    gate.open()
    await Promise.all([write, trim, again, zero])
    assert.deepEqual(order, ['write', 'trim', 'again', 'zero'])
    const expected = Buffer.alloc(2 * BLOCK)
    expected.fill(4, BLOCK)
    expected.fill(0, BLOCK + 10, BLOCK + 20)
    assert.deepEqual(Buffer.from(await client.read(0, 2 * BLOCK)), expected)
  })

  test('what still waits for its turn is dropped with its connection, and noted', async () => {
    const gate = await gatedDisk()
    const [one, leaving] = [await gate.server.client(), await gate.server.client()]
    const held = one.write(0, Buffer.alloc(BLOCK, 1))
    await gate.reached
    const lost = leaving.write(0, Buffer.alloc(BLOCK, 2))
    await leaving.read(8 * BLOCK, 1)
    await leaving.abandon()
    await assert.rejects(lost)
    while (gate.server.server.connections > 1) await new Promise((resolve) => setImmediate(resolve))
    gate.open()
    await held
    await one.write(0, Buffer.alloc(1, 9))
    assert.equal(gate.server.served.counters[DROPPED_AT], 1)
    assert.deepEqual(Buffer.from(await one.read(1, BLOCK - 1)), Buffer.alloc(BLOCK - 1, 1))
  })
})
