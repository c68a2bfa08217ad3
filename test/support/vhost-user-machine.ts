// What one guest has over all its sessions: memory, the ring in it, and the in-flight log that its front-end keeps for the
// server.
import { closeSync } from 'node:fs'
import type { InflightArea } from 'vhost-user-protocol'
import { eventFd } from '../../backends/index.js'
import { PackedDriver, type RingDriver, SplitDriver } from './vhost-drivers.js'
import { type Descriptor, GUEST_BASE, GuestMemory } from './vhost-guest.js'

const MEMORY_BYTES = 96 << 20
export const RING_SIZE = 64

export interface RingPlace {
  readonly ring: RingDriver
  readonly kick: number
  readonly call: number
}

export class GuestMachine implements RingPlace {
  readonly memory = new GuestMemory(MEMORY_BYTES)
  ring: RingDriver
  readonly kick = eventFd()
  readonly call = eventFd()
  inflight: { readonly fd: number; readonly area: InflightArea } | undefined

  constructor(packed = false, ringSize = RING_SIZE) {
    this.ring = packed ? new PackedDriver(this.memory, ringSize) : new SplitDriver(this.memory, ringSize)
  }

  /** As a driver after a reset: an empty ring, elsewhere. */
  beginAnew(): void {
    this.ring = new SplitDriver(this.memory, this.ring.size)
  }

  close(): void {
    this.memory.close()
    for (const fd of [this.kick, this.call]) closeSync(fd)
    if (this.inflight !== undefined) closeSync(this.inflight.fd)
  }
}

export interface Piece {
  readonly at: number
  readonly length: number
}

const GAP = 16

/** Room for `length` bytes in so many pieces, none of which goes on where another ends: those would count as one. */
export function scattered(memory: GuestMemory, length: number, pieces: number): Piece[] {
  if (length === 0) return []
  const step = Math.ceil(length / pieces)
  const count = Math.ceil(length / step)
  const start = memory.allocate(count * (step + GAP))
  return Array.from({ length: count }, (_, index) => {
    return { at: start + index * (step + GAP), length: Math.min(step, length - index * step) }
  })
}

export function descriptorsOf(pieces: readonly Piece[], writable: boolean): Descriptor[] {
  return pieces.map(({ at, length }) => ({ address: GUEST_BASE + BigInt(at), length, writable }))
}
