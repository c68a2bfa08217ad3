// The metrics of space: what images take, what their file systems have left, who waits for it.
import { FREE, lastLook, overcommitOf, SIZE, UNTIL_FULL } from './backing-block.js'
import { ALLOCATED_AT, HELD_AT, HELD_SINCE_AT, REFUSED_BY_RESERVE_AT, RESERVE_AT } from './counters.js'
import { type Family, type Observed, type ObservedBacking, perExport, type Sample } from './family.js'

/** File systems that know no bound (ramfs) tell nothing that could be watched. */
function* perBacking({ backings }: Observed, read: (backing: ObservedBacking) => number): Iterable<Sample> {
  for (const backing of backings) {
    const { device, mount } = backing
    if (lastLook(backing.block)?.(SIZE)) yield { labels: { device, mount }, value: read(backing) }
  }
}

const looked = (place: number) => (backing: ObservedBacking) => lastLook(backing.block)?.(place) ?? 0

function* heldSince({ exports }: Observed): Iterable<Sample> {
  for (const { name, counters } of exports) {
    const since = counters[HELD_SINCE_AT] ?? 0
    if (since !== 0) yield { labels: { export: name }, value: since / 1000 }
  }
}

function ofExport(name: string, help: string, at: number, type: Family['type'] = 'gauge'): Family {
  return { name, help, type, collect: (observed) => perExport(observed, at) }
}

function ofBacking(name: string, help: string, read: (backing: ObservedBacking) => number): Family {
  return { name, help, type: 'gauge', collect: (observed) => perBacking(observed, read) }
}

export const SPACE_FAMILIES: readonly Family[] = [
  ofExport('candor_requests_held', 'Requests that wait for space on the host.', HELD_AT),
  {
    name: 'candor_requests_held_since',
    help: 'When the first of the requests that wait for space began to, in seconds since the epoch; absent while none does.',
    type: 'gauge',
    collect: heldSince,
  },
  ofExport(
    'candor_writes_refused_by_reserve_total',
    'Requests answered with ENOSPC because of --reserve; candor_errors_total does not count them.',
    REFUSED_BY_RESERVE_AT,
    'counter',
  ),
  ofExport('candor_export_reserve_bytes', 'Bytes of its file system that the export leaves free.', RESERVE_AT),
  ofExport('candor_export_allocated_bytes', 'Bytes that the image takes on its file system.', ALLOCATED_AT),
  ofBacking('candor_backing_free_bytes', 'Bytes that may still be allocated on the file system.', looked(FREE)),
  ofBacking('candor_backing_size_bytes', 'Bytes of the file system.', looked(SIZE)),
  ofBacking(
    'candor_backing_overcommit_bytes',
    'Bytes that the images on the file system may still take, less what is free: above 0 they could outgrow it.',
    ({ block }) => overcommitOf(block),
  ),
  ofBacking(
    'candor_backing_seconds_until_full',
    'When the file system is full if free space goes on falling as in the last minute or two; +Inf while it does not.',
    looked(UNTIL_FULL),
  ),
]
