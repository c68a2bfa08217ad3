// What the figures were taken on, for the head of the report.

import { readFile } from 'node:fs/promises'
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os'

export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGiB: number
  readonly kernel: string
  readonly node: string
  readonly loadBefore: number
  readonly fileSystem: string
}

export async function describeMachine(dir: string): Promise<Machine> {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 1024 ** 3),
    // Without what a distribution or a hoster calls its own build.
    kernel: release().split('-')[0] ?? release(),
    node: process.version,
    loadBefore: loadavg()[0] ?? 0,
    fileSystem: fileSystemOf(dir, await readFile('/proc/self/mountinfo', 'utf8')),
  }
}

/** proc(5): "ID parent device root MOUNT-POINT options [tags] - TYPE source options"; the longest mount point wins. */
export function fileSystemOf(dir: string, mountinfo: string): string {
  let best = { point: '', type: 'unknown' }
  for (const line of mountinfo.split('\n')) {
    const point = line.split(' ')[4]
    const type = line.split(' - ')[1]?.split(' ')[0]
    if (point === undefined || type === undefined || point.length < best.point.length) continue
    if (dir === point || dir.startsWith(point.endsWith('/') ? point : `${point}/`)) best = { point, type }
  }
  return best.type
}
