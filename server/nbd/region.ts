// Bytes that came and are not served yet. Law: memory that nobody shares is given back as soon as nobody needs it.
import { viewOf } from 'nbd-protocol'
import type { Outcome } from '../../backends/index.js'
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

/** What the client of a request is to hear when its payload has passed. */
export type Verdict =
  | { readonly kind: 'refused'; readonly error: number }
  | { readonly kind: 'failed'; readonly outcome: Outcome }

/** A request whose payload is thrown away as it comes. */
export interface Judged {
  readonly header: Uint8Array
  readonly verdict: Verdict
}

/** What a stream brought and nobody has served: how it goes on where another buffer takes it over. */
export interface Unserved {
  /** In the order in which they came. */
  readonly bytes: Uint8Array
  /** Bytes still to come behind them of a frame that is thrown away. */
  readonly skip: number
  /** The first bytes of that frame. */
  readonly skippedHeader: Uint8Array | undefined
  readonly verdict?: Verdict | undefined
}
