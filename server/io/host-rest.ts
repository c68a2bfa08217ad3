// Whether a thread's exports are at rest, or on their way there, and what was taken out of service for it. Law: what was
// taken out is served here again, unless another process has it: it is known here, whoever hears of it.
import { closeSync } from 'node:fs'
import type { MovedConnection } from '../nbd/moved.js'
import { type Freezable, type FrozenHost, freeze } from './freezing.js'

export class HostRest {
  readonly #takenOut: MovedConnection[] = []
  /** The freeze that is in force; another process's, before this one has begun, is 0. */
  #wanted: number | undefined
  #freezes = 0
  /** What is being carried out. */
  #acts = 0

  /** From `begin` or `freeze` until `end`. */
  get isWanted(): boolean {
    return this.#wanted !== undefined
  }

  /** Nothing comes to rest before it is done. */
  async during<Result>(act: () => Promise<Result>): Promise<Result> {
    this.#acts += 1
    try {
      return await act()
    } finally {
      this.#acts -= 1
    }
  }

  /** Nothing has begun here, and nothing is to begin yet. */
  begin(): void {
    this.#wanted = 0
  }

  async freeze(host: Pick<Freezable, 'opened' | 'connections'>, timeoutMs: number): Promise<FrozenHost> {
    const own = ++this.#freezes
    this.#wanted = own
    const [isActing, isWanted] = [() => this.#acts > 0, () => this.#wanted === own]
    return freeze({ ...host, takenOut: this.#takenOut, isActing, isWanted }, timeoutMs)
  }

  /** Everything goes on here: what was taken out is the caller's. */
  end(): MovedConnection[] {
    this.#wanted = undefined
    return this.#takenOut.splice(0)
  }

  /** Everything goes on elsewhere. */
  letGo(): void {
    for (const { fd } of this.#takenOut.splice(0)) closeSync(fd)
  }
}
