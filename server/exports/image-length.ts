// How long the image is: a look at the file under our feet before each batch that writes, and its growth. Law: what
// somebody cut off is lost, and never comes back as zeroes without a word; what an operator cuts off is gone on purpose.
import { type Backend, DONE, type Outcome } from '../../backends/index.js'
import type { Durability } from './durability.js'
import type { DurableRecord } from './durable-record.js'
import type { Room } from './room.js'

export interface ImageLengthOptions {
  readonly storage: Backend
  readonly durability: Durability
  readonly record: DurableRecord | undefined
  readonly room: Room
}

export class ImageLength {
  readonly #options: ImageLengthOptions
  /** Bytes of the image that were there at the last look. */
  present: number
  #changing = false

  constructor(options: ImageLengthOptions) {
    this.#options = options
    this.present = options.storage.size
  }

  /**
   * A look at the image, before each batch that writes and before each FLUSH. A file that became shorter lost durable
   * data: without this the next write past its end would bring it back with zeroes.
   */
  inspect(): void {
    const { present, unlinked } = this.#options.storage.look()
    if (present < this.present) this.#shrunk(present)
    this.present = present
    if (unlinked) this.#options.durability.detach('the image was removed: its last link is gone')
  }

  #shrunk(present: number): void {
    const lost = this.present - present
    const reason = `the image was truncated to ${present} bytes under our feet: ${lost} are missing`
    this.#options.durability.missing(present, this.present, reason)
  }

  /** Somebody made the image longer, and the export has not followed yet. */
  get grown(): boolean {
    const { storage } = this.#options
    return !this.#changing && storage.measure() > storage.size
  }

  /** Takes over what somebody made longer. */
  follow(): Promise<Outcome> {
    return this.resize(this.#options.storage.measure())
  }

  /** Gives the image another length, unless it has that already. Connections keep the one that they were told. */
  async resize(size: number): Promise<Outcome> {
    const { storage, record, durability, room } = this.#options
    const grows = size > storage.size
    this.#changing = true
    try {
      const noted = grows ? await record?.resized(size) : DONE
      if (noted !== undefined && noted !== DONE) return noted
      if (!grows) this.present = Math.min(this.present, size)
      const outcome = await storage.resize(size)
      room.size = storage.size
      if (outcome !== DONE || grows) return outcome
      // What was suspect behind the end is gone with it.
      durability.rewritten(size, Number.MAX_SAFE_INTEGER - size)
      return (await record?.resized(size)) ?? DONE
    } finally {
      this.#changing = false
    }
  }

  /** A write ended at `end`, and may have made a truncated file longer: what is cut off from here on is lost anew. */
  reached(end: number): void {
    if (end > this.present) this.present = end
  }
}
