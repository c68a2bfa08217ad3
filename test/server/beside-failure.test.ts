// What the model test of the four laws found, each as the one sequence of events that shows it: requests that are on
// their way while something fails, and what is asked of storage before anybody was told of it.
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { NBD_CMD_FLAG_FUA, NBD_CMD_WRITE, NBD_EIO } from 'nbd-protocol'
import { type Backend, EIO, ENOSPC, openBackend, SYNC_FAILED, WOULD_BLOCK, withFaults } from '../../backends/index.js'
import { errorAt } from '../../server/observe/counters.js'
import { faulty, nbdError } from '../support/faulty-disk.js'
import { serveInProcess } from '../support/in-process.js'
import { memoryMedium } from '../support/linux-disk-media.js'

const PAGE = 4096
const SIZE = 64 * PAGE
const FAILED = EIO | SYNC_FAILED

function gate(): { readonly opened: Promise<void>; open(): void } {
  let open = () => {}
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  return { opened, open }
}

/** A disk whose writes wait for the gate once they are in storage, and whose syncs fail as long as `failing` says. */
async function slowDisk() {
  const disk = await faulty()
  const { opened, open } = gate()
  const state = { failing: true }
  disk.plan = ({ command, now }) => {
    if (command === 'write') return now ? { outcome: WOULD_BLOCK } : { outcome: 0, after: opened }
    return command === 'flush' && state.failing ? { outcome: FAILED } : undefined
  }
  return { disk, state, open }
}

async function untilInStorage(waiting: { readonly oldest: unknown }): Promise<void> {
  while (waiting.oldest === undefined) await nextTurn()
}

describe('beside a failed sync', () => {
  test('a FUA write that was on its way fails, though an operator has resumed since', async () => {
    const { disk, state, open } = await slowDisk()
    const { served } = disk.server
    const [one, other] = [await disk.server.client(), await disk.server.client()]
    const answered = assert.rejects(one.write(0, Buffer.alloc(PAGE, 1), NBD_CMD_FLAG_FUA), nbdError(NBD_EIO))
    await untilInStorage(served.waiting)
    await assert.rejects(other.flush())
    state.failing = false
    assert.equal(await served.durability.resume(), 0)
    open()
    await answered
    await assert.rejects(one.read(0, PAGE), nbdError(NBD_EIO))
  })

  test('forget does not speak for a write that is still on its way', async () => {
    const { disk, open } = await slowDisk()
    const { served } = disk.server
    const [one, other] = [await disk.server.client(), await disk.server.client()]
    const write = one.write(0, Buffer.alloc(PAGE, 1))
    await untilInStorage(served.waiting)
    await assert.rejects(other.flush())
    await served.durability.forget()
    open()
    await write
    await assert.rejects(one.read(0, PAGE), nbdError(NBD_EIO))
  })

  test('a read that brought lost bytes is done again when they were written again meanwhile', async () => {
    const memory = await openBackend('memory', { size: SIZE })
    const { opened, open } = gate()
    // The bytes are read at once, and what was read comes back late.
    const late: Pick<Backend, 'readNow' | 'readSparse'> = {
      readNow: () => WOULD_BLOCK,
      readSparse: async (...range) => {
        const read = await memory.readSparse(...range)
        await opened
        return read
      },
    }
    const inner = new Proxy(memory, {
      get: (target, key) => {
        const value: unknown = Reflect.get(late, key) ?? Reflect.get(target, key, target)
        return typeof value === 'function' ? value.bind(target) : value
      },
    })
    const server = await serveInProcess(
      withFaults(inner, ({ command }) => (command === 'flush' ? { outcome: FAILED } : undefined)),
    )
    after(() => server.close())
    const [one, other] = [await server.client(), await server.client()]
    await one.write(0, Buffer.alloc(PAGE, 1))
    // The kernel gives the page up, and what was there before is back.
    await memory.zero(0, PAGE, 0, false)
    const read = one.read(0, PAGE)
    await untilInStorage(server.served.waiting)
    await assert.rejects(other.flush())
    await other.write(0, Buffer.alloc(PAGE, 2))
    open()
    assert.deepEqual(Buffer.from(await read), Buffer.alloc(PAGE, 2))
  })
})

test('BLOCK_STATUS asks whether write-back failed before it calls anything a hole', async () => {
  const memory = await openBackend('memory', { size: SIZE })
  let lost = false
  const plan = withFaults(memory, ({ command }) => (command === 'probe' && lost ? { outcome: EIO } : undefined))
  const server = await serveInProcess(plan)
  after(() => server.close())
  const client = await server.client({ contexts: ['base:allocation'] })
  await client.write(0, Buffer.alloc(PAGE, 1))
  await memory.zero(0, PAGE, 0, false)
  lost = true
  const status = await client.blockStatus(0, 2 * PAGE)
  assert.deepEqual(status.get('base:allocation'), [
    { length: PAGE, flags: 0 },
    { length: PAGE, flags: 3 },
  ])
})

test('a write that was held while the image was truncated does not bring the rest back as zeroes', async () => {
  const medium = await memoryMedium(SIZE)
  let full = true
  const backend = withFaults(medium.inner, ({ command }) =>
    command === 'write' && full ? { outcome: ENOSPC } : undefined,
  )
  const server = await serveInProcess(backend, {}, { onSpace: { kind: 'hold', timeoutMs: 60_000 } })
  after(() => server.close())
  const client = await server.client()
  const held = client.write(SIZE - PAGE, Buffer.alloc(PAGE, 1))
  while (server.served.space.held === 0) await nextTurn()
  medium.truncate(SIZE / 2)
  full = false
  server.served.space.release()
  await held
  await assert.rejects(client.read(SIZE / 2, PAGE), nbdError(NBD_EIO))
  await assert.rejects(client.flush(), nbdError(NBD_EIO))
})

test('a write that fails after its client has gone is counted all the same', async () => {
  const disk = await faulty()
  const { opened, open } = gate()
  disk.plan = ({ command, now }) => {
    if (command !== 'write') return undefined
    return now ? { outcome: WOULD_BLOCK } : { outcome: EIO, after: opened }
  }
  const { served, server } = disk.server
  const client = await disk.server.client()
  client.write(0, Buffer.alloc(PAGE)).catch(() => {})
  await untilInStorage(served.waiting)
  await client.abandon()
  while (server.connections > 0) await nextTurn()
  open()
  while (served.waiting.oldest !== undefined) await nextTurn()
  assert.equal(served.counters[errorAt(NBD_CMD_WRITE, EIO)], 1)
})
