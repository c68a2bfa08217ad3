// What a hostile driver may write into a ring, one rule broken at a time.
import { PackedDriver, SplitDriver } from './vhost-drivers.js'
import { descriptorBytes, GUEST_BASE, INDIRECT, NEXT, USER_BASE, WRITE } from './vhost-guest.js'
import type { DiskWishes, RamDisk } from './vhost-ram-disk.js'

/** Of the guest that does it. */
export const MISCHIEF_BYTES = 8 << 20
const END = GUEST_BASE + BigInt(MISCHIEF_BYTES)

export interface Mischief {
  readonly title: string
  readonly reason: RegExp
  /** Descriptors of the ring from the first on: address, length, flags, and next (or buffer id). */
  readonly ring?: readonly (readonly [bigint, number, number, number])[]
  /** The same for an indirect table that the ring's first descriptor names. */
  readonly table?: readonly (readonly [bigint, number, number, number])[]
  readonly tableBytes?: number
  readonly tableFlags?: number
  readonly wishes?: DiskWishes
}

const HEAD = [GUEST_BASE, 16, NEXT, 1] as const
const STATUS = [GUEST_BASE + 64n, 1, WRITE, 0] as const

/** Rules of both kinds. In a packed ring what follows is the next descriptor, whatever `next` says. */
export const MISCHIEF: readonly Mischief[] = [
  { title: 'data outside of the memory', reason: /outside/, ring: [HEAD, [END, 512, NEXT | WRITE, 2], STATUS] },
  {
    title: 'data that end a byte outside',
    reason: /outside/,
    ring: [HEAD, [END - 511n, 512, NEXT | WRITE, 2], STATUS],
  },
  { title: 'data before the memory', reason: /outside/, ring: [HEAD, [GUEST_BASE - 1n, 2, NEXT | WRITE, 2], STATUS] },
  {
    title: 'data at the end of all addresses',
    reason: /outside/,
    ring: [HEAD, [2n ** 64n - 1n, 512, NEXT | WRITE, 2], STATUS],
  },
  { title: '4 GiB of data', reason: /outside/, ring: [HEAD, [GUEST_BASE, 2 ** 32 - 1, NEXT | WRITE, 2], STATUS] },
  { title: 'a descriptor without length', reason: /no length/, ring: [HEAD, [GUEST_BASE, 0, NEXT | WRITE, 2], STATUS] },
  {
    title: 'a readable one after a writable one',
    reason: /after a writable/,
    ring: [HEAD, [GUEST_BASE, 1, NEXT | WRITE, 2], [GUEST_BASE, 1, 0, 0]],
  },
  { title: 'a header of 15 bytes', reason: /header/, ring: [[GUEST_BASE, 15, NEXT, 1], STATUS] },
  { title: 'no header at all', reason: /header/, ring: [STATUS] },
  { title: 'no status', reason: /status/, ring: [[GUEST_BASE, 16, 0, 0]] },
  {
    title: 'a table that was not negotiated',
    reason: /not negotiated/,
    table: [HEAD, STATUS],
    wishes: { queue: { indirect: false } },
  },
  { title: 'a table in a table', reason: /another/, table: [HEAD, [GUEST_BASE, 32, INDIRECT, 0]] },
  { title: 'a table with half a descriptor', reason: /whole number/, table: [HEAD, STATUS], tableBytes: 40 },
  { title: 'a table without descriptors', reason: /whole number/, table: [HEAD, STATUS], tableBytes: 0 },
  { title: 'a table of 1,025 descriptors', reason: /too long/, table: [HEAD, STATUS], tableBytes: 16 * 1025 },
  { title: 'a table outside of the memory', reason: /outside/, ring: [[END - 8n, 32, INDIRECT, 0]] },
  { title: 'a table at the end of all addresses', reason: /outside/, ring: [[2n ** 64n - 16n, 32, INDIRECT, 0]] },
]

const LOOP = Array.from({ length: 8 }, (_, index) => [GUEST_BASE, 16, NEXT, (index + 1) % 8] as const)

export const MISCHIEF_OF: Readonly<Record<string, readonly Mischief[]>> = {
  split: [
    { title: 'a loop', reason: /loop/, ring: LOOP },
    { title: 'a descriptor that names itself', reason: /loop/, ring: [[GUEST_BASE, 16, NEXT, 0]] },
    { title: 'a next one beyond the table', reason: /beyond/, ring: [[GUEST_BASE, 16, NEXT, 8]] },
    {
      title: 'a loop in a table',
      reason: /loop/,
      table: [
        [GUEST_BASE, 16, NEXT, 1],
        [GUEST_BASE, 16, NEXT, 0],
      ],
    },
    { title: 'a next one beyond an indirect table', reason: /beyond/, table: [[GUEST_BASE, 16, NEXT, 2], STATUS] },
    { title: 'a table that goes on', reason: /goes on/, table: [HEAD, STATUS], tableFlags: INDIRECT | NEXT },
  ],
  packed: [
    { title: 'a chain without an end', reason: /loop/, ring: LOOP },
    {
      title: 'a table in a chain',
      reason: /part of a chain/,
      ring: [HEAD, [GUEST_BASE, 32, INDIRECT | NEXT, 2], STATUS],
    },
  ],
}

/** Puts the descriptors there and makes the first available. */
export function commit(disk: RamDisk, { ring, table, tableBytes, tableFlags }: Mischief): void {
  const { guest } = disk
  const packed = disk.ring instanceof PackedDriver
  let entries = ring ?? []
  if (table !== undefined) {
    const at = guest.allocate(16 * table.length)
    for (const [index, entry] of table.entries()) guest.write(at + 16 * index, descriptorBytes(...entry, packed))
    entries = [[GUEST_BASE + BigInt(at), tableBytes ?? 16 * table.length, tableFlags ?? INDIRECT, 0]]
  }
  for (const [index, [address, length, flags, next]] of [...entries.entries()].reverse()) {
    const available = packed ? flags | 0x80 : flags
    guest.write(
      Number(disk.ring.descriptors - USER_BASE) + 16 * index,
      descriptorBytes(address, length, available, next, packed),
    )
  }
  if (disk.ring instanceof SplitDriver) disk.ring.offer(0)
}
