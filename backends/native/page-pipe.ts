// The typed door to the pages of the page cache on their way to a socket without a copy: one range at a time in each thread,
// from `pagesIn` to its end in the same turn.
import { fileIo } from './file-io.js'

export interface PagePipe {
  /**
   * splice(2) of a range that is wholly in the page cache, into the thread's pipe: 0, or WOULD_BLOCK where it is not, or cannot
   * be asked; perhaps with STALLED. `length` is not 0.
   */
  pagesIn(fd: number, offset: number, length: number): number
  /** splice(2) of so much from the pipe to a socket: bytes taken, or minus errno. */
  pagesOut(socket: number, length: number): number
  /** read(2) of the last `length` bytes in the pipe to bytes[start …]. */
  pagesTake(bytes: Uint8Array, start: number, length: number): void
  /** The pipe is empty. */
  pagesDrop(): void
}

export const pagePipe: PagePipe = fileIo
