// Whole pages of an image on their way to a socket, without a copy. Law: they are taken where nothing but memory is waited for,
// or from a file system whose word for that nobody but reclaim can take back in the next microseconds.
import { pagePipe } from '../native/page-pipe.js'
import { type Outcome, WOULD_BLOCK } from '../outcome.js'
import type { FileSystemTraits } from './file-system.js'
import type { HeldImage } from './held-image.js'

export class Pages {
  readonly #image: HeldImage
  readonly #splices: FileSystemTraits['splices']

  constructor(image: HeldImage, splices: FileSystemTraits['splices']) {
    this.#image = image
    this.#splices = splices
  }

  /** Puts the range into the thread's pipe, or WOULD_BLOCK. */
  take(length: number, offset: number): Outcome {
    const { fd, inKernel } = this.#image
    const waitsForOthers = this.#splices === 'alone' && inKernel > 0
    if (this.#splices === undefined || waitsForOthers || fd < 0) return WOULD_BLOCK
    return pagePipe.pagesIn(fd, offset, length)
  }
}
