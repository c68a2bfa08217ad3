// File systems made for one test: on loop devices, in memory, or laid over others; and loop devices by themselves.
// Law: none outlives its test, not even one whose process is killed.
import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, statfsSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { temporaryFolder } from './candor.js'
import type { Scope } from './faults.js'

export type DiskType = 'ext4' | 'xfs' | 'btrfs' | 'vfat'

export interface LoopDiskOptions {
  readonly type: DiskType
  readonly sizeMiB: number
  /** As `mount -o` takes them. */
  readonly mountOptions?: string
}

/** A mounted file system. */
export interface Mounted {
  readonly folder: string
  /** Bytes that may still be allocated. */
  freeBytes(): number
  /** Commits what is pending, so that space which was freed can be had again. */
  settle(): void
}

export interface LoopDisk extends Mounted {
  /** /dev/loopN */
  readonly device: string
  /** Makes the disk and its file system larger while it is mounted; XFS only. */
  grow(sizeMiB: number): void
}

const MIB = 2 ** 20

// No reserved blocks and no lazy initialization, so that the space there is does not change by itself.
const MAKE: Readonly<Record<DiskType, readonly string[]>> = {
  ext4: ['mkfs.ext4', '-q', '-F', '-m', '0', '-b', '4096', '-E', 'lazy_itable_init=0,lazy_journal_init=0'],
  xfs: ['mkfs.xfs', '-q', '-f'],
  btrfs: ['mkfs.btrfs', '-q', '-f'],
  vfat: ['mkfs.vfat'],
}

/** Runs a program of the host. @throws with what it wrote to stderr */
export function run(program: string, ...args: readonly string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim()
}

/** Whether this kernel has a file system built in, or as a module that can be loaded. */
export function kernelKnows(type: string): boolean {
  try {
    run('modprobe', '-q', type)
  } catch {
    // There may be no modprobe and no modules: the list below decides.
  }
  return readFileSync('/proc/filesystems', 'utf8').split(/\s+/).includes(type)
}

/** A new file system in a sparse file, mounted. XFS wants 300 MiB at least. */
export function mountLoopDisk(scope: Scope, { type, sizeMiB, mountOptions }: LoopDiskOptions): LoopDisk {
  const home = scratch(scope)
  const image = sparseFile(join(home, 'disk'), sizeMiB * MIB)
  const [program = '', ...args] = MAKE[type]
  run(program, ...args, image)
  // A loop device that mount made goes away with the mount (LO_FLAGS_AUTOCLEAR).
  const mounted = mountAt(scope, home, ['-t', type, '-o', ['loop', mountOptions ?? []].flat().join(','), image])
  const device = run('findmnt', '-n', '-o', 'SOURCE', mounted.folder)
  return { ...mounted, device, grow: (larger) => growDisk({ type, image, device, folder: mounted.folder }, larger) }
}

/** Mounts the file system that a file holds, which stays when the mount goes. */
export function mountFile(scope: Scope, type: DiskType, image: string, ...mountOptions: readonly string[]): Mounted {
  return mountAt(scope, scratch(scope), ['-t', type, '-o', ['loop', ...mountOptions].join(','), image])
}

function growDisk(
  { type, image, device, folder }: { type: DiskType; image: string; device: string; folder: string },
  sizeMiB: number,
): void {
  truncateSync(image, sizeMiB * MIB)
  run('losetup', '-c', device)
  // ext4 would want CAP_SYS_RESOURCE for it, which root does not have everywhere.
  if (type === 'xfs') run('xfs_growfs', folder)
  else throw new TypeError(`${type} cannot be grown here`)
}

/** A file system in memory. ramfs knows no holes and no bounds. */
export function mountMemory(scope: Scope, type: 'tmpfs' | 'ramfs', mountOptions = ''): Mounted {
  return mountAt(scope, scratch(scope), ['-t', type, ...(mountOptions === '' ? [] : ['-o', mountOptions]), type])
}

/** A writable overlayfs on two folders of a tmpfs, as a container's root is. */
export function mountOverlay(scope: Scope): Mounted {
  const { folder } = mountMemory(scope, 'tmpfs')
  const layers = ['lower', 'upper', 'work'].map((name) => join(folder, name))
  for (const layer of layers) mkdirSync(layer)
  const [lower, upper, work] = layers
  const layout = `lowerdir=${lower},upperdir=${upper},workdir=${work}`
  return mountAt(scope, scratch(scope), ['-t', 'overlay', '-o', layout, 'overlay'])
}

/** Puts a file behind a loop device and returns its path. */
export function attachLoopDevice(scope: Scope, file: string, sectorBytes: number): string {
  const device = run('losetup', '--find', '--show', '--sector-size', String(sectorBytes), file)
  const disarm = orphanage('losetup -d "$1"', device)
  scope.after(() => {
    run('losetup', '-d', device)
    disarm()
  })
  return device
}

/** Makes a file of this size that takes no space. Returns its path. */
export function sparseFile(path: string, size: number): string {
  writeFileSync(path, '')
  truncateSync(path, size)
  return path
}

// One call each: a process for each of them would take minutes.
const EXTENTS_SCRIPT = `
import ctypes, os, sys
path, count, length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
fallocate = ctypes.CDLL(None).fallocate64
fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong]
fd = os.open(path, os.O_RDWR)
for index in range(count):
    assert fallocate(fd, 0, 2 * index * length, length) == 0
os.fsync(fd)
`

/** Allocates every other \`length\` bytes of a sparse file, from its beginning: \`count\` extents. */
export function manyExtents(path: string, count: number, length: number): void {
  run('/usr/bin/python3', '-c', EXTENTS_SCRIPT, path, String(count), String(length))
}

/** Bytes that a file takes on its file system. */
export function allocatedBytes(path: string): number {
  return statSync(path).blocks * 512
}

function scratch(scope: Scope): string {
  const folder = temporaryFolder()
  scope.after(() => folder.remove())
  return folder.path
}

function mountAt(scope: Scope, home: string, args: readonly string[]): Mounted {
  const folder = join(home, `mounted-${basename(home)}`)
  mkdirSync(folder)
  run('mount', ...args, folder)
  const disarm = orphanage('umount -l "$1"; rm -rf "$2"', folder, home)
  scope.after(() => {
    unmount(folder)
    disarm()
    rmSync(folder, { recursive: true, force: true })
  })
  return {
    folder,
    freeBytes: () => {
      const { bavail, bsize } = statfsSync(folder)
      return bavail * bsize
    },
    settle: () => run('sync', '-f', folder),
  }
}

/** Lazily where it is busy, which means that a test left a process behind: then the test has to fail, but clean. */
function unmount(folder: string): void {
  try {
    run('umount', folder)
  } catch (error) {
    run('umount', '-l', folder)
    throw error
  }
}

/** A shell that cleans up when this process dies without doing so: its standard input ends then. Returns the disarming. */
export function orphanage(script: string, ...args: readonly string[]): () => void {
  const guard = spawn('sh', ['-c', `read -r _; ${script}`, 'sh', ...args], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  })
  guard.unref()
  if ('unref' in guard.stdin && typeof guard.stdin.unref === 'function') guard.stdin.unref()
  return () => guard.kill('SIGKILL')
}
