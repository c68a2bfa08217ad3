// The two ways in which I/O waits for storage: io_uring and threads. Both keep the same promises, also to a thread that
// is ended while the kernel still writes into its buffers.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { closeSync, ftruncateSync, openSync, readFileSync, readSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Worker } from 'node:worker_threads'
import { type Backend, chooseIoEngine, DONE, EIO, IO_ENGINES, openBackend } from '../../backends/index.js'
import { IO_WRITE } from '../../backends/native/file-io.js'
import { IoPool } from '../../backends/native/io-pool.js'
import { runCandor, startCandor, temporaryFolder } from '../support/candor.js'
import { cool, isStamped, PAGE_BYTES, pagesFor, stampedImage } from '../support/cold-images.js'
import type { IoWorkerData } from '../support/io-worker.js'
import { needs } from '../support/requirements.js'
import { conformance } from './conformance.js'

const MIB = 1 << 20
const WORKER = new URL('../support/io-worker.js', import.meta.url)
const folder = temporaryFolder()
after(() => folder.remove())
const image = join(folder.path, 'stamped.img')
stampedImage(image, 16 * MIB)
let images = 0

function newImage(size: number): string {
  const path = join(folder.path, `${images++}.img`)
  ftruncateSync(openSync(path, 'w'), size)
  return path
}

/** Brings every other stretch of 16 pages into the page cache: of reads at once, some wait and some do not. */
function warmHalf(path: string, bytes: number): void {
  const fd = openSync(path, 'r')
  const data = new Uint8Array(16 * PAGE_BYTES)
  for (let at = 0; at < bytes; at += 2 * data.length) readSync(fd, data, 0, data.length, at)
  closeSync(fd)
}

/** Reads every page once, all at once, in an order that no read-ahead guesses; returns how many were right. */
async function readAll(disk: Backend): Promise<number> {
  const pages = disk.size / PAGE_BYTES
  const reads = Array.from({ length: pages }, async (_, index) => {
    const offset = ((index * 1021) % pages) * PAGE_BYTES
    const data = new Uint8Array(PAGE_BYTES + 32)
    const outcome = await disk.read(data, 16, PAGE_BYTES, offset)
    return outcome === DONE && isStamped(data.subarray(16, 16 + PAGE_BYTES), offset)
  })
  return (await Promise.all(reads)).filter((right) => right).length
}

for (const engine of IO_ENGINES) {
  const { reason } = chooseIoEngine(engine === 'uring' ? 'auto' : engine)
  const skip = reason === undefined ? false : `io_uring cannot be had: ${reason}`
  if (skip === false) conformance(`sparse file, engine ${engine}`, (size) => open(newImage(size)))
  const open = (path: string) => openBackend('sparse-file', { path, readOnly: false, engine })

  describe(`engine ${engine}`, { skip }, () => {
    test('thousands of reads that wait for storage, all at once, come back each with its own data', async () => {
      const disk = await open(image)
      for (let round = 0; round < 6; round++) {
        cool(image)
        if (round % 2 === 1) warmHalf(image, disk.size)
        assert.equal(await readAll(disk), disk.size / PAGE_BYTES)
      }
      await disk.close()
    })

    test('one read at a time is never left waiting for a second one', async () => {
      const disk = await open(image)
      cool(image)
      const data = new Uint8Array(PAGE_BYTES)
      for (let offset = 0; offset < disk.size; offset += 64 * PAGE_BYTES) {
        assert.equal(await disk.read(data, 0, PAGE_BYTES, offset), DONE)
        assert.ok(isStamped(data, offset))
      }
      await disk.close()
    })

    test('a read across the end of a truncated file is EIO, whole or in part, and reads beside it are not', async () => {
      const path = join(folder.path, `cut-${engine}.img`)
      stampedImage(path, MIB)
      const disk = await open(path)
      truncateSync(path, MIB / 2 + 100)
      cool(path)
      const outcomes = [MIB / 2 - PAGE_BYTES, MIB / 2, MIB / 2 + PAGE_BYTES].map((offset) =>
        disk.read(new Uint8Array(PAGE_BYTES), 0, PAGE_BYTES, offset),
      )
      assert.deepEqual(await Promise.all(outcomes), [DONE, EIO, EIO])
      await disk.close()
    })

    test('buffers that nobody but the pool knows any more outlive garbage collection', async () => {
      setFlagsFromString('--expose-gc')
      const collect = runInNewContext('gc') as () => void
      const path = newImage(MIB)
      const fd = openSync(path, 'r+')
      const pool = new IoPool(4, engine)
      // So few that none is given away before the turn ends: all are still to be done when their buffers are collected.
      const atOnce = 16
      for (let start = 0; start < MIB; start += atOnce * PAGE_BYTES) {
        const writes = Array.from({ length: atOnce }, (_, index) => {
          const offset = start + index * PAGE_BYTES
          return pool.run(IO_WRITE, 0, fd, pagesFor(offset, PAGE_BYTES), 0, PAGE_BYTES, offset)
        })
        collect()
        // What was given back is taken, and spoilt.
        for (let spoilt = 0; spoilt < 500; spoilt++) Buffer.allocUnsafeSlow(PAGE_BYTES).fill(0xee)
        assert.ok((await Promise.all(writes)).every((outcome) => outcome === DONE))
      }
      closeSync(fd)
      assert.ok(isStamped(readFileSync(path), 0))
    })

    test('threads that are ended in the middle of their I/O take nothing down with them', async () => {
      const paths = [0, 1].map((index) => join(folder.path, `busy-${engine}-${index}.img`))
      for (const path of paths) stampedImage(path, 16 * MIB)
      for (let round = 0; round < 8; round++) {
        const workers = paths.map((path) => new Worker(WORKER, { workerData: { path, engine } satisfies IoWorkerData }))
        const errors: unknown[] = []
        for (const worker of workers) worker.on('error', (error) => errors.push(error))
        await Promise.all(workers.map((worker) => once(worker, 'message')))
        for (let turn = 0; turn < round; turn++) await new Promise((resolve) => setImmediate(resolve))
        await Promise.all(workers.map((worker) => worker.terminate()))
        assert.deepEqual(errors, [])
      }
    })

    test('a server says in log and metrics that this is what it uses', async () => {
      const candor = await startCandor(['serve', newImage(MIB), '--listen', 'tcp:127.0.0.1:0', '--io-engine', engine])
      assert.equal((await candor.metrics()).get(`candor_io_engine_info{engine="${engine}"}`), 1)
      await candor.stop()
      assert.match(candor.stderr(), new RegExp(`"engine":"${engine}"`))
    })
  })
}

/** A kernel or a seccomp filter that forbids io_uring, as a program under strace sees it. */
function without(errno: string): string[] {
  const inject = ['-e', 'trace=io_uring_setup', '-e', `inject=io_uring_setup:error=${errno}`]
  return ['strace', '-D', '-f', '-qq', '-o', '/dev/null', ...inject]
}

describe('where io_uring is forbidden', { skip: needs('strace') }, () => {
  for (const errno of ['EPERM', 'ENOSYS']) {
    test(`${errno}: auto takes threads and says why`, async () => {
      const wrapper = without(errno)
      const args = ['serve', newImage(MIB), '--listen', 'tcp:127.0.0.1:0', '--io-engine', 'auto']
      const candor = await startCandor(args, { wrapper })
      assert.equal((await candor.metrics()).get('candor_io_engine_info{engine="pool"}'), 1)
      await candor.stop()
      assert.match(candor.stderr(), new RegExp(`"engine":"pool","reason":"[^"]*\\(${errno}\\)"`))
    })
  }

  test('uring insists, and the refusal is one sentence with the reason', async () => {
    const args = ['serve', newImage(MIB), '--listen', 'tcp:127.0.0.1:0', '--http', 'off', '--state-dir', 'none']
    await assert.rejects(startCandor([...args, '--io-engine', 'uring'], { wrapper: without('EPERM') }), (error) => {
      assert.match(
        String(error),
        /ended with 1 before it was ready:\ncandor: --io-engine uring cannot be had: [^\n]*\n$/,
      )
      return true
    })
  })

  test('an engine that does not exist is refused', async () => {
    const { code, stderr } = await runCandor(['serve', newImage(MIB), '--io-engine', 'magic'])
    assert.equal(code, 1)
    assert.match(stderr, /io-engine/)
  })
})
