// What the model test of the four laws found, each as the one sequence of events that shows it: requests that are on
// their way while something fails, and what is asked of storage before anybody was told of it.
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { type Client, NBD_CMD_FLAG_FUA, NBD_CMD_WRITE, NBD_EIO } from 'nbd-protocol'
import { EIO, ENOSPC, openBackend, SYNC_FAILED, WOULD_BLOCK, withFaults } from '../../backends/index.js'
import { errorAt } from '../../server/observe/counters.js'
import { faulty, nbdError } from '../support/faulty-disk.js'
import { serveInProcess } from '../support/in-process.js'
import { changed, memoryMedium } from '../support/linux-disk-media.js'

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

/** A disk whose failing sync takes the error from the open file description, so that only the witness tells of it. */
async function consumedError() {
  const disk = await faulty()
  const [begun, ended] = [gate(), gate()]
  const fail = (client: Client) => {
    let witness = EIO
    disk.plan = ({ command }) => {
      if (command === 'probe') {
        const outcome = witness
        witness = 0
        return { outcome }
      }
      if (command !== 'flush') return undefined
      begun.open()
      return { outcome: FAILED, after: ended.opened }
    }
    return client.flush()
  }
  return { disk, sync: { fail, begun: begun.opened, end: ended.open } }
}

/** A disk that is asked at once and whose answers come late, when the gate opens; its syncs fail. */
async function lateDisk() {
  const memory = await openBackend('memory', { size: SIZE })
  const [answers, release] = [gate(), gate()]
  let asked = 0
  const late = async <Answer>(answer: Promise<Answer>): Promise<Answer> => {
    asked += 1
    const found = await answer
    await answers.opened
    return found
  }
  const inner = changed(memory, {
    readNow: () => WOULD_BLOCK,
    readSparse: (...range) => late(memory.readSparse(...range)),
    extents: (...range) => late(memory.extents(...range)),
    flush: async () => FAILED,
    release: async () => {
      await release.opened
      return FAILED
    },
  })
  const server = await serveInProcess(inner)
  after(() => server.close())
  /** The kernel gives the first page up, and what was there before is back. */
  const lose = () => memory.zero(0, PAGE, 0, false)
  return { server, lose, open: answers.open, letSync: release.open, asked: () => asked }
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

  for (const [what, earlier] of [
    ['of what was written before', false],
    ['of what was suspect already', true],
  ] as const) {
    test(`a FUA write that heard no error clears nothing ${what}, though it is heard before the sync that did`, async () => {
      const { disk, sync } = await consumedError()
      const { durability } = disk.server.served
      const [one, other] = [await disk.server.client(), await disk.server.client()]
      await one.write(0, Buffer.alloc(4 * PAGE, 1))
      if (earlier) {
        durability.judge(FAILED)
        assert.equal(await durability.resume(), 0)
        assert.equal(durability.suspect.bytes, 4 * PAGE)
      }
      const flushed = sync.fail(other)
      await sync.begun
      await assert.rejects(one.write(PAGE, Buffer.alloc(2 * PAGE, 2), NBD_CMD_FLAG_FUA), nbdError(NBD_EIO))
      sync.end()
      await assert.rejects(flushed, nbdError(NBD_EIO))
      assert.deepEqual([...durability.suspect], [{ start: 0, end: 4 * PAGE }])
      await assert.rejects(one.read(PAGE, PAGE), nbdError(NBD_EIO))
    })
  }

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
    const { server, open, lose } = await lateDisk()
    const [one, other] = [await server.client(), await server.client()]
    await one.write(0, Buffer.alloc(PAGE, 1))
    await lose()
    const read = one.read(0, PAGE)
    await untilInStorage(server.served.waiting)
    await assert.rejects(other.flush())
    await other.write(0, Buffer.alloc(PAGE, 2))
    open()
    assert.deepEqual(Buffer.from(await read), Buffer.alloc(PAGE, 2))
  })

  test('a read that waited for an operator is not made when its bytes became suspect meanwhile', async () => {
    const { server, open, lose, letSync, asked } = await lateDisk()
    const { recess, waiting, durability } = server.served
    const [one, other] = [await server.client(), await server.client()]
    await one.write(0, Buffer.alloc(PAGE, 1))
    await lose()
    const released = recess.begin()
    const read = assert.rejects(one.read(0, PAGE), nbdError(NBD_EIO))
    await untilInStorage(waiting)
    letSync()
    assert.equal(await released, FAILED)
    assert.ok(durability.suspect.intersects(0, PAGE))
    while (waiting.oldest !== undefined && asked() === 0) await nextTurn()
    await other.write(0, Buffer.alloc(PAGE, 2))
    open()
    await read
  })

  test('BLOCK_STATUS does not call a hole what was lost when its look began and was written again meanwhile', async () => {
    const { server, open, lose, asked } = await lateDisk()
    const wishes = { contexts: ['base:allocation'] }
    const [one, other] = [await server.client(wishes), await server.client()]
    await one.write(0, Buffer.alloc(PAGE, 1))
    await lose()
    await assert.rejects(other.flush())
    const status = one.blockStatus(0, 2 * PAGE)
    while (asked() === 0) await nextTurn()
    await other.write(0, Buffer.alloc(PAGE, 2))
    open()
    assert.deepEqual((await status).get('base:allocation'), [
      { length: PAGE, flags: 0 },
      { length: PAGE, flags: 3 },
    ])
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
