// The memory of a guest. Law under test: nothing that the other side does to its file ends the process, and what is taken
// out is detached, when nobody is in it any more.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, ftruncateSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { errnoName, MEMORY_REGIONS_MAX, memoryFile, VhostMemory } from '../../backends/index.js'
import { temporaryFolder } from '../support/candor.js'
import { GUEST_BASE, GuestMemory, shrinkableFile, USER_BASE } from '../support/vhost-guest.js'

const MIB = 1 << 20
const SHRUNK = fileURLToPath(new URL('../support/vhost-shrunk.js', import.meta.url))
const folder = temporaryFolder()
after(() => folder.remove())

function mappings(): number {
  return readFileSync('/proc/self/maps', 'utf8').split('candor-in-flight').length - 1
}

describe("a guest's memory", () => {
  test('a window shows what the guest has in its memory, and the guest sees what is put there', () => {
    const guest = new GuestMemory(MIB)
    guest.write(4096, Buffer.from('from the guest'))
    const window = guest.memory.window(0)
    assert.equal(window?.length, MIB)
    assert.equal(Buffer.from(window?.subarray(4096, 4110) ?? []).toString(), 'from the guest')
    window?.set(Buffer.from('to the guest'), 8192)
    assert.equal(guest.read(8192, 12).toString(), 'to the guest')
    assert.equal(guest.memory.window(0), window)
    assert.equal(guest.memory.window(1), undefined)
    guest.close()
  })

  test('a region that begins anywhere in its file shows its own bytes', () => {
    const fd = memoryFile(4 * 4096)
    const memory = new VhostMemory()
    const at = 4096 + 512
    assert.equal(memory.add({ guestAddress: 0n, size: 5000n, userAddress: 0n, offset: BigInt(at), fd }), 0)
    memory.window(0)?.set(Buffer.from('here'))
    assert.equal(
      readFileSync(`/proc/self/fd/${fd}`)
        .subarray(at, at + 4)
        .toString(),
      'here',
    )
    assert.equal(memory.window(0)?.length, 5000)
    memory.close()
    closeSync(fd)
  })

  test('a region that is taken out is unmapped, and its window is empty', () => {
    const before = mappings()
    const guest = new GuestMemory(MIB)
    const window = guest.memory.window(0)
    assert.equal(mappings(), before + 1)
    assert.equal(guest.memory.remove(guest.region), 0)
    assert.equal(mappings(), before)
    assert.equal(window?.length, 0)
    assert.equal(guest.memory.window(0), undefined)
    assert.equal(errnoName(guest.memory.remove(guest.region)), 'ENOENT')
    assert.equal(guest.memory.add(guest.region), 0)
    assert.equal(guest.memory.window(0)?.length, MIB)
    guest.close()
    assert.equal(mappings(), before)
  })

  test('memory that nobody closes is unmapped with its thread', async () => {
    const before = mappings()
    const worker = new Worker(SHRUNK, { workerData: { leave: true } })
    await once(worker, 'message')
    assert.equal(mappings(), before + 1)
    await worker.terminate()
    assert.equal(mappings(), before)
  })

  test('regions that cannot be are refused, one for one', () => {
    const guest = new GuestMemory(MIB)
    const { memory, fd } = guest
    const size = BigInt(MIB)
    const far = { guestAddress: 0n, size, userAddress: 0n, offset: 0n, fd }
    const file = openSync(join(folder.path, 'on-disk'), 'w+')
    ftruncateSync(file, MIB)
    const refused = (region: Partial<typeof far>) => errnoName(memory.add({ ...far, ...region }))
    assert.equal(refused({ size: 0n }), 'EINVAL')
    assert.equal(refused({ guestAddress: 2n ** 64n - 4096n }), 'EINVAL')
    assert.equal(refused({ userAddress: 2n ** 64n - 4096n }), 'EINVAL')
    assert.equal(refused({ guestAddress: GUEST_BASE + size - 1n }), 'EINVAL')
    assert.equal(refused({ userAddress: USER_BASE - size + 1n }), 'EINVAL')
    assert.equal(refused({ offset: 1n }), 'ENXIO')
    assert.equal(refused({ size: size + 1n }), 'ENXIO')
    assert.equal(refused({ offset: 2n ** 64n - 1n }), 'ENXIO')
    assert.equal(refused({ fd: file }), 'EOPNOTSUPP')
    assert.equal(refused({ fd: openSync('/dev/zero', 'r+') }), 'EOPNOTSUPP')
    assert.equal(refused({ fd: 9999 }), 'EBADF')
    assert.equal(memory.add(far), 0)
    guest.close()
    closeSync(file)
  })

  test('as many regions as the bound says are taken, and one more is refused', () => {
    const fd = memoryFile(4096)
    const memory = new VhostMemory()
    const region = (index: number) => {
      const address = BigInt(index) * 4096n
      return { guestAddress: address, size: 4096n, userAddress: address, offset: 0n, fd }
    }
    for (let index = 0; index < MEMORY_REGIONS_MAX; index++) assert.equal(memory.add(region(index)), 0)
    assert.equal(errnoName(memory.add(region(MEMORY_REGIONS_MAX))), 'ENOSPC')
    assert.equal(memory.remove(region(7)), 0)
    assert.equal(memory.add(region(MEMORY_REGIONS_MAX)), 0)
    memory.close()
    closeSync(fd)
  })

  test('seventy sessions may have all their regions at once', () => {
    const fd = memoryFile(4096)
    const sessions = Array.from({ length: 70 }, () => new VhostMemory())
    for (const memory of sessions) {
      for (let index = 0; index < MEMORY_REGIONS_MAX; index++) {
        const address = BigInt(index) * 4096n
        const region = { guestAddress: address, size: 4096n, userAddress: address, offset: 0n, fd }
        assert.equal(memory.add(region), 0)
      }
    }
    for (const memory of sessions) memory.close()
    closeSync(fd)
  })
})

describe('memory that is cut off under us', () => {
  test('reads as zeroes, in JavaScript and in every thread, and is told', () => {
    const fd = shrinkableFile(MIB)
    const guest = new GuestMemory(MIB, 0, fd)
    const other = new GuestMemory(MIB)
    const window = guest.memory.window(0) ?? new Uint8Array()
    guest.write(0, Buffer.alloc(MIB, 7))
    other.write(0, Buffer.alloc(MIB, 9))
    ftruncateSync(fd, 4096)
    assert.equal(window[100], 7)
    assert.equal(guest.memory.lost, false)
    assert.equal(window[500_000], 0)
    assert.equal(guest.memory.lost, true)
    assert.equal(other.memory.lost, false)
    assert.equal(other.memory.window(0)?.[500_000], 9)
    guest.close()
    other.close()
  })

  test('a thread survives it as well, and so do the others', async () => {
    const worker = new Worker(SHRUNK, { workerData: { leave: false } })
    const [[answer], ended] = await Promise.all([once(worker, 'message'), once(worker, 'exit')])
    assert.deepEqual(answer, { seen: 0, lost: true })
    assert.deepEqual(ended, [0])
  })

  const sanitized = process.env['ASAN_OPTIONS'] !== undefined && 'AddressSanitizer has its own idea of a bus error'
  test('a bus error that is not ours ends the process as it always did', { skip: sanitized }, () => {
    const { signal } = spawnSync(process.execPath, [SHRUNK, 'foreign'])
    assert.equal(signal, 'SIGBUS')
  })
})
