// Whether it is worth a moment to wait for a client's next request in place. Law: nobody loses by it: only one who is alone
// in the thread, or beside others who were silent for a while and wait for nothing, is waited for, and who makes us wait in vain
// is soon not waited for any more, but for one try in so many.
import { storageHas } from './waiting.js'

/** Nanoseconds for the next request: with nothing to tell, and with answers that are held for it. */
const WAIT_NS = 20_000
export const HOLD_NS = 50_000
/** Vain waits in a row after which it is tried less often, and how often then. */
const VAIN_MAX = 8
const TRY_EACH = 64

/** Who asked nothing for so long is not thought of. */
const SILENT_MS = 10

/** Clients of this thread. */
let clients = 0
/** Whose requests came last, when that was, and since when nobody else's have. */
let last: Patience | undefined
let lastMs = 0
let alsoMs = 0

export class Patience {
  #vain = 0
  #skipped = 0

  constructor() {
    clients += 1
  }

  /** The client has gone. */
  end(): void {
    clients -= 1
    if (last === this) last = undefined
  }

  /** Its requests came, at `nowMs` of the monotonic clock. Whether those of somebody else had come since its former ones. */
  came(nowMs: number): boolean {
    const others = last !== this
    if (others) alsoMs = nowMs
    last = this
    lastMs = nowMs
    return others
  }

  /** Nobody else of this thread would lose by a wait. */
  get isAlone(): boolean {
    return clients === 1 || (last === this && lastMs - alsoMs >= SILENT_MS && !storageHas())
  }

  /** How long to wait now; 0 for not at all. */
  get waitNs(): number {
    if (!this.isAlone) return 0
    if (this.#vain < VAIN_MAX) return WAIT_NS
    this.#skipped = (this.#skipped + 1) % TRY_EACH
    return this.#skipped === 0 ? WAIT_NS : 0
  }

  /** A wait has ended; `inTime`: the next request came. */
  waited(inTime: boolean): void {
    this.#vain = inTime ? 0 : this.#vain + 1
  }
}
