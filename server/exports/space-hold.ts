// What happens to a change for which the host has no space: told at once, or held until there is some. Law: a held
// request is answered once all the same: by success, by ENOSPC at its time-out, or because server or client leave.
import {
  EDQUOT,
  ENOSPC,
  errnoOf,
  isSyncFailure,
  MOVED,
  type Outcome,
  SHUT_DOWN,
  WOULD_BLOCK,
} from '../../backends/index.js'
import { WaitingRoom } from './waiting-room.js'

/** `report`: ENOSPC at once. `hold`: kept for `timeoutMs`, and tried again as space may have appeared. */
export type SpacePolicy = { readonly kind: 'report' } | { readonly kind: 'hold'; readonly timeoutMs: number }

/**
 * How often one of the held requests is tried again: the only sign of space that quotas give. Where the file system tells
 * what is free, Backing asks more often, and releases them.
 */
const RETRY_MS = 500

/** Why a wait ended. */
type Wake = 'retry' | 'fail' | 'shut-down' | 'moved'

/** A hold that goes on in another process. */
export interface Hold {
  /** ms since the epoch. */
  readonly since: number
  /** Until its time-out, in ms. */
  readonly leftMs: number
}

/** Who asks for what, and the hold under which it was before; that is also where it is told when the request is moved. */
export interface HoldRequest extends Omit<HeldRequest, 'since'> {
  hold?: Hold | undefined
}

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
  #policy: SpacePolicy
  readonly #events: HoldEvents
  readonly #room = new WaitingRoom<Wake>()
  readonly #requests = new Set<HeldRequest>()
  #since: number | undefined
  #timer: NodeJS.Timeout | undefined
  #shutDown = false
  #frozen = false

  constructor(policy: SpacePolicy, events: HoldEvents) {
    this.#policy = policy
    this.#events = events
  }

  get policy(): SpacePolicy {
    return this.#policy
  }

  /** Another policy from now on; what is held and would not be under the new one is answered. */
  set policy(policy: SpacePolicy) {
    this.#policy = policy
    if (policy.kind === 'report') this.fail()
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
   * Runs `attempt` until it ends in something else than a want of space. `wanted` is asked before it is held, and before each
   * further attempt: a request whose client has gone is not tried again, and ends with its last outcome. `request` is who it is.
   */
  async run(attempt: () => Promise<Outcome>, wanted: () => boolean, request: HoldRequest): Promise<Outcome> {
    let outcome = await attempt()
    const { policy } = this
    if (!isSpaceError(outcome) || policy.kind === 'report' || !wanted()) return outcome
    const { since, leftMs } = request.hold ?? { since: Date.now(), leftMs: policy.timeoutMs }
    const deadline = performance.now() + leftMs
    const held = { ...request, since }
    const move = () => {
      request.hold = { since, leftMs: Math.max(0, deadline - performance.now()) }
      return MOVED
    }
    this.#enter(held)
    try {
      while (isSpaceError(outcome) && performance.now() < deadline) {
        const untilThen = { ms: deadline - performance.now(), wake: 'retry' } as const
        const wake = this.#interrupted ?? (await this.#room.enter(wanted, untilThen))
        if (wake === 'shut-down') return SHUT_DOWN
        if (wake === 'moved') return move()
        if (wake === 'fail' || !wanted()) return outcome
        outcome = await attempt()
        if (outcome === MOVED) return move()
      }
      // Space for one is most likely space for more: the others need not wait for their turn.
      if (!isSpaceError(outcome)) this.release()
      return outcome
    } finally {
      this.#leave(held)
    }
  }

  /** What keeps requests from waiting. */
  get #interrupted(): Wake | undefined {
    if (this.#frozen) return 'moved'
    return this.#shutDown ? 'shut-down' : undefined
  }

  /** Ends all waits with MOVED, those to come included, until it is told otherwise. */
  freeze(frozen: boolean): void {
    this.#frozen = frozen
    if (frozen) this.#room.wakeAll('moved')
  }

  #enter(held: HeldRequest): void {
    this.#requests.add(held)
    // What was held elsewhere before comes here in any order.
    this.#since = Math.min(this.#since ?? held.since, held.since)
    this.#events.changed(this.held, this.#since)
    this.#timer ??= setInterval(() => this.#room.wakeFirst('retry'), RETRY_MS)
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

  /** Ends the wait of requests whose client has gone. */
  dropUnwanted(): void {
    this.#room.wakeUnwanted('fail')
  }

  /** Tries all of them again, now. */
  release(): void {
    this.#room.wakeAll('retry')
  }

  /** Answers all of them with ENOSPC, now. */
  fail(): void {
    this.#room.wakeAll('fail')
  }

  /** Answers all of them with ESHUTDOWN, and holds none any more. */
  shutDown(): void {
    this.#shutDown = true
    this.#room.wakeAll('shut-down')
  }
}
