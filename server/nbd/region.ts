// Bytes that came and are not served yet. Law: memory that nobody shares is given back as soon as nobody needs it.
import { viewOf } from 'nbd-protocol'
import { discard, giveBuffer } from './buffer-pool.js'
import type { FrameHold } from './frame-hold.js'

export interface Region {
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly at: number
  readonly end: number
  /** The pool's buffer behind `bytes`, given back when the region is served. */
  readonly pooled?: Uint8Array
  /** What the frame in `pooled` has of the budget, for as long. */
  readonly hold?: FrameHold
}

/** All of `bytes`, which nobody shares. */
export function ownRegion(bytes: Uint8Array): Region {
  return { bytes, view: viewOf(bytes), at: 0, end: bytes.length }
}

/** Nobody needs these bytes any more; `shared` is not the region's to free. */
export function release({ bytes, pooled, hold }: Region, shared: Uint8Array): void {
  hold?.leave()
  if (pooled !== undefined) giveBuffer(pooled)
  else if (bytes !== shared) discard(bytes)
}

/** What a stream brought and nobody has served: how it goes on where another buffer takes it over. */
export interface Unserved {
  /** In the order in which they came. */
  readonly bytes: Uint8Array
  /** Bytes still to come of a frame that is too large, and is thrown away. */
  readonly skip: number
  /** The first bytes of that frame. */
  readonly skippedHeader: Uint8Array | undefined
}
