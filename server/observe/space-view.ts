// Each file system under the exports as the API and the status page show it, read from shared memory as the exports are.
import { FREE, LOOKED, lastLook, MAY_TAKE, overcommitOf, SIZE, sumOf, UNTIL_FULL } from './backing-block.js'
import { ALLOCATED_AT, RESERVE_AT } from './counters.js'
import type { Observed, ObservedBacking, ObservedExport } from './family.js'

/** Bytes, where nothing else is said. */
export interface BackingView {
  /** As mountinfo writes it: 8:1. */
  readonly device: string
  /** Where it is mounted; empty where nobody can say. */
  readonly mount: string
  readonly size: number
  readonly free: number
  /** What the exports' images take. */
  readonly allocated: number
  /** What the writable ones may still take, and that less what is free: above 0 they could outgrow the file system. */
  readonly mayTake: number
  readonly overcommit: number
  /** The highest of its exports; 0 for none. */
  readonly reserve: number
  /** If free space goes on falling as in the last minute or two; absent while it does not fall. */
  readonly secondsUntilFull?: number
  /** When its images could outgrow it and it was to be full soon, without a break until now. */
  readonly fillingSince?: string
  /** When the host was asked last; storage that hangs, or that nobody holds, tells nothing new. */
  readonly looked: string
  /** How many there are on it. */
  readonly exports: number
}

/** As the alert CandorSpaceRunningOut has it. */
const SOON_SECONDS = 4 * 3600

interface Sums {
  allocated: number
  reserve: number
  exports: number
}

function sumsByDevice(exports: readonly ObservedExport[]): ReadonlyMap<string, Sums> {
  const found = new Map<string, Sums>()
  for (const { device, counters } of exports) {
    if (device === undefined) continue
    const sums = found.get(device) ?? { allocated: 0, reserve: 0, exports: 0 }
    sums.allocated += counters[ALLOCATED_AT] ?? 0
    sums.reserve = Math.max(sums.reserve, counters[RESERVE_AT] ?? 0)
    sums.exports += 1
    found.set(device, sums)
  }
  return found
}

function viewOf({ device, mount, block }: ObservedBacking, sums: Sums | undefined): BackingView | undefined {
  const look = lastLook(block)
  const size = look?.(SIZE) ?? 0
  // A file system that knows no bound (ramfs) tells nothing that could be shown.
  if (look === undefined || size === 0) return undefined
  const { allocated, reserve, exports } = sums ?? { allocated: 0, reserve: 0, exports: 0 }
  const secondsUntilFull = look(UNTIL_FULL)
  const space = { size, free: look(FREE), allocated, mayTake: sumOf(block, MAY_TAKE), overcommit: overcommitOf(block) }
  const looked = new Date(look(LOOKED)).toISOString()
  return {
    device,
    mount,
    ...space,
    reserve,
    ...(Number.isFinite(secondsUntilFull) && { secondsUntilFull }),
    looked,
    exports,
  }
}

function urgency({ overcommit, secondsUntilFull }: BackingView): number {
  return overcommit > 0 ? (secondsUntilFull ?? Number.MAX_VALUE) : Number.POSITIVE_INFINITY
}

/** All of them: first those that could be outgrown, by when they will be full, then those with the smallest part free. */
export function backingViews({ exports, backings }: Observed, fillings?: Fillings): BackingView[] {
  const sums = sumsByDevice(exports)
  const views = backings.flatMap((backing) => {
    const view = viewOf(backing, sums.get(backing.device))
    const since = fillings?.sinceOf(backing.device)
    if (view === undefined || since === undefined) return view ?? []
    return { ...view, fillingSince: new Date(since).toISOString() }
  })
  const share = ({ free, size }: BackingView) => free / size
  return views.sort((a, b) => (urgency(a) < urgency(b) ? -1 : urgency(a) > urgency(b) ? 1 : share(a) - share(b)))
}

/** Since when each file system is about to be full: a burst of writes is no trend. */
export class Fillings {
  #since = new Map<string, number>()

  /** ms since the epoch; undefined while it is not. */
  sinceOf(device: string): number | undefined {
    return this.#since.get(device)
  }

  /** Called once a second. */
  sample({ backings }: Observed, now: number): void {
    const since = new Map<string, number>()
    for (const { device, block } of backings) {
      const untilFull = lastLook(block)?.(UNTIL_FULL) ?? Number.POSITIVE_INFINITY
      if (untilFull < SOON_SECONDS && overcommitOf(block) > 0) since.set(device, this.#since.get(device) ?? now)
    }
    this.#since = since
  }
}
