// What `candor ctl exports` shows of an export: as its own thread knows it, as it is known while that thread stands still,
// and of one that is not served.
import type { Export } from '../exports/export.js'
import type { FailedExport } from '../io/directory.js'
import type { ExportFace } from '../io/io-host.js'
import { ALLOCATED_AT, HELD_AT, RELEASED_SINCE_AT, RESERVE_AT, SUSPECT_BYTES_AT } from '../observe/counters.js'
import { formatTime } from '../values.js'

/** What `candor ctl exports` shows of one. */
export interface ExportSummary {
  readonly name: string
  readonly size: number
  readonly readOnly: boolean
  readonly state: string
  readonly suspectBytes: number
  readonly suspectRanges: number
  /** Bytes of the file system that the image takes, and that the export leaves free; both 0 where nobody can say. */
  readonly allocated: number
  readonly reserve: number
  /** Requests that wait for space, and since when. */
  readonly held: number
  readonly heldSince: string | undefined
  /** When the image was let go of; requests wait since then. */
  readonly releasedSince: string | undefined
  /** What is done when the host is full; absent where the export cannot be asked. */
  readonly onEnospc?: string
  readonly suspectReads?: string
  /** Why it is not served. */
  readonly reason?: string
}

export function summary(entry: Export): ExportSummary {
  const { suspect, state } = entry.durability
  const { name, size, readOnly } = entry
  const { held, since } = entry.space
  const suspects = { suspectBytes: suspect.bytes, suspectRanges: suspect.count }
  const taken = { allocated: entry.counters[ALLOCATED_AT] ?? 0, reserve: entry.room.reserve }
  const waiting = { held, heldSince: timeOf(since), releasedSince: timeOf(entry.recess.since) }
  const { onSpace, readsSuspects } = entry.policy
  const onEnospc = onSpace.kind === 'report' ? 'report' : `hold=${formatTime(onSpace.timeoutMs)}`
  const policy = { onEnospc, suspectReads: readsSuspects ? 'allow' : 'refuse' }
  return { name, size, readOnly, state, ...suspects, ...taken, ...waiting, ...policy }
}

function timeOf(since: number | undefined): string | undefined {
  return since === undefined ? undefined : new Date(since).toISOString()
}

/** The same of an export whose thread is waiting for its storage, from what is known without it. */
export function stalledSummary({ name, size, readOnly, counters }: ExportFace): ExportSummary {
  const [suspectBytes = 0, held = 0] = [counters[SUSPECT_BYTES_AT], counters[HELD_AT]]
  const [allocated = 0, reserve = 0] = [counters[ALLOCATED_AT], counters[RESERVE_AT]]
  const releasedSince = timeOf(counters[RELEASED_SINCE_AT] || undefined)
  const unknown = { suspectRanges: 0, heldSince: undefined, releasedSince }
  return { name, size, readOnly, state: 'stalled', suspectBytes, allocated, reserve, held, ...unknown }
}

/** The same of an export whose image cannot be served. */
export function failedSummary({ name, reason, config: { readOnly, reserve } }: FailedExport): ExportSummary {
  const nothing = { size: 0, suspectBytes: 0, suspectRanges: 0, allocated: 0, held: 0 }
  return {
    name,
    readOnly,
    state: 'failed',
    ...nothing,
    reserve,
    heldSince: undefined,
    releasedSince: undefined,
    reason,
  }
}
