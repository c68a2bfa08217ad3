// How much of the image is there: a look at the file under our feet before each batch that writes. Law: what somebody cut
// off is lost, and never comes back as zeroes without a word.
import type { Backend } from '../../backends/index.js'
import type { Durability } from './durability.js'

export class Presence {
  readonly #backend: () => Backend
  readonly #durability: Durability
  /** Bytes of the image that were there at the last look. */
  present: number

  constructor(backend: () => Backend, durability: Durability) {
    this.#backend = backend
    this.#durability = durability
    this.present = backend().size
  }

  /**
   * A look at the image, before each batch that writes and before each FLUSH. A file that became shorter lost durable
   * data: without this the next write past its end would bring it back with zeroes.
   */
  inspect(): void {
    const { present, unlinked } = this.#backend().look()
    if (present < this.present) this.#shrunk(present)
    this.present = present
    if (unlinked) this.#durability.detach('the image was removed: its last link is gone')
  }

  #shrunk(present: number): void {
    const lost = this.present - present
    const reason = `the image was truncated to ${present} bytes under our feet: ${lost} are missing`
    this.#durability.missing(present, this.present, reason)
  }

  /** A write ended at `end`, and may have made a truncated file longer: what is cut off from here on is lost anew. */
  reached(end: number): void {
    if (end > this.present) this.present = end
  }
}
