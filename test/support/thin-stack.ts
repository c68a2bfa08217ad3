// Storage that takes every write and fails when it has to keep them, with the kernel's own errors: a small tmpfs, in it
// a sparse file with ext4, as a thin volume whose pool is exhausted. Law: what fails is the kernel's word, not ours.
import assert from 'node:assert/strict'
import { statfsSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { Client } from 'nbd-protocol'
import { NBD_EIO, RequestError } from 'nbd-protocol'
import type { RunningCandor } from './candor.js'
import { MIB, type Scope, stamped } from './faults.js'
import { type Mounted, mountFile, mountMemory, run, sparseFile } from './loop-disk.js'
import { calmWriteBack } from './write-back-pace.js'

const POOL_MIB = 64
const DISK_BYTES = 1024 * MIB
/** Superblock, bitmaps and the few inodes lie here, and have their space in the pool from the start. */
const METADATA_BYTES = 8 * MIB

/** File systems that fail in their own ways: one goes on, one aborts its journal after seconds, one keeps its log. */
export type StackKind = 'ext4' | 'ext4 with a journal' | 'xfs'

const MAKE_EXT4 = ['mkfs.ext4', '-q', '-F', '-m', '0', '-b', '4096', '-N', '64']
interface Kind {
  readonly type: 'ext4' | 'xfs'
  readonly make: readonly string[]
  readonly mountOptions?: readonly string[]
}

const KINDS: Readonly<Record<StackKind, Kind>> = {
  ext4: { type: 'ext4', make: [...MAKE_EXT4, '-O', '^has_journal', '-E', 'lazy_itable_init=0'] },
  // The journal is committed when a test asks for it, not every five seconds: it is then that it finds no room.
  'ext4 with a journal': {
    type: 'ext4',
    make: [...MAKE_EXT4, '-E', 'lazy_itable_init=0,lazy_journal_init=0'],
    mountOptions: ['commit=300'],
  },
  xfs: { type: 'xfs', make: ['mkfs.xfs', '-q', '-f'] },
}
/** What XFS writes of its log when it is made. */
const XFS_LOG_MIB = 66
const GIVE_UP_TIMEOUT_MS = 40_000

export interface ThinStack extends Mounted {
  /** Makes the pool no larger than what it holds. */
  exhaust(): void
  /** Gives the pool more memory: what failed for want of it succeeds from now on. */
  enlarge(sizeMiB: number): void
  /** Takes the pool's data away, and the room for it: from now on no write of data can be kept. */
  breakDown(): void
  /**
   * Makes an image of which the file system has given out every block, and the pool none: like that nothing is lost but
   * the image's data, and the file system is sound again as soon as the pool is.
   */
  provision(name: string, size: number): string
  /** Takes the file system away from everybody. @throws where somebody holds a file on it */
  unmount(): void
  /** Brings it back as the pool holds it, on a loop device of its own or on this one. */
  mount(device?: string): void
  /** Both: what the page cache knew is gone. */
  remount(): void
  /** Has the file system itself find out that its storage fails: the journal aborts, or everything is shut down. */
  giveUp(): Promise<void>
  /** The file that holds the file system. */
  readonly disk: string
}

/** What `needsRoot` is to be asked for a thin stack. */
export const THIN_STACK_NEEDS = ['mkfs.ext4', 'losetup', 'fallocate', 'setpriv', 'flock'] as const

/** A pool of 64 MiB for data under a file system of 1 GiB, without a journal unless it is asked for. */
export function mountThinStack(scope: Scope, kind: StackKind = 'ext4'): ThinStack {
  calmWriteBack(scope)
  const { type, make, mountOptions = [] } = KINDS[kind]
  const pool = mountMemory(scope, 'tmpfs', `size=${type === 'xfs' ? POOL_MIB + XFS_LOG_MIB : POOL_MIB}m`)
  const disk = sparseFile(join(pool.folder, 'disk'), DISK_BYTES)
  const [program = '', ...args] = make
  run(program, ...args, disk)
  if (kind === 'ext4') keepMetadata(disk)
  const mounted = mountFile(scope, type, disk, ...mountOptions)
  takePagesOneByOne(mounted)
  const exhaust = () => {
    const { blocks, bfree, bsize } = statfsSync(pool.folder)
    run('mount', '-o', `remount,size=${(blocks - bfree) * bsize}`, pool.folder)
  }
  const enlarge = (sizeMiB: number) => run('mount', '-o', `remount,size=${sizeMiB}m`, pool.folder)
  return {
    ...mounted,
    enlarge,
    exhaust,
    breakDown: () => {
      run('fallocate', '--punch-hole', '--offset', String(METADATA_BYTES), '--length', String(DISK_BYTES), disk)
      exhaust()
    },
    provision: (name, size) => {
      enlarge(POOL_MIB + size / MIB)
      const image = join(mounted.folder, name)
      writeFileSync(image, Buffer.alloc(size), { flush: true })
      run('fallocate', '--dig-holes', disk)
      keepMetadata(disk)
      enlarge(POOL_MIB)
      return image
    },
    ...mounting(mounted, type, disk),
    giveUp: () => (type === 'xfs' ? shutDown(mounted) : untilReadOnly(mounted)),
    disk,
  }
}

function mounting(mounted: Mounted, type: string, disk: string): Pick<ThinStack, 'unmount' | 'mount' | 'remount'> {
  const unmount = () => run('umount', mounted.folder)
  const mount = (device?: string) => {
    const source = device === undefined ? ['-o', 'loop', disk] : [device]
    run('mount', '-t', type, ...source, mounted.folder)
    takePagesOneByOne(mounted)
  }
  const remount = () => {
    unmount()
    mount()
  }
  return { unmount, mount, remount }
}

async function shutDown({ folder }: Mounted): Promise<void> {
  run('xfs_io', '-x', '-c', 'shutdown', folder)
}

/** Newer kernels call an aborted file system emergency_ro, older ones make it read-only. */
async function untilReadOnly(mounted: Mounted): Promise<void> {
  const deadline = performance.now() + GIVE_UP_TIMEOUT_MS
  while (!/(^|,)(emergency_)?ro(,|$)/.test(run('findmnt', '-n', '-o', 'FS-OPTIONS', mounted.folder))) {
    assert.ok(performance.now() < deadline, 'the journal was not aborted')
    changeMetadata(mounted)
    writeBack(mounted)
    await pause(50)
  }
}

function keepMetadata(disk: string): void {
  run('fallocate', '--keep-size', '--length', String(METADATA_BYTES), disk)
}

/**
 * The loop driver calls a request done of which the file under it took only a part (lo_complete_rq minds short reads,
 * not short writes). Storage that lies is another matter, so no request is longer than what is taken or refused whole.
 */
function takePagesOneByOne({ folder }: Mounted): void {
  const device = basename(run('findmnt', '-n', '-o', 'SOURCE', folder))
  writeFileSync(`/sys/block/${device}/queue/max_sectors_kb`, '4')
}

/** Gives the journal something to commit. */
function changeMetadata({ folder }: Mounted): void {
  try {
    run('touch', folder)
  } catch {
    // It has become read-only just now.
  }
}

/** Takes a file's clean pages out of the page cache, so that reads tell what storage holds. */
export function evictFile(image: string): void {
  run('dd', `if=${image}`, 'iflag=nocache', 'count=0', 'status=none')
}

/** The same, and what lies under it too. */
export function evict(image: string): void {
  evictFile(image)
  writeFileSync('/proc/sys/vm/drop_caches', '1')
}

/** Reads a file, as a backup does: what storage holds is in the page cache then. */
export function fillCache(image: string): void {
  run('dd', `if=${image}`, 'of=/dev/null', 'bs=1M', 'status=none')
}

/** The kernel writes dirty pages back, as it would some time; whoever calls is not the one who is told of errors. */
export function writeBack({ folder }: Mounted): void {
  try {
    run('sync', '--file-system', folder)
  } catch {
    // That it fails is what these stacks are for.
  }
}

/** Writes [start, end) in requests of 1 MiB, all in flight at once, with the content of stamped(). */
export async function writeStamped(client: Client, start: number, end: number, round = 0, flags = 0): Promise<void> {
  const offsets = Array.from({ length: (end - start) / MIB }, (_, index) => start + index * MIB)
  await Promise.all(offsets.map((offset) => client.write(offset, stamped(offset, MIB, round), flags)))
}

/** What reads of 1 MiB each came to. */
export interface ReadBack {
  /** Offsets of which the data are what was written. */
  readonly right: readonly number[]
  /** Offsets that were answered with EIO. */
  readonly refused: readonly number[]
  /** Offsets that were answered with success and other bytes: lies. */
  readonly wrong: readonly number[]
}

/** Reads [start, end) and compares with stamped(). @throws when the answer is neither data nor EIO */
export async function readBack(client: Client, start: number, end: number, round = 0): Promise<ReadBack> {
  const result = { right: [] as number[], refused: [] as number[], wrong: [] as number[] }
  for (let offset = start; offset < end; offset += MIB) {
    const data = await client.read(offset, MIB).catch((error: unknown) => {
      if (error instanceof RequestError && error.error === NBD_EIO) return undefined
      throw error
    })
    if (data === undefined) result.refused.push(offset)
    else if (stamped(offset, MIB, round).compare(data) === 0) result.right.push(offset)
    else result.wrong.push(offset)
  }
  return result
}

/** What /metrics says of suspect bytes. */
export async function suspectBytes(candor: RunningCandor, name: string): Promise<number | undefined> {
  return (await candor.metrics()).get(`candor_export_suspect_bytes{export="${name}"}`)
}

/** The NBD error of a request that has to fail, and to be answered. */
export async function errorOf(request: Promise<unknown>): Promise<number> {
  const error = await request.then(
    () => assert.fail('the request succeeded'),
    (reason: unknown) => reason,
  )
  if (!(error instanceof RequestError)) throw error
  return error.error
}
