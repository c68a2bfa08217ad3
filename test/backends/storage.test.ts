// Storage of an embedding program keeps the promises that every backend makes, and its errors go out as they are.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  DONE,
  EIO,
  ENOSPC,
  isSyncFailure,
  NOT_FAST,
  openBackend,
  type Storage,
  storageBackend,
  ZERO_FAST,
} from '../../backends/index.js'
import { conformance } from './conformance.js'

type Whole = Required<Pick<Storage, 'read' | 'write' | 'discard'>> & Storage

async function inMemory(size: number): Promise<Whole> {
  const disk = await openBackend('memory', { size })
  return {
    size,
    read: async (offset, length) => {
      const bytes = new Uint8Array(length)
      disk.readNow(bytes, 0, length, offset)
      return bytes
    },
    write: async (offset, bytes) => {
      disk.writeNow(bytes, 0, bytes.length, offset)
    },
    discard: async (offset, length) => {
      await disk.trim(offset, length, false)
    },
  }
}

conformance('the storage of an embedding program', async (size) => storageBackend(await inMemory(size)))

conformance('the same without discard', async (size) => {
  const { read, write } = await inMemory(size)
  return storageBackend({ size, read, write })
})

describe('storage of an embedding program', () => {
  const full = Object.assign(new Error('no room'), { code: 'ENOSPC' })
  const broken = () => Promise.reject(new Error('it broke'))
  const buffer = new Uint8Array(512)

  test('that rejects is an error by its code, or EIO without one', async () => {
    const disk = storageBackend({ size: 4096, read: broken, write: () => Promise.reject(full) })
    assert.equal(await disk.read(buffer, 0, 512, 0), EIO)
    assert.equal(await disk.readSparse(0, 512, 0), EIO)
    assert.equal(await disk.write(buffer, 0, 512, 0, false), ENOSPC)
    assert.equal(await disk.zero(0, 512, 0, false), ENOSPC)
  })

  test('that brings too few bytes is EIO, never invented zeroes', async () => {
    const disk = storageBackend({ size: 4096, read: async () => new Uint8Array(511) })
    assert.equal(await disk.read(buffer, 0, 512, 0), EIO)
  })

  test('that cannot sync has failed a sync, also in the second half of a durable write', async () => {
    const disk = storageBackend({ ...(await inMemory(4096)), flush: broken })
    assert.ok(isSyncFailure(await disk.flush()))
    assert.ok(isSyncFailure(await disk.write(buffer, 0, 512, 0, true)))
    assert.ok(isSyncFailure(await disk.trim(0, 512, true)))
    assert.equal(await disk.write(buffer, 0, 512, 0, false), DONE)
  })

  test('without write is read-only; without discard no zeroing is fast', async () => {
    const { read } = await inMemory(4096)
    const disk = storageBackend({ size: 4096, read })
    assert.equal(disk.can.write, false)
    assert.notEqual(await disk.write(buffer, 0, 512, 0, false), DONE)
    assert.equal(await disk.zero(0, 512, ZERO_FAST, false), NOT_FAST)
  })
})
