// What the record of an image is told. Law: bytes that were suspect stand in it until a sync that succeeds covers their
// rewrite, whatever else is stored meanwhile.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { NBD_CMD_FLAG_FUA } from 'nbd-protocol'
import { DONE, EIO, ENOMEM, SYNC_FAILED } from '../../backends/index.js'
import type { Durability } from '../../server/exports/durability.js'
import type { DurableRecord } from '../../server/exports/durable-record.js'
import type { Range } from '../../server/exports/range-set.js'
import type { ExportState } from '../../server/observe/counters.js'
import { type Faulty, failing, faulty } from '../support/faulty-disk.js'

const PAGE = 4096
const FAILED = EIO | SYNC_FAILED

/** A record that remembers what it was last told. */
class Notebook implements DurableRecord {
  state: ExportState = 'ok'
  suspect: Range[] = []

  touched(): boolean {
    return true
  }

  synced(): boolean {
    return true
  }

  async resized(): Promise<number> {
    return DONE
  }

  async store(state: ExportState, _errno: number, suspect: Iterable<Range>): Promise<number> {
    this.state = state
    this.suspect = [...suspect]
    return DONE
  }
}

interface Scene {
  readonly disk: Faulty
  readonly record: Notebook
  readonly durability: Durability
  /** Writes a page, and nothing more. */
  write(page: number, flags?: number): Promise<void>
  flush(): Promise<void>
}

/** The first four pages were lost, the operator has resumed, and storage is good. */
async function afterResume(): Promise<Scene> {
  const record = new Notebook()
  const disk = await faulty({ record })
  const client = await disk.server.client()
  const { durability } = disk.server.served
  await client.write(0, Buffer.alloc(4 * PAGE, 1))
  disk.plan = failing('flush', FAILED)
  await assert.rejects(client.flush())
  disk.plan = () => undefined
  assert.equal(await durability.resume(), DONE)
  assert.deepEqual([record.state, record.suspect], ['ok', [{ start: 0, end: 4 * PAGE }]])
  const write = (page: number, flags = 0) => client.write(page * PAGE, Buffer.alloc(PAGE, 2), flags)
  return { disk, record, durability, write, flush: () => client.flush() }
}

describe('the record keeps what was rewritten and is not synced', () => {
  test('when further bytes are missing', async () => {
    const { record, durability, write } = await afterResume()
    await write(1)
    durability.missing(100 * PAGE, 101 * PAGE, 'the image was truncated')
    assert.deepEqual(record.suspect, [
      { start: 0, end: 4 * PAGE },
      { start: 100 * PAGE, end: 101 * PAGE },
    ])
    assert.deepEqual([...durability.suspect][0], { start: 0, end: PAGE }, 'reads may have the rewritten page')
  })

  test('when the image is detached', async () => {
    const { record, durability, write } = await afterResume()
    await write(0)
    durability.detach('the image was removed')
    assert.deepEqual([record.state, record.suspect], ['detached', [{ start: 0, end: 4 * PAGE }]])
  })

  test('when the same is noticed while the sync that is to cover the rewrite still runs', async () => {
    const { disk, record, durability, write, flush } = await afterResume()
    await write(0)
    let release = () => {}
    const released = new Promise<void>((resolve) => {
      release = resolve
    })
    const begun = new Promise<void>((resolve) => {
      disk.plan = ({ command }) => {
        if (command !== 'flush') return undefined
        resolve()
        return { outcome: DONE, after: released }
      }
    })
    const flushed = flush()
    await begun
    await write(1)
    durability.missing(100 * PAGE, 101 * PAGE, 'the image was truncated')
    assert.deepEqual(record.suspect[0], { start: 0, end: 4 * PAGE })
    release()
    await assert.rejects(flushed)
    assert.equal(await durability.resume(), DONE)
    assert.deepEqual(record.suspect[0], { start: 2 * PAGE, end: 4 * PAGE })
  })

  test('until the next good sync, and no byte that was not suspect before', async () => {
    const { record, write, flush } = await afterResume()
    await write(3)
    await write(4)
    await flush()
    assert.deepEqual(record.suspect, [{ start: 0, end: 3 * PAGE }])
    await write(0, NBD_CMD_FLAG_FUA)
    await flush()
    assert.deepEqual(record.suspect, [{ start: PAGE, end: 3 * PAGE }])
  })

  test('a sync that the host did not even begin covers nothing: what it was to cover is suspect when the next one fails', async () => {
    const { disk, durability, write, flush } = await afterResume()
    await write(20)
    disk.plan = failing('flush', ENOMEM)
    await assert.rejects(flush())
    assert.equal(durability.state, 'ok')
    disk.plan = failing('flush', FAILED)
    await assert.rejects(flush())
    assert.deepEqual([...durability.suspect].at(-1), { start: 20 * PAGE, end: 21 * PAGE })
  })
})
