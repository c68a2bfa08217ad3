// The driver's side of split and packed rings, for tests: slow, and as the specification says it (virtio 1.2, 2.7 and 2.8).
import {
  type Descriptor,
  descriptorBytes,
  GUEST_BASE,
  type GuestMemory,
  INDIRECT,
  NEXT,
  USER_BASE,
  WRITE,
} from './vhost-guest.js'

export interface Used {
  readonly id: number
  readonly written: number
}

/** What a ring driver does, for both kinds of ring. */
export interface RingDriver {
  readonly size: number
  readonly packed: boolean
  /** User addresses. */
  readonly descriptors: bigint
  readonly driver: bigint
  readonly device: bigint
  /** Makes a chain available; with `indirect` through a table. Returns the id that `used` will name. */
  add(chain: readonly Descriptor[], indirect?: boolean): number
  /** What was answered since the last time. */
  used(): Used[]
}

export class SplitDriver implements RingDriver {
  readonly packed = false
  readonly size: number
  readonly guest: GuestMemory
  readonly at: { readonly table: number; readonly avail: number; readonly used: number }
  #free: number[]
  readonly #chains = new Map<number, number[]>()
  avail = 0
  #seen = 0

  constructor(guest: GuestMemory, size: number) {
    this.guest = guest
    this.size = size
    this.at = {
      table: guest.allocate(16 * size),
      avail: guest.allocate(6 + 2 * size, 2),
      used: guest.allocate(6 + 8 * size, 4),
    }
    this.#free = Array.from({ length: size }, (_, index) => index)
  }

  get descriptors(): bigint {
    return USER_BASE + BigInt(this.at.table)
  }

  get driver(): bigint {
    return USER_BASE + BigInt(this.at.avail)
  }

  get device(): bigint {
    return USER_BASE + BigInt(this.at.used)
  }

  setDescriptor(index: number, address: bigint, length: number, flags: number, next: number): void {
    this.guest.write(this.at.table + 16 * index, descriptorBytes(address, length, flags, next, false))
  }

  /** Puts a head into the available ring, whatever it is. */
  offer(head: number): void {
    this.guest.write16(this.at.avail + 4 + 2 * (this.avail % this.size), head)
    this.avail = (this.avail + 1) & 0xffff
    this.guest.write16(this.at.avail + 2, this.avail)
  }

  add(chain: readonly Descriptor[], indirect = false): number {
    const wanted = indirect ? 1 : chain.length
    const indexes = this.#free.splice(0, wanted)
    const [head = -1] = indexes
    if (indexes.length < wanted) throw new Error('the ring is full')
    if (indirect) {
      const table = this.guest.allocate(16 * chain.length)
      for (const [index, { address, length, writable }] of chain.entries()) {
        const flags = (index + 1 < chain.length ? NEXT : 0) | (writable ? WRITE : 0)
        this.guest.write(table + 16 * index, descriptorBytes(address, length, flags, index + 1, false))
      }
      this.setDescriptor(head, GUEST_BASE + BigInt(table), 16 * chain.length, INDIRECT, 0)
    } else {
      for (const [index, { address, length, writable }] of chain.entries()) {
        const next = indexes[index + 1]
        const flags = (next === undefined ? 0 : NEXT) | (writable ? WRITE : 0)
        this.setDescriptor(indexes[index] ?? 0, address, length, flags, next ?? 0)
      }
    }
    this.#chains.set(head, indexes)
    this.offer(head)
    return head
  }

  get usedIndex(): number {
    return this.guest.read16(this.at.used + 2)
  }

  used(): Used[] {
    const found: Used[] = []
    // Never more than the ring holds, whatever a test has written over the index.
    for (
      const end = this.usedIndex;
      this.#seen !== end && found.length < this.size;
      this.#seen = (this.#seen + 1) & 0xffff
    ) {
      const element = this.guest.read(this.at.used + 4 + 8 * (this.#seen % this.size), 8)
      const id = element.readUInt32LE()
      found.push({ id, written: element.readUInt32LE(4) })
      this.#free.push(...(this.#chains.get(id) ?? []))
      this.#chains.delete(id)
    }
    return found
  }
}

export class PackedDriver implements RingDriver {
  readonly packed = true
  readonly size: number
  readonly guest: GuestMemory
  readonly at: { readonly ring: number; readonly driver: number; readonly device: number }
  readonly #free: number[]
  readonly #lengths = new Map<number, number>()
  next = 0
  wrap = true
  #seen = 0
  #seenWrap = true

  constructor(guest: GuestMemory, size: number) {
    this.guest = guest
    this.size = size
    this.at = { ring: guest.allocate(16 * size), driver: guest.allocate(4, 4), device: guest.allocate(4, 4) }
    this.#free = Array.from({ length: size }, (_, index) => index)
  }

  get descriptors(): bigint {
    return USER_BASE + BigInt(this.at.ring)
  }

  get driver(): bigint {
    return USER_BASE + BigInt(this.at.driver)
  }

  get device(): bigint {
    return USER_BASE + BigInt(this.at.device)
  }

  #flags(flags: number, wrap: boolean): number {
    return flags | (wrap ? 0x80 : 0x8000)
  }

  add(chain: readonly Descriptor[], indirect = false): number {
    const id = this.#free.shift()
    if (id === undefined) throw new Error('the ring is full')
    let entries = chain.map(({ address, length, writable }, index) => ({
      address,
      length,
      flags: (writable ? WRITE : 0) | (index + 1 < chain.length ? NEXT : 0),
    }))
    if (indirect) {
      const table = this.guest.allocate(16 * chain.length)
      for (const [index, { address, length, flags }] of entries.entries()) {
        this.guest.write(table + 16 * index, descriptorBytes(address, length, flags & WRITE, 0, true))
      }
      entries = [{ address: GUEST_BASE + BigInt(table), length: 16 * chain.length, flags: INDIRECT }]
    }
    // The head last: it makes the rest available.
    const slots = entries.map((entry) => {
      const slot = { ...entry, index: this.next, flags: this.#flags(entry.flags, this.wrap) }
      this.next += 1
      if (this.next === this.size) {
        this.next = 0
        this.wrap = !this.wrap
      }
      return slot
    })
    for (const { index, address, length, flags } of slots.reverse()) {
      this.guest.write(this.at.ring + 16 * index, descriptorBytes(address, length, flags, id, true))
    }
    this.#lengths.set(id, entries.length)
    return id
  }

  used(): Used[] {
    const found: Used[] = []
    for (;;) {
      const slot = this.guest.read(this.at.ring + 16 * this.#seen, 16)
      const flags = slot.readUInt16LE(14)
      const used = (flags & 0x8000) !== 0
      if (used !== ((flags & 0x80) !== 0) || used !== this.#seenWrap) return found
      const id = slot.readUInt16LE(12)
      found.push({ id, written: slot.readUInt32LE(8) })
      this.#free.push(id)
      this.#seen += this.#lengths.get(id) ?? 1
      if (this.#seen >= this.size) {
        this.#seen -= this.size
        this.#seenWrap = !this.#seenWrap
      }
    }
  }
}
