// The memory of a guest, mapped: what a vhost-user front end shares. Law: nothing that the other side does to the memory
// file, cutting it off included, ends the process; it ends the session.
import { fileIo, NoDescriptorError, type VhostMemoryNative } from './file-io.js'

/** A region as the front end describes it (docs/interop/vhost-user.rst, "Memory regions description"). */
export interface MemoryRegion {
  readonly guestAddress: bigint
  readonly size: bigint
  readonly userAddress: bigint
  readonly offset: bigint
  /** The memory file. It stays the caller's, who may close it as soon as `add` has returned. */
  readonly fd: number
}

/** What names a region that is to be removed. */
export type RegionName = Omit<MemoryRegion, 'fd' | 'offset'>

/** Regions of one session; `add` says ENOSPC past it. */
export const MEMORY_REGIONS_MAX = 64

export interface VhostMemoryDoors {
  openVhostMemory(): VhostMemoryNative
  vhostMemoryAdd(
    memory: VhostMemoryNative,
    guestAddress: bigint,
    size: bigint,
    userAddress: bigint,
    offset: bigint,
    fd: number,
  ): number
  vhostMemoryRemove(memory: VhostMemoryNative, guestAddress: bigint, size: bigint, userAddress: bigint): number
  vhostMemoryLost(memory: VhostMemoryNative): boolean
  vhostMemoryWindow(memory: VhostMemoryNative, index: number): Uint8Array | undefined
  vhostMemoryClose(memory: VhostMemoryNative): void
  /** memfd_create(2) of that size, sealed against shrinking and growing: a descriptor, or minus errno. */
  memoryFile(bytes: number): number
}

export class VhostMemory {
  readonly native: VhostMemoryNative = fileIo.openVhostMemory()
  readonly #windows: (Uint8Array | undefined)[] = []

  /**
   * Maps a region. Returns an errno: EINVAL for a size of 0, numbers that overflow or a region that overlaps another in
   * guest or user addresses, ENOSPC past MEMORY_REGIONS_MAX, ENXIO when the file does not hold offset + size,
   * EOPNOTSUPP when it is not a file of tmpfs, memfd or hugetlbfs, else what mmap(2) says.
   */
  add(region: MemoryRegion): number {
    const { guestAddress, size, userAddress, offset, fd } = region
    return fileIo.vhostMemoryAdd(this.native, guestAddress, size, userAddress, offset, fd)
  }

  /**
   * Takes a region out: no request that comes afterwards can reach it. It stays mapped for those that are being served,
   * and for rings that lie in it. Returns an errno: ENOENT when there is none like it.
   */
  remove({ guestAddress, size, userAddress }: RegionName): number {
    return fileIo.vhostMemoryRemove(this.native, guestAddress, size, userAddress)
  }

  /**
   * Whether the other side has cut off a memory file under us, and we have come across it: every queue is broken, or will
   * be at its next turn. What was lost reads as zeroes from then on, and takes what is written without telling anybody.
   */
  get lost(): boolean {
    return fileIo.vhostMemoryLost(this.native)
  }

  /**
   * Bytes of the guest, without a copy: the window that a request names (REQUEST_WINDOW). To be used until the last
   * request that names it is complete; then it may be detached. The guest may change what it shows at any moment: whoever
   * reads a value twice has read two values. Before bytes of a window are written to an image, ask `lost` in the same
   * turn: of lost memory there are only zeroes, which the guest never wrote. Work that goes on in another thread is
   * given a copy (`gather`), for the same reason.
   */
  window(index: number): Uint8Array | undefined {
    const known = this.#windows[index]
    // A detached one is empty.
    if (known !== undefined && known.length > 0) return known
    const window = fileIo.vhostMemoryWindow(this.native, index)
    this.#windows[index] = window
    return window
  }

  /** Takes out every region. Queues on it are closed first. */
  close(): void {
    fileIo.vhostMemoryClose(this.native)
  }
}

/** A memory file for the in-flight log, zeroed. @throws NoDescriptorError */
export function memoryFile(bytes: number): number {
  const fd = fileIo.memoryFile(bytes)
  if (fd < 0) throw new NoDescriptorError(-fd)
  return fd
}
