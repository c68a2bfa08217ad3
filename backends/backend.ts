// The contract between storage and those who serve it. Law: an outcome of 0 means that the host reported the whole
// length done; errors are numbers here, and exceptions only at open.
import type { IoData } from './native/io-vector.js'
import type { Outcome } from './outcome.js'
import type { OpenedImage } from './sparse-file/open-image.js'

/** What a backend can do, fixed at open, so that the server computes its transmission flags once. */
export interface Capabilities {
  /** False for an image that was opened read-only. */
  readonly write: boolean
  /** TRIM gives space back; where it is false TRIM succeeds and does nothing. */
  readonly trim: boolean
  /** Zeroing can be faster than writing zeroes. */
  readonly fastZero: boolean
  /** `extents` tells data from holes. */
  readonly extents: boolean
  /** Bytes: requests should be multiples of it; others are done too, at a price. A power of two. */
  readonly minimumBlockSize: number
  /** Bytes: requests aligned to it are efficient. A power of two, at least 512. */
  readonly preferredBlockSize: number
  /** `readNow` and `writeNow` take data in pieces as well. */
  readonly vectors?: boolean
}

/** Zeroes may be a hole. Without it the range must stay allocated. */
export const ZERO_PUNCH = 1
/** Zeroes must come faster than writing them, or NOT_FAST is the outcome and nothing was changed. */
export const ZERO_FAST = 2

/** A run of one kind, from where the one before ended. */
export interface Extent {
  /** Bytes. */
  readonly length: number
  /** Nothing is allocated: a write here may need space. */
  readonly hole: boolean
  /** Reads as zeroes. */
  readonly zero: boolean
}

/** What a sparse read brought. */
export interface SparseRead {
  /** The data begins at `start`; bytes of holes are undefined. The buffer is the caller's. */
  readonly buffer: Uint8Array
  readonly start: number
  /** Together as long as what was asked for; `hole` means that it reads as zeroes and was not read. */
  readonly runs: readonly Extent[]
}

/** Hands out a buffer of at least so many bytes, at a multiple of 8 in its memory. */
export type TakeBuffer = (bytes: number) => Uint8Array

/** What a look at the image under our feet found. */
export interface Condition {
  /** Bytes that are still there; less than `size` when somebody truncated the image. */
  readonly present: number
  /** The file lost its last link: what is written now is gone when the server ends. */
  readonly unlinked: boolean
}

/** What the host says of an image's space, in bytes. */
export interface Space {
  /** What may still be allocated on the file system (f_bavail). */
  readonly free: number
  /** Of the file system; 0 where it knows no bound. */
  readonly size: number
  /** What the image takes. */
  readonly allocated: number
}

/** The space of the file system that an image lies on. */
export interface BackingSpace {
  /** Data that wait for write-back count as free, but for a look that settles. */
  readonly lags: boolean
  /** Asks the host, which may take as long as storage hangs; undefined where it does not say. Settling may take seconds. */
  look(settle: boolean): Promise<Space | undefined>
  /** Bytes of new space that a write of the range would take; blocks count whole. Where nobody knows, all of them. */
  allocates(offset: number, length: number): Promise<number>
}

/**
 * Storage of `size` bytes. `offset` and `length` are bytes on the disk and lie within it: whoever calls has validated.
 * `start` is a place in the buffer, or in a vector, which is for those that `can.vectors`. `xNow` finishes in this turn or answers WOULD_BLOCK; a part may have been done
 * then. `x` waits; its buffer is the backend's until the promise settles.
 */
export interface Backend {
  /** Bytes; a safe integer. Another one only by `resize`. */
  readonly size: number
  readonly can: Capabilities
  /** Names this storage whatever it is called (the file system's UUID, inode and birth time); undefined for what does not outlive the process. */
  readonly identity: string | undefined
  /** What an operator should know of this storage's weaknesses, a sentence each. */
  readonly warnings: readonly string[]

  readNow(target: IoData, start: number, length: number, offset: number): Outcome
  writeNow(source: IoData, start: number, length: number, offset: number): Outcome
  /**
   * DONE: the range lies in the thread's `pagePipe`, whose bytes are the caller's to send or to drop in this turn. WOULD_BLOCK says
   * nothing of the range; then, and where there is no such way, `readNow` is asked.
   */
  pagesNow?(length: number, offset: number): Outcome

  read(target: Uint8Array, start: number, length: number, offset: number): Promise<Outcome>
  /**
   * A read that tells holes instead of reading them, into a buffer with `headroom` bytes left free before the data. `take`
   * hands out the buffer, at most once; whether it is asked is the backend's to say.
   */
  readSparse(headroom: number, length: number, offset: number, take?: TakeBuffer): Promise<SparseRead | Outcome>
  /** `durable`: the outcome speaks of stable storage; an error of the sync alone carries SYNC_FAILED. */
  write(source: Uint8Array, start: number, length: number, offset: number, durable: boolean): Promise<Outcome>
  /** `mode` is made of ZERO_… bits. */
  zero(offset: number, length: number, mode: number, durable: boolean): Promise<Outcome>
  /** Gives the space of the whole blocks within the range back; what it gave back reads as zeroes. */
  trim(offset: number, length: number, durable: boolean): Promise<Outcome>
  /** Everything that completed before the call is on stable storage when the outcome is 0. */
  flush(): Promise<Outcome>
  /** Syncs all that an earlier process may have left behind, the file system included (syncfs(2)). */
  settle(): Promise<Outcome>
  /**
   * The errno of write-back that failed and that no sync has told of yet; 0 for none. Never waits. `quick`: asked for the sake
   * of bytes that were written here and read back, where what only this program was told can be left for the next one.
   */
  probe(quick?: boolean): Outcome
  /** Asks the host to read ahead. */
  cache(offset: number, length: number): Promise<Outcome>
  /** At most `limit` runs from `offset` on; they may end before `offset + length`, never before the first run does. */
  extents(offset: number, length: number, limit: number): Promise<readonly Extent[] | Outcome>
  /** Where the image's space comes from; undefined where nobody can say, as under a block device. */
  readonly space: BackingSpace | undefined
  /** A cheap look (one fstat), for once per batch that writes. */
  look(): Condition
  /** Bytes that storage has now, as far as is known without waiting: not `size` when somebody made it longer or shorter. */
  measure(): number
  /**
   * Gives storage another length, unless it has that already, and `size` with it: from the call on where it becomes
   * shorter, at the end where it grows. EOPNOTSUPP where storage has a length of its own.
   */
  resize(size: number): Promise<Outcome>
  /** It was let go of: what would touch storage waits, and `flush` repeats the outcome of the sync before. */
  readonly released: boolean
  /**
   * Lets go of storage, so that its file system can be unmounted: waits for what is in the kernel, syncs and closes. The
   * outcome is that of the sync; EBUSY when the kernel keeps a request for long: then nothing was let go of.
   */
  release(): Promise<Outcome>
  /**
   * Takes the same storage up again, when it was let go of, or when its path leads to it on another mount; else there is
   * nothing to do. SYNC_FAILED in the outcome: what was not synced before stayed behind.
   * @throws OpenError when the path leads to anything else
   */
  reopen(): Promise<Outcome>
  /** Settles when nothing of its own is on its way. Absent where there is nothing of the kind. */
  quiet?(): Promise<void>
  /** The image as another process can take it over, once it is quiet. Absent: this storage cannot change processes. */
  readonly image?: OpenedImage
  /** Gives locks and descriptors back, without a sync: flush first. */
  close(): Promise<void>
}

/** The operator's mistake, or the host's refusal, at open: one plain sentence that names the thing and the remedy. */
export class OpenError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'OpenError'
  }
}
