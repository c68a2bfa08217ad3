// Bytes of payload that the connections of a server hold together. Law: whoever needs more than is left holds nothing for
// it and waits in a queue of arrival, so nobody waits for a part of another's.

/** Requests up to this size pass whatever is held: a guest's ordinary work is not stopped by others' large copies. */
export const SMALL_BYTES = 64 << 10
/** Whoever holds nothing may have so much: clients that take none of their replies stop nobody else. */
export const ENTITLED_BYTES = 1 << 20
/** Other threads give back without a word: while somebody waits here it is looked for. */
const LOOK_MS = 10
const KIB = 1 << 10

/** Called when a request that had to wait may be tried again. */
export type Wake = () => void

const HELD_AT = 0
const WAITING_AT = 1

/** KiB that all threads of a server hold, and connections that wait, in memory that they share. */
export type PayloadHeld = Int32Array

export function payloadHeld(): PayloadHeld {
  return new Int32Array(new SharedArrayBuffer(2 * Int32Array.BYTES_PER_ELEMENT))
}

const servers = new WeakMap<object, PayloadHeld>()

/** What all threads of one server hold, which is known by its limits. */
export function heldUnder(limits: object): PayloadHeld {
  const held = servers.get(limits) ?? payloadHeld()
  servers.set(limits, held)
  return held
}

export class PayloadBudget {
  readonly #bytesMax: number
  readonly #held: PayloadHeld
  readonly #waiting = new Set<Wake>()
  #timer: NodeJS.Timeout | undefined

  constructor(bytesMax: number, held = payloadHeld()) {
    this.#bytesMax = bytesMax
    this.#held = held
  }

  /** Bytes held now, by all threads. */
  get held(): number {
    return Atomics.load(this.#held, HELD_AT) * KIB
  }

  /** Connections of this thread that wait. */
  get waiting(): number {
    return this.#waiting.size
  }

  /** Connections wait, in whichever thread. */
  get isWaitedFor(): boolean {
    return Atomics.load(this.#held, WAITING_AT) > 0
  }

  /** Whether one that holds `own` bytes may take on `bytes` more now; if not, `wake` is called when it may be its turn. */
  admits(bytes: number, own: number, wake: Wake): boolean {
    if (this.#passes(bytes, own, wake)) {
      this.withdraw(wake)
      return true
    }
    if (!this.#waiting.has(wake)) Atomics.add(this.#held, WAITING_AT, 1)
    this.#waiting.add(wake)
    this.#timer ??= setInterval(() => this.#wakeFirst(), LOOK_MS)
    return false
  }

  #passes(bytes: number, own: number, wake: Wake): boolean {
    if (bytes <= SMALL_BYTES || (own === 0 && bytes <= ENTITLED_BYTES)) return true
    const [first = wake] = this.#waiting
    const { held } = this
    // A request larger than the whole budget goes alone.
    return first === wake && (held === 0 || held + bytes <= this.#bytesMax)
  }

  /** Waits no longer: it has its turn, its connection has gone, or is held up by something else. */
  withdraw(wake: Wake): void {
    if (!this.#waiting.delete(wake)) return
    Atomics.sub(this.#held, WAITING_AT, 1)
    if (this.#waiting.size > 0) return this.#wakeFirst()
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  take(bytes: number): void {
    Atomics.add(this.#held, HELD_AT, Math.ceil(bytes / KIB))
  }

  give(bytes: number): void {
    Atomics.sub(this.#held, HELD_AT, Math.ceil(bytes / KIB))
    if (this.#waiting.size > 0) this.#wakeFirst()
  }

  #wakeFirst(): void {
    const [first] = this.#waiting
    first?.()
  }
}
