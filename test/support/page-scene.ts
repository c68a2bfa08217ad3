// The scenario of the full disk, as the status page meets it: a sparse image on a file system that is full in the middle
// of a guest's work, beside disks that are well.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { type Client, NBD_ENOSPC, RequestError } from 'nbd-protocol'
import { type RunningCandor, temporaryFolder } from './candor.js'
import { attach, MIB, type Scope, serve, stamped } from './faults.js'
import { type Mounted, mountLoopDisk, mountMemory, orphanage, run, sparseFile } from './loop-disk.js'

const DISK_MIB = 200
export const IMAGE_MIB = 1024

export interface FullDiskScene {
  readonly candor: RunningCandor
  readonly state: string
  readonly url: string
  readonly client: Client
  /** Offsets of the requests of 64 KiB that came back with ENOSPC, in order. */
  readonly failed: readonly number[]
  /** A guest's further work: overwrites and reads, which go on, and writes to new places, which fail. */
  work(rounds: number, fails?: boolean): Promise<void>
}

const REQUEST_BYTES = 64 << 10

/** What a guest with some files on it writes: runs of data with gaps between them. */
function* places(): Iterable<number> {
  for (let start = 0; start < IMAGE_MIB; start += 16) {
    const run = 3 + ((start * 7) % 11)
    for (let at = start * MIB; at < (start + run) * MIB; at += REQUEST_BYTES) yield at
  }
}

/** The same file system at a path that can be read. */
function shownAs(scope: Scope, { folder }: Mounted, path: string): string {
  mkdirSync(path)
  run('mount', '--bind', folder, path)
  const disarm = orphanage('umount -l "$1"', path)
  scope.after(() => {
    run('umount', path)
    disarm()
  })
  return path
}

export async function fullDisk(scope: Scope, words: readonly string[] = []): Promise<FullDiskScene> {
  const folder = temporaryFolder()
  scope.after(() => folder.remove())
  const disk = mountLoopDisk(scope, { type: 'ext4', sizeMiB: DISK_MIB })
  const place = shownAs(scope, disk, join(folder.path, 'srv'))
  const other = shownAs(scope, mountMemory(scope, 'tmpfs', 'size=160m'), join(folder.path, 'fast'))
  const image = sparseFile(join(place, 'disk1.img'), IMAGE_MIB * MIB)
  const others = ['boot', 'scratch'].map((name) => `${name}=${sparseFile(join(other, `${name}.img`), 64 * MIB)}`)
  const state = join(folder.path, 'state')
  const candor = await serve(scope, [`disk1=${image}`, ...others, '--state-dir', state, ...words])
  const client = await attach(candor)
  const failed: number[] = []
  const write = async (at: number) => {
    const told = await client.write(at, stamped(at, REQUEST_BYTES)).catch((error: unknown) => error)
    if (told === undefined) return
    if (!(told instanceof RequestError) || told.error !== NBD_ENOSPC) throw told
    failed.push(at)
  }
  const beyond = (IMAGE_MIB / 4) * 3 * MIB
  for (const at of places()) {
    if (at < beyond) await write(at)
  }
  const work = async (rounds: number, fails = true) => {
    for (let round = 0; round < rounds; round++) {
      for (let at = 0; at < (1 + (round % 3)) * MIB; at += REQUEST_BYTES)
        await client.write(at, stamped(at, REQUEST_BYTES))
      await client.read((round % 16) * MIB, 2 * MIB)
      if (round % 5 === 0) await client.flush()
      if (fails && round % 3 === 0) await write(beyond + round * MIB)
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
  }
  return { candor, state, url: candor.httpUrl ?? '', client, failed, work }
}
