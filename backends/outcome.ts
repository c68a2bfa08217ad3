// What became of one operation on storage, as a number: the data path carries errors as values, never as exceptions.

/**
 * 0: done, the kernel reported the whole length. 1 to 0xffff: the host's errno. WOULD_BLOCK: not all was done in this
 * turn; the waiting twin does it again, whole. Bits above tell more than an errno can.
 */
export type Outcome = number

export const DONE = 0
export const WOULD_BLOCK = -1
/** Or-ed to the errno of a sync that failed: it may have lost writes that were answered with success long ago. */
export const SYNC_FAILED = 0x1_0000
/** The image's path no longer leads to the open file, so what is written is lost when the server closes it. */
export const DETACHED = 0x4_0000
/** Zeroing would take as long as writing: the answer to a fast zero; carries EOPNOTSUPP. */
export const NOT_FAST = 0x8_0000 | 95

/** The server leaves before storage could do it; carries ESHUTDOWN. */
export const SHUT_DOWN = 0x10_0000 | 108

/** The operator's own policy refused what would have taken space below the reserve; carries ENOSPC. */
export const RESERVED = 0x20_0000 | 28

/** The request was not begun, or has to begin again, in the process that takes over: no answer from this one. */
export const MOVED = 0x40_0000

const ERRNO_MASK = 0xffff

/** The host's errno within an outcome; 0 where there is none. */
export function errnoOf(outcome: Outcome): number {
  return outcome === WOULD_BLOCK ? 0 : outcome & ERRNO_MASK
}

/** True for the outcome of a failed fdatasync, or of the second half of a durable write. */
export function isSyncFailure(outcome: Outcome): boolean {
  return outcome !== WOULD_BLOCK && (outcome & SYNC_FAILED) !== 0
}
