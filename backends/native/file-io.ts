// The typed door of the native addon: system calls that Node does not offer. Every function says which.
import { createRequire } from 'node:module'
import { errnoName } from '../errno.js'
import type { Outcome } from '../outcome.js'
import type { FdSocketDoors } from './fd-socket.js'
import type { PagePipe } from './page-pipe.js'
import type { ProcessDoor } from './process-door.js'
import type { SocketIo } from './socket-io.js'
import type { TlsDoors } from './tls.js'
import type { VhostMemoryDoors } from './vhost-memory.js'
import type { VhostQueueDoors } from './vhost-queue.js'

/** Or-ed by `writeNow` to its outcome when the write took suspiciously long (io-ops.h). */
export const STALLED = 0x2_0000

// Kinds of io-ops.h.
export const IO_READ = 0
export const IO_WRITE = 1
export const IO_WRITE_DURABLE = 2
export const IO_FLUSH = 3
export const IO_PUNCH = 4
export const IO_ZERO_RANGE = 5
export const IO_WRITE_ZEROES = 6
export const IO_WILLNEED = 7
export const IO_EXTENTS = 8
export const IO_READ_SPARSE = 9
export const IO_SAME_FILE = 10
export const IO_SYNCFS = 11
export const IO_WRITE_BACK = 20
export const IO_SPACE = 12
export const IO_ALLOCATES = 13
export const IO_TRUNCATE = 14
/** Doubles that IO_SPACE tells: bytes free, bytes of the file system, bytes of the image, bytes of a block. */
export const IO_SPACE_NUMBERS = 4
/** Kinds of runs that IO_EXTENTS and IO_READ_SPARSE tell; what is neither is space that was never written. */
export const RUN_HOLE = 0
export const RUN_DATA = 1
/** Flag of the kinds that change the image without a payload: sync afterwards. */
export const IO_FLAG_DURABLE = 1
/** Flag of IO_SPACE: count what waits for write-back as well, even if it has to be written for that. */
export const IO_FLAG_SETTLE = 1

/** Of IO_READ: the file can be read through the ring, where there is one. */
export const IO_FLAG_RING = 2

/** A device's queue; made by `createQueue`, of use to `submit` alone. */
export interface NativeQueue {
  readonly nativeQueue: unique symbol
}

/** A socket that carries descriptors; of use to the doors of fd-socket.ts alone. */
export interface FdSocketNative {
  readonly nativeFdSocket: unique symbol
}

/** A guest's memory; of use to the doors of vhost-memory.ts and vhost-queue.ts. */
export interface VhostMemoryNative {
  readonly nativeVhostMemory: unique symbol
}

/** A virtqueue; of use to the doors of vhost-queue.ts. */
export interface VhostQueueNative {
  readonly nativeVhostQueue: unique symbol
}

interface FileIo extends SocketIo, PagePipe, TlsDoors, FdSocketDoors, ProcessDoor, VhostMemoryDoors, VhostQueueDoors {
  /** preadv2(2), with RWF_NOWAIT where `nowait` is 1. Short is WOULD_BLOCK. */
  readNow(fd: number, target: Uint8Array, start: number, length: number, offset: number, nowait: 0 | 1): Outcome
  /** pwrite(2) to the end of `length`, or pwritev2(2) with RWF_NOWAIT once. The outcome may carry STALLED. */
  writeNow(fd: number, source: Uint8Array, start: number, length: number, offset: number, nowait: 0 | 1): Outcome
  /** 1 when the byte at `offset` is in the page cache (preadv2(2) with RWF_NOWAIT). */
  cached(fd: number, offset: number): 0 | 1
  /** sync_file_range(2) past the end with SYNC_FILE_RANGE_WAIT_BEFORE: the errno of untold write-back failure, or 0. */
  probe(fd: number): Outcome
  /** fstat(2): `into` becomes [size in bytes, links]. Returns an errno. */
  lookAt(fd: number, into: Float64Array): Outcome
  /** fstatfs(2): the file system's magic number, or minus errno. */
  fileSystemType(fd: number): number
  /** FS_IOC_GETFSUUID, or ext4's and XFS's own ioctl: 32 hexadecimal digits, or '' where the kernel does not tell. */
  fileSystemUuid(fd: number): string
  /** ioctl_block BLKSSZGET: bytes, or minus errno. */
  logicalBlockSize(fd: number): number
  /** fcntl(2) F_DUPFD_CLOEXEC: a new descriptor, or minus errno. */
  duplicate(fd: number): number
  /** socketpair(2) of Unix stream sockets: `into` becomes the two descriptors. Returns an errno. */
  socketPair(into: Int32Array): Outcome
  /** A datagram to a Unix socket, '@' first for an abstract name; at most 4 KiB. Never waits. Returns an errno. */
  sendTo(path: string, text: string, fd: number): Outcome
  /** prctl(PR_SET_IO_FLUSHER) for the calling thread and those that it starts; the errno. */
  becomeIoFlusher(): number
  /** _exit(2): does not return. */
  endAtOnce(code: number): never
  /** F_OFD_SETLK of fcntl(2): a read lock on one byte, held by the open file description. Returns an errno. */
  lockByte(fd: number, byte: number): Outcome
  /** F_OFD_GETLK of fcntl(2): 1 when another open file description has locked the byte, 0 when not, minus errno. */
  byteLocked(fd: number, byte: number): number
  /** poll(2), without waiting: 0 the peer is there, 1 it sends no more (POLLRDHUP), 2 it is gone (POLLHUP, POLLERR). */
  hungUp(fd: number): 0 | 1 | 2
  /**
   * 1 when the other end of this Unix socket is ours: this process listened for it or made it (SO_PEERCRED of unix(7)), or it
   * was connected to the name that the socket `ours` has.
   */
  isOwnEnd(fd: number, ours: number): 0 | 1
  /** Of a Unix stream socket: 1 it listens, 0 it is connected. Minus errno of anything else. */
  isListening(fd: number): number
  /**
   * close(2) of a descriptor that another process handed over: it neither waits nor fails. A file of FUSE asks its server
   * even then, which may answer with an error or never, and so it is closed by a thread of its own.
   */
  closeForeign(fd: number): void
  /** F_GET_SEALS of fcntl(2): 1 for a file of tmpfs, memfd or hugetlbfs, asked without its file system. */
  isMemoryFile(fd: number): 0 | 1
  /**
   * Of what a socket received and nobody read, the last bytes, as many as `into` holds, at its end (recvmsg(2) with
   * MSG_PEEK). Returns how many bytes wait in all.
   */
  unreadTail(fd: number, into: Uint8Array): number
  /** io_uring_setup(2) and a read through it: 0, or the errno for which there is no ring here. */
  probeRing(): Outcome
  /** Threads, and a ring if it can be had, for what may block; `results` takes 256 pairs (ticket, outcome). */
  createQueue(threadsMax: number, ring: 0 | 1, results: Int32Array, onCompletions: (count: number) => void): NativeQueue
  /** Returns 0 or an errno; after 0 the ticket is completed exactly once. What a turn submits goes at its end. */
  submit(
    queue: NativeQueue,
    ticket: number,
    kind: number,
    flags: number,
    fd: number,
    bytes: Uint8Array | null,
    start: number,
    length: number,
    offset: number,
  ): Outcome
}

// From dist/backends/native to backends/native/build, in the checkout and in the package alike.
const ADDON = '../../../backends/native/build/Release/file_io.node'

function loadAddon(): FileIo {
  try {
    return createRequire(import.meta.url)(ADDON) as FileIo
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND') throw error
    const remedy = 'install candor again, with its install scripts allowed'
    throw new Error(`candor's native addon is not built: ${remedy}`)
  }
}

export const fileIo = loadAddon()

export const { becomeIoFlusher, closeForeign, hungUp, isListening, isMemoryFile, isOwnEnd, unreadTail } = fileIo

/** The process or the host has no more descriptors to give (EMFILE, ENFILE), or no memory for one. */
export class NoDescriptorError extends Error {
  constructor(errno: Outcome) {
    super(`no more files can be opened (${errnoName(errno)}): raise the limit of open files`)
  }
}

/** A second descriptor of the same open file, for a caller who closes it himself. @throws NoDescriptorError */
export function duplicateDescriptor(fd: number): number {
  const copy = fileIo.duplicate(fd)
  if (copy < 0) throw new NoDescriptorError(-copy)
  return copy
}

/** Two connected Unix stream sockets, for a caller who closes them himself. @throws NoDescriptorError */
export function socketPair(): readonly [number, number] {
  const pair = new Int32Array(2)
  const errno = fileIo.socketPair(pair)
  const [one = -1, other = -1] = pair
  if (errno !== 0) throw new NoDescriptorError(errno)
  return [one, other]
}

/** Ends the process without waiting for its threads: one that storage holds would be waited for without end. */
export function endAtOnce(code: number): never {
  return fileIo.endAtOnce(code)
}

/** Sends a datagram to a Unix socket, and a descriptor with it; an errno when it could not be sent. */
export function sendDatagram(path: string, text: string, fd = -1): Outcome {
  return fileIo.sendTo(path, text, fd)
}
