// The weather that a disk stands in: which operations fail, stop half-way, decline to finish now or wait for others.
// Law: all of it comes from one seed; in calm weather nothing fails and nothing waits.
import {
  DONE,
  EDQUOT,
  EIO,
  ENOMEM,
  ENOSPC,
  EROFS,
  type FaultPlan,
  SYNC_FAILED,
  WOULD_BLOCK,
} from '../../backends/index.js'
import type { Random } from './fuzz-random.js'

const ERRNOS = [EIO, EIO, ENOSPC, ENOSPC, EDQUOT, EROFS, ENOMEM]

export class Weather {
  readonly random: Random
  calm = false
  readonly #waiting: (() => void)[] = []
  /** Faults that the plan has put in. */
  faults = 0

  constructor(random: Random) {
    this.random = random
  }

  /** Operations that wait to be let through. */
  get waiting(): number {
    return this.#waiting.length
  }

  /** Settles at once, or when chance lets it through: completions come in any order. */
  async pass(): Promise<void> {
    if (this.calm || this.random.onceIn(2)) return
    await new Promise<void>((resolve) => this.#waiting.push(resolve))
  }

  /** Lets one of those that wait through. */
  release(): void {
    if (this.#waiting.length === 0) return
    const [go] = this.#waiting.splice(this.random.below(this.#waiting.length), 1)
    go?.()
  }

  clearUp(): void {
    this.calm = true
    for (const go of this.#waiting.splice(0)) go()
  }

  syncFails(): boolean {
    return !this.calm && this.random.onceIn(4)
  }

  /** For withFaults. */
  readonly plan: FaultPlan = ({ command, length, durable, now }) => {
    const { random } = this
    if (this.calm) return undefined
    const part = random.onceIn(2) ? 0 : Math.floor(random.below(length + 1) / 4) * 4
    const short = part === 0 ? {} : { transferred: part }
    if (now && command === 'probe') return this.#once(400, { outcome: EIO })
    if (now && random.onceIn(3)) return { outcome: WOULD_BLOCK, ...short }
    const after = now ? undefined : this.pass()
    if (command === 'flush')
      return this.#once(10, { outcome: EIO | SYNC_FAILED }) ?? { outcome: DONE, ...(after && { after }) }
    if (durable && random.onceIn(12)) {
      this.faults += 1
      return { outcome: random.pick([EIO, ENOSPC]) | SYNC_FAILED, transferred: length, ...(after && { after }) }
    }
    const failure = this.#once(now ? 30 : 15, { outcome: random.pick(ERRNOS), ...short })
    if (failure !== undefined) return { ...failure, ...(after && { after }) }
    return after && { outcome: DONE, after }
  }

  #once<Fault>(times: number, fault: Fault): Fault | undefined {
    if (!this.random.onceIn(times)) return undefined
    this.faults += 1
    return fault
  }
}
