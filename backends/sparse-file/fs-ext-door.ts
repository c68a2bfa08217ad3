// fs-ext, loaded when it is first needed: it keeps its state for one thread alone and would crash the process in a second
// one. Law: only the main thread, which opens and locks the images, may call these.
import { createRequire } from 'node:module'
import { isMainThread } from 'node:worker_threads'

type FsExt = typeof import('fs-ext')

let loaded: FsExt | undefined

function fsExt(): FsExt {
  if (!isMainThread) throw new TypeError('fs-ext is at home in the main thread: open images there')
  loaded ??= createRequire(import.meta.url)('fs-ext') as FsExt
  return loaded
}

/** flock(2). @throws what it says */
export function flockSync(fd: number, flags: 'shnb' | 'exnb'): void {
  fsExt().flockSync(fd, flags)
}

/** lseek(2): the place in bytes. @throws what it says */
export function seekSync(fd: number, offset: number, whence: 0 | 1 | 2): number {
  return fsExt().seekSync(fd, offset, whence)
}
