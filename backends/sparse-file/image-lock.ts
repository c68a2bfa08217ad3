// One writer for each image, by flock(2) on the very descriptor that does the I/O, and by the byte locks of QEMU's file
// driver: shared among readers, exclusive for a writer, gone with the process however it ends.
import { setTimeout as sleep } from 'node:timers/promises'

import { fileIo } from '../native/file-io.js'
import { flockSync } from './fs-ext-door.js'

/** How long a start waits for a predecessor that is just ending. */
export const LOCK_PATIENCE_MS = 3000
const LOCK_RETRY_MS = 50

function tryLock(fd: number, mode: 'shared' | 'exclusive'): boolean {
  try {
    flockSync(fd, mode === 'shared' ? 'shnb' : 'exnb')
    return true
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'EAGAIN' || error.code === 'EWOULDBLOCK')) {
      return false
    }
    throw error
  }
}

/** Takes the lock, with patience; false when somebody else keeps it. @throws what flock(2) says else */
export async function lockFile(
  fd: number,
  mode: 'shared' | 'exclusive',
  patienceMs = LOCK_PATIENCE_MS,
): Promise<boolean> {
  const deadline = performance.now() + patienceMs
  while (!tryLock(fd, mode)) {
    if (performance.now() >= deadline) return false
    await sleep(LOCK_RETRY_MS)
  }
  return true
}

// QEMU (block/file-posix.c): byte 100 + n says "I use permission n", byte 200 + n "nobody else may". The permissions:
const USES = 100
const DENIES = 200
const READ = 0
const WRITE = 1
const RESIZE = 3

/** What a writer and a reader use, and what they deny to others. */
const QEMU_RULES = {
  exclusive: { uses: [READ, WRITE, RESIZE], denies: [WRITE, RESIZE] },
  shared: { uses: [READ], denies: [WRITE, RESIZE] },
} as const

/**
 * Shows QEMU what the image is used for, and whether QEMU's own use leaves room for that: false when it does not. On
 * file systems without such locks there is nothing to show, and nothing to see.
 */
export function lockForQemu(fd: number, mode: 'shared' | 'exclusive'): boolean {
  const { uses, denies } = QEMU_RULES[mode]
  const conflicts = [...uses.map((permission) => DENIES + permission), ...denies.map((permission) => USES + permission)]
  if (conflicts.some((byte) => fileIo.byteLocked(fd, byte) === 1)) return false
  for (const byte of [
    ...uses.map((permission) => USES + permission),
    ...denies.map((permission) => DENIES + permission),
  ]) {
    fileIo.lockByte(fd, byte)
  }
  return true
}
