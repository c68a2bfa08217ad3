// How many requests of an export storage is given at once. Law: what the kernel has it does not give back before it answers;
// so the rest waits on this side of it, where it goes with its client, or to another process.
import { DONE, MOVED, type Outcome, RESERVED } from '../../backends/index.js'
import { WaitingRoom } from './waiting-room.js'

/** Far more than storage takes in at once, and little enough to be kept by one that hangs. */
export const STORAGE_DEPTH_MAX = 512

export class StorageGate {
  readonly #room = new WaitingRoom<Outcome>()
  readonly #recess: (wanted: () => boolean) => Promise<Outcome>
  #inside = 0
  #frozen = false

  /** `recess` waits for an operator, if the image was let go of: whoever waited here may have been overtaken by that. */
  constructor(recess: (wanted: () => boolean) => Promise<Outcome>) {
    this.#recess = recess
  }

  /** Requests that storage has. */
  get inside(): number {
    return this.#inside
  }

  /** What storage says; MOVED when the export is frozen before it was asked, RESERVED when nobody wants to know any more. */
  async pass<Told>(ask: () => Promise<Told>, wanted: () => boolean): Promise<Told | Outcome> {
    const waits = this.#inside >= STORAGE_DEPTH_MAX
    const told = waits ? await this.#wait(wanted) : this.#enter()
    if (told !== DONE) return told
    try {
      const overtaken = waits ? await this.#recess(wanted) : DONE
      if (overtaken !== DONE) return wanted() ? overtaken : RESERVED
      return await ask()
    } finally {
      this.#leave()
    }
  }

  #enter(): Outcome {
    this.#inside += 1
    return DONE
  }

  #wait(wanted: () => boolean): Promise<Outcome> {
    if (this.#frozen) return Promise.resolve(MOVED)
    return wanted() ? this.#room.enter(wanted) : Promise.resolve(RESERVED)
  }

  /** The place goes to whoever has waited longest. */
  #leave(): void {
    if (this.#room.size > 0) this.#room.wakeFirst(DONE)
    else this.#inside -= 1
  }

  /** Ends all waits with MOVED, those to come included, until it is told otherwise. */
  freeze(frozen: boolean): void {
    this.#frozen = frozen
    if (frozen) this.#room.wakeAll(MOVED)
  }

  /** Ends the wait of requests whose client has gone. */
  dropUnwanted(): void {
    this.#room.wakeUnwanted(RESERVED)
  }
}
