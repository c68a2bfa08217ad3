// A frame that is thrown away as it comes: too large, or answered for already where its connection was served before. Law: it
// is answered when it has passed, and the stream stays in step.
import type { PayloadFeed } from './payload-feed.js'
import type { Judged, Unserved, Verdict } from './region.js'

const HEADER_COPY_BYTES = 32

export class SkippedFrame {
  #left: number
  /** A copy of its first bytes. */
  readonly header: Uint8Array
  /** What its client is to hear; undefined: that it is too large. */
  readonly verdict: Verdict | undefined

  /** `start` is what has come of it, `left` how many bytes have not. */
  constructor(left: number, start: Uint8Array, verdict?: Verdict) {
    this.#left = left
    this.verdict = verdict
    this.header = Uint8Array.prototype.slice.call(start, 0, HEADER_COPY_BYTES)
  }

  get left(): number {
    return this.#left
  }

  /** `length` bytes came; returns how many of them are its own. */
  pass(length: number): number {
    const own = Math.min(this.#left, length)
    this.#left -= own
    return own
  }
}

/** What is left of a stream where its receive buffer stops. */
export interface Left {
  readonly before: readonly Uint8Array[]
  readonly unread: Uint8Array
  readonly feed: PayloadFeed | undefined
  readonly skipped: SkippedFrame | undefined
  /** The request whose payload is handed on has failed: the rest of it is thrown away. */
  readonly judged: Judged | undefined
}

/** The same as it goes on elsewhere, as a copy. */
export function leftOf({ before, unread, feed, skipped, judged }: Left): Unserved {
  if (judged === undefined || feed === undefined) {
    const bytes = Buffer.concat([...before, ...(feed?.partial ? [feed.partial] : []), unread])
    return { bytes, skip: skipped?.left ?? 0, skippedHeader: skipped?.header, verdict: skipped?.verdict }
  }
  const own = Math.min(feed.left, unread.length)
  const bytes = Buffer.concat([...before, unread.subarray(own)])
  return { bytes, skip: feed.left - own, skippedHeader: judged.header, verdict: judged.verdict }
}

/** The frame of which a part was thrown away elsewhere. */
export function skippedOf({ skip, skippedHeader, verdict }: Unserved): SkippedFrame | undefined {
  return skippedHeader && new SkippedFrame(skip, skippedHeader, verdict)
}
