// The file systems under the exports of one thread, each once, and the one that nobody knows.
import { type BackingShare, backingBlock, takePart } from '../observe/backing-block.js'
import { Backing } from './backing.js'

function ownBlock(): Pick<BackingShare, 'block' | 'at'> {
  const block = backingBlock()
  return { block, at: takePart(block) }
}

/** For images of which nobody knows what they take: there is always enough. */
export const UNKNOWN_BACKING = new Backing(ownBlock(), Number.POSITIVE_INFINITY)

/** The file systems of a thread, each once. */
export class Backings {
  readonly #byDevice = new Map<string, Backing>()

  of(share: BackingShare): Backing {
    const known = this.#byDevice.get(share.device)
    if (known !== undefined) return known
    const backing = new Backing(share)
    this.#byDevice.set(share.device, backing)
    return backing
  }
}
