// One writer for each image, by flock(2) on the very descriptor that does the I/O: shared among readers, exclusive for
// a writer, gone with the process however it ends.
import { setTimeout as sleep } from 'node:timers/promises'
import { flockSync } from 'fs-ext'

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
