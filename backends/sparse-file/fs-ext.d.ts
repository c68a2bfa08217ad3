// The part of fs-ext that candor uses; the package ships no types (its README is the source).
declare module 'fs-ext' {
  /** flock(2) without waiting in the event loop's thread. Flags: 'sh', 'ex', 'un', with 'nb' appended for LOCK_NB. */
  export function flockSync(fd: number, flags: 'sh' | 'ex' | 'un' | 'shnb' | 'exnb'): void
  /** lseek(2). `whence`: 0 set, 1 current, 2 end, 3 SEEK_DATA, 4 SEEK_HOLE. Returns the position in bytes. */
  export function seekSync(fd: number, offset: number, whence: 0 | 1 | 2 | 3 | 4): number
}
