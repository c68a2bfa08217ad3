// Images in sparse files: the promises of every backend, and what only files have: locks, truncation, other owners.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  ftruncateSync,
  openSync,
  renameSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { DETACHED, DONE, EIO, OpenError, openBackend } from '../../backends/index.js'
import { temporaryFolder } from '../support/candor.js'
import { conformance, read, write } from './conformance.js'

const folder = temporaryFolder()
after(() => folder.remove())
let images = 0

function newImage(size: number): string {
  const path = join(folder.path, `${images++}.img`)
  ftruncateSync(openSync(path, 'w'), size)
  return path
}

function open(path: string, readOnly = false) {
  return openBackend('sparse-file', { path, readOnly })
}

conformance('sparse file', (size) => open(newImage(size)))

describe('an image in a file', () => {
  test('is made sparse where it is missing, with its size, and only when that is asked for', async () => {
    const path = join(folder.path, 'made.img')
    await assert.rejects(open(path), OpenError)
    const disk = await openBackend('sparse-file', { path, readOnly: false, create: 1 << 30 })
    await disk.close()
    const { size, blocks } = statSync(path)
    assert.deepEqual([size, blocks], [1 << 30, 0])
  })

  test('trim gives its space back, and zeroing without a hole keeps it', async () => {
    const path = newImage(1 << 20)
    const disk = await open(path)
    await write(disk, new Uint8Array(1 << 20).fill(1), 0)
    await disk.flush()
    const full = statSync(path).blocks
    assert.equal(await disk.zero(0, 1 << 19, 0, true), DONE)
    assert.equal(statSync(path).blocks, full)
    assert.equal(await disk.trim(0, 1 << 19, true), DONE)
    assert.ok(statSync(path).blocks <= full / 2 + 16)
    await disk.close()
  })

  test('data that somebody truncated away is EIO, never zeroes, and a look tells how much is left', async () => {
    const path = newImage(1 << 20)
    const disk = await open(path)
    await write(disk, new Uint8Array(1 << 20).fill(1), 0)
    truncateSync(path, 500_000)
    const target = new Uint8Array(4096)
    assert.notEqual(disk.readNow(target, 0, 4096, 600_000), DONE)
    assert.equal(await disk.read(target, 0, 4096, 600_000), EIO)
    assert.equal(await disk.read(target, 0, 4096, 499_000), EIO)
    assert.deepEqual(await read(disk, 495_000, 4096), new Uint8Array(4096).fill(1))
    assert.deepEqual(disk.look(), { present: 500_000, unlinked: false })
    await disk.close()
  })

  test('a flush tells when the path has come to lead elsewhere', async () => {
    const moved = newImage(4096)
    const disk = await open(moved)
    assert.equal(await disk.flush(), DONE)
    renameSync(moved, `${moved}.away`)
    assert.equal(await disk.flush(), DETACHED)
    writeFileSync(moved, new Uint8Array(4096))
    assert.equal(await disk.flush(), DETACHED)
    unlinkSync(`${moved}.away`)
    assert.equal(disk.look().unlinked, true)
    await disk.close()
  })

  test('a symbolic link to the image is followed, and does not count as leading elsewhere', async () => {
    const link = join(folder.path, 'link.img')
    symlinkSync(newImage(4096), link)
    const disk = await open(link)
    assert.equal(await disk.flush(), DONE)
    await disk.close()
  })

  test('the warning names the tail that no 512-byte sector covers', async () => {
    const disk = await open(newImage(1000))
    assert.match(disk.warnings.join(), /no multiple of 512/)
    await disk.close()
  })
})

describe('the lock on an image', () => {
  test('admits one writer or many readers', async () => {
    const path = newImage(4096)
    const reader = await open(path, true)
    const another = await open(path, true)
    await assert.rejects(open(path), /in use by another program/)
    await reader.close()
    await another.close()
    const writer = await open(path)
    await assert.rejects(open(path, true), /in use by another program/)
    await writer.close()
  })

  test('waits for a predecessor that is just ending', async () => {
    const path = newImage(4096)
    const holder = spawn('flock', ['-x', path, '-c', 'echo held; sleep 1'], { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(holder.stdout, 'data')
    const disk = await open(path)
    await disk.close()
  })
})

describe('what cannot be opened', () => {
  const cases: readonly (readonly [string, () => string, RegExp])[] = [
    ['a missing image', () => join(folder.path, 'none.img'), /there is no image at .*none\.img.*--create/],
    ['a directory', () => folder.path, /is a directory.*name the file/],
    ['a device that is no disk', () => '/dev/null', /neither a file nor a block device/],
    ['a path through a file', () => join(newImage(1), 'x'), /not a directory/],
  ]
  for (const [what, path, sentence] of cases) {
    test(`${what} is refused in a sentence that names it`, async () => {
      await assert.rejects(open(path()), sentence)
    })
  }
})
