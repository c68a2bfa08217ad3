// The time in which the image is let go of, so that its file system can be unmounted and mounted again. Law: what needs
// storage waits meanwhile and is answered afterwards; only an operator's word begins and ends it.
import { type Backend, DONE, MOVED, type Outcome, SHUT_DOWN } from '../../backends/index.js'
import type { Durability } from './durability.js'
import { WaitingRoom } from './waiting-room.js'

export class Recess {
  readonly #storage: Backend
  readonly #durability: Durability
  readonly #changed: (since: number | undefined) => void
  readonly #room = new WaitingRoom<Outcome>()
  #since: number | undefined
  #shutDown = false
  #frozen = false
  #last: Promise<unknown> = Promise.resolve()

  /** `changed` is told when it began, in ms since the epoch, and undefined when it has ended. */
  constructor(storage: Backend, durability: Durability, changed: (since: number | undefined) => void) {
    this.#storage = storage
    this.#durability = durability
    this.#changed = changed
  }

  /** ms since the epoch; undefined while the image is held. */
  get since(): number | undefined {
    return this.#since
  }

  get active(): boolean {
    return this.#since !== undefined
  }

  /** Resolves with DONE when storage can be asked again, else with what is to be answered. */
  wait(wanted: () => boolean): Promise<Outcome> {
    if (this.#frozen) return Promise.resolve(MOVED)
    return this.#shutDown || !wanted() ? Promise.resolve(SHUT_DOWN) : this.#room.enter(wanted)
  }

  /** The same, at once where the image is held. */
  waitIfActive(wanted: () => boolean): Promise<Outcome> {
    return this.active ? this.wait(wanted) : Promise.resolve(DONE)
  }

  /** Ends all waits with MOVED, those to come included, until it is told otherwise. */
  freeze(frozen: boolean): void {
    this.#frozen = frozen
    if (frozen) this.#room.wakeAll(MOVED)
  }

  /** It began in an earlier process, whose image this is. */
  goOn(since: number): void {
    this.#set(since)
  }

  /** Ends the wait of requests whose client has gone. */
  dropUnwanted(): void {
    this.#room.wakeUnwanted(SHUT_DOWN)
  }

  /** Answers those that wait with ESHUTDOWN, and lets none wait any more. */
  shutDown(): void {
    this.#shutDown = true
    this.#room.wakeAll(SHUT_DOWN)
  }

  /** Syncs and lets go. Whether it did is told by `active`; the outcome is that of the sync, or why it did not. */
  begin(): Promise<Outcome> {
    return this.#alone(async () => {
      if (this.active) return DONE
      this.#set(Date.now())
      const outcome = await this.#durability.release()
      this.#endUnlessReleased()
      return outcome
    })
  }

  /**
   * Takes the image up again where that is needed, and syncs: DONE ends the degraded state. @throws OpenError when it
   * cannot be taken up
   */
  end(): Promise<Outcome> {
    const durability = this.#durability
    const { epoch } = durability
    return this.#alone(async () => {
      const lost = await this.#storage.reopen()
      // What the change of mounts loses is what the operator spoke of; what has failed since then is not.
      const isAnswered = durability.epoch === epoch
      if (lost !== DONE) durability.judge(lost)
      try {
        return await durability.resume(isAnswered ? durability.epoch : epoch)
      } finally {
        this.#endUnlessReleased()
      }
    })
  }

  /** One operator's word at a time. */
  #alone(act: () => Promise<Outcome>): Promise<Outcome> {
    const done = this.#last.then(act)
    this.#last = done.catch(() => undefined)
    return done
  }

  #set(since: number | undefined): void {
    this.#since = since
    this.#changed(since)
  }

  #endUnlessReleased(): void {
    if (this.#storage.released || !this.active) return
    this.#set(undefined)
    this.#room.wakeAll(DONE)
  }
}
