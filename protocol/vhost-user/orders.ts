// What a session wants done that it cannot do itself, and what came of it. The numbers are descriptors and addresses: who
// carries an order out owns the descriptors that it names, but for a ring's, which stay the session's.
import type { InflightArea, MemoryRegion, VringAddress } from './payloads.js'

export interface MappedRegion extends MemoryRegion {
  readonly descriptor: number
}

/** A ring that is about to run. */
export interface RingSetup {
  readonly index: number
  readonly size: number
  /** As SET_VRING_BASE or the ring's last stop told it. */
  readonly base: number
  readonly addresses: VringAddress
  /** undefined: the front-end does not kick, the ring is to be polled. */
  readonly kick: number | undefined
  /** undefined: the front-end wants no interrupts. */
  readonly call: number | undefined
}

export type Order =
  | { readonly do: 'agree'; readonly features: bigint }
  /** The whole table, in the place of what was there. */
  | { readonly do: 'map'; readonly regions: readonly MappedRegion[] }
  | { readonly do: 'add-region'; readonly region: MappedRegion }
  | { readonly do: 'remove-region'; readonly region: MemoryRegion }
  | { readonly do: 'start-ring'; readonly ring: RingSetup }
  /** Answered with the ring's base, when none of its requests touches memory any more. */
  | { readonly do: 'stop-ring'; readonly index: number }
  | { readonly do: 'set-call'; readonly index: number; readonly call: number | undefined }
  | { readonly do: 'set-kick'; readonly index: number; readonly kick: number | undefined }
  | { readonly do: 'write-config'; readonly offset: number; readonly data: Uint8Array }
  /** Answered with an area that has been made. */
  | { readonly do: 'make-inflight'; readonly queues: number; readonly queueSize: number }
  | { readonly do: 'take-inflight'; readonly area: InflightArea; readonly descriptor: number }
  /** The socket on which the back-end may ask the front-end something. */
  | { readonly do: 'take-channel'; readonly descriptor: number }
  | { readonly do: 'reset' }

/** `done` carries what the order asked for; `refused` is told to the front-end, or ends the session where it did not ask. */
export type Result =
  | { readonly kind: 'done' }
  | { readonly kind: 'base'; readonly base: number }
  | { readonly kind: 'area'; readonly size: bigint; readonly offset: bigint; readonly descriptor: number }
  | { readonly kind: 'refused'; readonly reason: string }

export const DONE: Result = { kind: 'done' }

/** A message to be sent, with descriptors that stay the back-end's: those that an order was answered with. */
export interface Reply {
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly descriptors: readonly number[]
}
