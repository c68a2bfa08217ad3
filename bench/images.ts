// The images that are served: written, warmed, cooled and synced. All servers get images made by the same hand, and
// only one kind exists at a time.

import { randomBytes } from 'node:crypto'
import { type FileHandle, open, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { run } from './command.js'
import type { ImageKind } from './jobs.js'

const MIB = 1024 ** 2

/** Creates the image anew and leaves it synced and in the page cache. */
export async function createImage(path: string, kind: ImageKind, bytes: number): Promise<void> {
  const data = randomBytes(MIB)
  const step = kind === 'full' ? MIB : 2 * MIB
  await rm(path, { force: true })
  const file = await open(path, 'w')
  try {
    await file.truncate(bytes)
    for (let offset = 0; offset + MIB <= bytes; offset += step) {
      data.writeDoubleLE(offset, 0)
      await file.write(data, 0, MIB, offset)
    }
    await file.sync()
  } finally {
    await file.close()
  }
}

export async function withImage<T>(path: string, use: (file: FileHandle) => Promise<T>): Promise<T> {
  const file = await open(path, 'r')
  try {
    return await use(file)
  } finally {
    await file.close()
  }
}

/** Reads every page once, holes too: a hole's page is not in the cache either before it was read. */
export function warmImage(path: string): Promise<void> {
  return withImage(path, async (file) => {
    const buffer = Buffer.alloc(MIB)
    let offset = 0
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, MIB, offset)
      if (bytesRead === 0) return
      offset += bytesRead
    }
  })
}

/** Writes back what the last measurement left dirty, so that it does not slow the next one. */
export function syncImage(path: string): Promise<void> {
  return withImage(path, (file) => file.sync())
}

/** Empties the page cache of this image; resolves to false when it stays. */
export async function coolImage(path: string, dir: string): Promise<boolean> {
  await syncImage(path)
  // GNU dd with count=0 is posix_fadvise(POSIX_FADV_DONTNEED) over the whole file, and needs no privilege.
  const advised = await run('dd', [`if=${path}`, 'iflag=nocache', 'count=0'], dir)
  if (advised.ok && (await isCold(path, dir))) return true
  if (process.getuid?.() !== 0) return false
  try {
    await writeFile('/proc/sys/vm/drop_caches', '1')
  } catch {
    // A container's /proc/sys is read-only, even for root.
    return false
  }
  return isCold(path, dir)
}

async function isCold(path: string, dir: string): Promise<boolean> {
  const counted = await run('fincore', ['--bytes', '--noheadings', '--output', 'RES,SIZE', path], dir)
  const [resident, size] = counted.stdout.trim().split(/\s+/).map(Number)
  if (!counted.ok || resident === undefined || size === undefined) return counted.missing
  return resident < size / 100
}

export function imagePath(dir: string, owner: string): string {
  return join(dir, `${owner}.img`)
}
