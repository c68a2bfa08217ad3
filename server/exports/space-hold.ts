// What happens to a change for which the host has no space: told at once, or held until there is some. Law: a held
// request is answered once all the same: by success, by ENOSPC at its time-out, or because server or client leave.
import { EDQUOT, ENOSPC, errnoOf, isSyncFailure, type Outcome, SHUT_DOWN, WOULD_BLOCK } from '../../backends/index.js'

/** `report`: ENOSPC at once. `hold`: kept for `timeoutMs`, and tried again as space may have appeared. */
export type SpacePolicy = { readonly kind: 'report' } | { readonly kind: 'hold'; readonly timeoutMs: number }

/**
 * How often one of the held requests is tried again: the only sign of space that quotas give. Where the file system tells
 * what is free, Backing asks more often, and releases them.
 */
const RETRY_MS = 500

/** Why a wait ended. */
type Wake = 'retry' | 'fail' | 'shut-down'

/** A request that is held: who asked for what, and since when. */
export interface HeldRequest {
  /** ms since the epoch. */
  readonly since: number
  readonly client: string
  /** The spec's number. */
  readonly command: number
  readonly offset: number
  readonly length: number
}

export interface HoldEvents {
  /** The number of held requests changed; `since` is when the first of them was held, in ms since the epoch. */
  changed(held: number, since: number | undefined): void
}

/** A want of space that more space mends; what a failed sync lost for want of it is lost. */
export function isSpaceError(outcome: Outcome): boolean {
  if (outcome === WOULD_BLOCK || isSyncFailure(outcome)) return false
  const errno = errnoOf(outcome)
  return errno === ENOSPC || errno === EDQUOT
}

export class SpaceHold {
  readonly policy: SpacePolicy
  readonly #events: HoldEvents
  /** Who waits, with the question whether anybody still waits for them. */
  readonly #waiting = new Map<(wake: Wake) => void, () => boolean>()
  readonly #requests = new Set<HeldRequest>()
  #since: number | undefined
  #timer: NodeJS.Timeout | undefined
  #shutDown = false

  constructor(policy: SpacePolicy, events: HoldEvents) {
    this.policy = policy
    this.#events = events
  }

  /** Requests that are held now. */
  get held(): number {
    return this.#requests.size
  }

  /** They themselves, in the order in which they came to wait. */
  get requests(): Iterable<HeldRequest> {
    return this.#requests
  }

  /** When the first of them was held, in ms since the epoch; undefined while none is. */
  get since(): number | undefined {
    return this.#since
  }

  get holds(): boolean {
    return this.policy.kind === 'hold' && !this.#shutDown
  }

  /**
   * Runs `attempt` until it ends in something else than a want of space. `wanted` is asked before each further attempt:
   * a request whose client has gone is not tried again, and ends with its last outcome. `request` is who it is.
   */
  async run(
    attempt: () => Promise<Outcome>,
    wanted: () => boolean,
    request: Omit<HeldRequest, 'since'>,
  ): Promise<Outcome> {
    let outcome = await attempt()
    if (!isSpaceError(outcome) || this.policy.kind === 'report') return outcome
    const deadline = performance.now() + this.policy.timeoutMs
    const held = { ...request, since: Date.now() }
    this.#enter(held)
    try {
      while (isSpaceError(outcome) && performance.now() < deadline) {
        const wake = this.#shutDown ? 'shut-down' : await this.#wait(deadline, wanted)
        if (wake === 'shut-down') return SHUT_DOWN
        if (wake === 'fail' || !wanted()) return outcome
        outcome = await attempt()
      }
      // Space for one is most likely space for more: the others need not wait for their turn.
      if (!isSpaceError(outcome)) this.release()
      return outcome
    } finally {
      this.#leave(held)
    }
  }

  #enter(held: HeldRequest): void {
    this.#requests.add(held)
    this.#since ??= held.since
    this.#events.changed(this.held, this.#since)
    this.#timer ??= setInterval(() => this.#retryOne(), RETRY_MS)
  }

  #leave(held: HeldRequest): void {
    this.#requests.delete(held)
    if (this.held === 0) {
      this.#since = undefined
      clearInterval(this.#timer)
      this.#timer = undefined
    }
    this.#events.changed(this.held, this.#since)
  }

  #wait(deadline: number, wanted: () => boolean): Promise<Wake> {
    return new Promise((settle) => {
      const wake = (why: Wake) => {
        clearTimeout(timer)
        settle(why)
      }
      const timer = setTimeout(() => {
        this.#waiting.delete(wake)
        settle('retry')
      }, deadline - performance.now())
      this.#waiting.set(wake, wanted)
    })
  }

  /** Ends the wait of requests whose client has gone: what was sent again elsewhere stands behind them. */
  dropUnwanted(): void {
    for (const [wake, wanted] of [...this.#waiting]) {
      if (wanted()) continue
      this.#waiting.delete(wake)
      wake('fail')
    }
  }

  #retryOne(): void {
    const [first] = this.#waiting.keys()
    if (first === undefined) return
    this.#waiting.delete(first)
    first('retry')
  }

  #wakeAll(wake: Wake): void {
    const waiting = [...this.#waiting.keys()]
    this.#waiting.clear()
    for (const each of waiting) each(wake)
  }

  /** Tries all of them again, now. */
  release(): void {
    this.#wakeAll('retry')
  }

  /** Answers all of them with ENOSPC, now. */
  fail(): void {
    this.#wakeAll('fail')
  }

  /** Answers all of them with ESHUTDOWN, and holds none any more. */
  shutDown(): void {
    this.#shutDown = true
    this.#wakeAll('shut-down')
  }
}
