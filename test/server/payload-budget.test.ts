// The budget for what all connections hold together: in order of arrival, a whole request or nothing, and given back
// when replies are taken, requests answered or connections gone.
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { NBD_CMD_READ } from 'nbd-protocol'
import { DONE, ENOSPC, WOULD_BLOCK } from '../../backends/index.js'
import { ENTITLED_BYTES, PayloadBudget, payloadHeld, SMALL_BYTES } from '../../server/nbd/payload-budget.js'
import { DEFERRED_AT, REQUESTS_AT } from '../../server/observe/counters.js'
import { type Disk, disk, gate, KIB, MIB, rawClient, until } from '../support/large-writes.js'
import { request } from '../support/raw-bytes.js'

const LARGE = 2 * MIB

describe('the budget for payload', { timeout: 60_000 }, () => {
  test('lets the last byte of it go, and nothing past it; a request larger than all of it goes alone', () => {
    const budget = new PayloadBudget(8 * MIB)
    const woken: string[] = []
    const [first, second] = ['first', 'second'].map((name) => () => void woken.push(name))
    assert.ok(first !== undefined && second !== undefined)
    assert.equal(budget.admits(9 * MIB, 1, first), true)
    budget.take(6 * MIB)
    assert.equal(budget.admits(2 * MIB, 1, first), true)
    assert.equal(budget.admits(2 * MIB + 1, 1, first), false)
    assert.equal(budget.admits(2 * MIB, 1, second), false, 'whoever comes later waits behind')
    budget.give(MIB)
    assert.deepEqual(woken, ['first'])
    assert.equal(budget.admits(2 * MIB, 1, second), false, 'though there is room for it')
    assert.equal(budget.admits(2 * MIB + 1, 1, first), true)
    assert.deepEqual(woken, ['first', 'second'])
    assert.equal(budget.admits(2 * MIB, 1, second), true)
    assert.equal(budget.waiting, 0)
  })

  test('passes what is small, and one request of a MiB of whoever holds nothing, however full it is', () => {
    const budget = new PayloadBudget(MIB)
    budget.take(64 * MIB)
    const nobody = () => assert.fail()
    assert.equal(budget.admits(SMALL_BYTES, 64 * MIB, nobody), true)
    assert.equal(budget.admits(ENTITLED_BYTES, 0, nobody), true)
    const waits = () => {}
    assert.equal(budget.admits(SMALL_BYTES + 1, 1, waits), false)
    budget.withdraw(waits)
    assert.equal(budget.admits(ENTITLED_BYTES + 1, 0, waits), false)
    budget.withdraw(waits)
  })

  test('is no longer waited for by one whose request passes since the one before it was answered', () => {
    const budget = new PayloadBudget(MIB)
    budget.take(MIB)
    const waits = () => {}
    assert.equal(budget.admits(512 * KIB, 1, waits), false)
    assert.equal(budget.admits(512 * KIB, 0, waits), true)
    assert.equal(budget.waiting, 0)
  })

  test('is one for all threads, and whoever waits here hears of what another gives back', async () => {
    const held = payloadHeld()
    const [here, there] = [new PayloadBudget(8 * MIB, held), new PayloadBudget(8 * MIB, held)]
    there.take(8 * MIB)
    const woken = new Promise<void>((resolve) => {
      const wake = () => {
        if (here.admits(2 * MIB, 1, wake)) resolve()
      }
      assert.equal(here.admits(2 * MIB, 1, wake), false)
    })
    there.give(8 * MIB)
    await woken
  })

  /** A disk whose reads wait in storage until the gate is open. */
  async function slowReads(
    payloadBytesMax: number,
    options: Parameters<typeof disk>[1] = {},
  ): Promise<Disk & { open(): void }> {
    const served = await disk({ payloadBytesMax }, options)
    const storage = gate()
    served.plan = ({ command, now }) => {
      if (command === 'write' && options.onSpace !== undefined) return { outcome: ENOSPC }
      if (command !== 'read') return undefined
      return now ? { outcome: WOULD_BLOCK } : { outcome: DONE, after: storage.opened }
    }
    return Object.assign(served, { open: storage.open })
  }

  test('holds one READ past it back until another is answered', async () => {
    const served = await slowReads(2 * LARGE)
    const clients = await Promise.all([0, 1, 2].map(() => served.server.client()))
    const reads = clients.map((client) => client.read(0, LARGE))
    const { counters } = served.server.served
    await until(() => counters[DEFERRED_AT + NBD_CMD_READ] === 2)
    // A small one of the same client has to wait behind it; that of another passes, and so it has been looked at.
    const small = await served.server.client()
    const passed = small.read(0, 4 * KIB)
    await until(() => counters[DEFERRED_AT + NBD_CMD_READ] === 3)
    served.open()
    for (const data of await Promise.all(reads)) assert.equal(data.length, LARGE)
    assert.equal((await passed).length, 4 * KIB)
    await Promise.all([small, ...clients].map((client) => client.disconnect()))
  })

  test('is no longer waited for by one whose request passes since others are held for want of space', async () => {
    const served = await slowReads(2 * LARGE, { onSpace: { kind: 'hold', timeoutMs: 60_000 } })
    const clients = await Promise.all([0, 1, 2, 3].map(() => served.server.client()))
    const reads = clients.slice(0, 3).map((client) => client.read(0, LARGE))
    const { counters, space } = served.server.served
    await until(() => counters[DEFERRED_AT + NBD_CMD_READ] === 2)
    const writer = await served.server.client()
    const write = writer.write(0, new Uint8Array(KIB))
    await until(() => space.held === 1 && counters[DEFERRED_AT + NBD_CMD_READ] === 3)
    served.plan = () => undefined
    space.release()
    await write
    const last = clients[3]?.read(0, LARGE)
    served.open()
    for (const data of await Promise.all([...reads, last])) assert.equal(data?.length, LARGE)
    await Promise.all([writer, ...clients].map((client) => client.disconnect()))
  })

  test('is not used up by clients that take none of their replies; when they go, it is given back', async () => {
    const served = await disk({ payloadBytesMax: 8 * MIB })
    const deaf = await Promise.all([0, 1, 2, 3].map(() => rawClient(served)))
    for (const client of deaf) {
      client.socket.pause()
      await client.send(request('simple', { type: 0, cookie: 1n, length: 16 * MIB }))
    }
    const good = await served.server.client()
    after(() => good.disconnect())
    for (const length of [4 * KIB, 64 * KIB, 256 * KIB, MIB]) assert.equal((await good.read(0, length)).length, length)
    const payload = new Uint8Array(6 * MIB).fill(3)
    await good.write(0, payload)
    const large = good.read(0, 6 * MIB)
    for (const client of deaf) client.vanish()
    assert.ok(Buffer.from(await large).equals(payload))
  })

  test('is no longer waited for by one that was disconnected, though its last replies are not taken yet', async () => {
    const served = await disk({ payloadBytesMax: 24 * MIB, replyBacklogMax: 64 * MIB })
    const deaf = await rawClient(served)
    deaf.socket.pause()
    await deaf.send(request('simple', { type: NBD_CMD_READ, cookie: 1n, length: 16 * MIB }))
    await deaf.send(request('simple', { type: NBD_CMD_READ, cookie: 2n, length: 16 * MIB }))
    const { counters } = served.server.served
    await until(() => counters[REQUESTS_AT + NBD_CMD_READ] === 1)
    const [waiting] = served.server.host.connections.of(served.server.served)
    const [good, small] = [await served.server.client(), await served.server.client()]
    after(() => Promise.all([good.disconnect(), small.disconnect()]))
    let isRead = false
    const large = good.read(0, LARGE).then((data) => {
      isRead = true
      return data
    })
    assert.equal((await small.read(0, 4 * KIB)).length, 4 * KIB)
    assert.equal(isRead, false)
    waiting?.destroy()
    assert.equal((await large).length, LARGE)
    assert.equal(served.server.server.connections, 3, 'it had to be gone before')
  })

  test('is waited for once by a connection that was frozen while it waited, and goes on after all', async () => {
    const served = await disk({ payloadBytesMax: MIB })
    const deaf = await rawClient(served)
    deaf.socket.pause()
    await deaf.send(request('simple', { type: NBD_CMD_READ, cookie: 1n, length: 16 * MIB }))
    const good = await served.server.client()
    after(() => good.disconnect())
    const large = good.read(0, LARGE)
    const { counters } = served.server.served
    await until(() => counters[REQUESTS_AT + NBD_CMD_READ] === 1)
    // One of another passes, and so it has been looked at.
    const small = await served.server.client()
    after(() => small.disconnect())
    assert.equal((await small.read(0, 4 * KIB)).length, 4 * KIB)
    const frozen = await served.server.host.freeze(1000)
    assert.ok(frozen.kind === 'frozen')
    await served.server.host.goOn()
    deaf.vanish()
    assert.equal((await large).length, LARGE)
  })
})
