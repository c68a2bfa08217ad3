// What is measured: each job once, in the order in which it runs. Jobs on the same kind of image stand together, so
// that the images of only one kind exist at a time.

/** sparse: every other MiB is a hole; full: written throughout, so that writes allocate nothing; copy: as sparse. */
export type ImageKind = 'sparse' | 'full' | 'copy'

export interface FioJob {
  readonly tool: 'fio'
  readonly name: string
  readonly title: string
  readonly image: ImageKind
  readonly unit: 'IOPS' | 'MiB/s'
  readonly pattern: 'randread' | 'randwrite' | 'randrw' | 'read' | 'write'
  readonly blockKiB: number
  readonly depth: number
  readonly connections: number
  readonly cold: boolean
  readonly tls: boolean
}

export interface CopyJob {
  readonly tool: 'nbdcopy'
  readonly name: string
  readonly title: string
  readonly image: ImageKind
  readonly unit: 'MiB/s'
  readonly direction: 'from-server' | 'to-server'
}

export type Job = FioJob | CopyJob

const FIO = { tool: 'fio', unit: 'IOPS', blockKiB: 4, depth: 32, connections: 1, cold: false, tls: false } as const
const COPY = { tool: 'nbdcopy', unit: 'MiB/s', image: 'copy' } as const

export const JOBS: readonly Job[] = [
  { ...FIO, name: 'random-read', title: '4 KiB random read, depth 32', image: 'sparse', pattern: 'randread' },
  {
    ...FIO,
    name: 'random-read-1',
    title: '4 KiB random read, depth 1',
    image: 'sparse',
    pattern: 'randread',
    depth: 1,
  },
  {
    ...FIO,
    name: 'random-read-4x16',
    title: '4 KiB random read, 4 connections of depth 16',
    image: 'sparse',
    pattern: 'randread',
    depth: 16,
    connections: 4,
  },
  {
    ...FIO,
    name: 'sequential-read',
    title: '256 KiB sequential read, depth 16',
    image: 'sparse',
    unit: 'MiB/s',
    pattern: 'read',
    blockKiB: 256,
    depth: 16,
  },
  {
    ...FIO,
    name: 'tls-random-read',
    title: '4 KiB random read, depth 32, TLS',
    image: 'sparse',
    pattern: 'randread',
    tls: true,
  },
  {
    ...FIO,
    name: 'tls-sequential-read',
    title: '256 KiB sequential read, depth 16, TLS',
    image: 'sparse',
    unit: 'MiB/s',
    pattern: 'read',
    blockKiB: 256,
    depth: 16,
    tls: true,
  },
  { ...FIO, name: 'random-write', title: '4 KiB random write, depth 32', image: 'full', pattern: 'randwrite' },
  {
    ...FIO,
    name: 'mixed',
    title: '16 KiB 70/30 random mix, depth 16',
    image: 'full',
    pattern: 'randrw',
    blockKiB: 16,
    depth: 16,
  },
  {
    ...FIO,
    name: 'sequential-write',
    title: '256 KiB sequential write, depth 16',
    image: 'full',
    unit: 'MiB/s',
    pattern: 'write',
    blockKiB: 256,
    depth: 16,
  },
  {
    ...FIO,
    name: 'cold-read',
    title: '4 KiB random read, depth 32, cold cache',
    image: 'full',
    pattern: 'randread',
    cold: true,
  },
  { ...COPY, name: 'copy-from', title: 'nbdcopy from the server, half-sparse', direction: 'from-server' },
  { ...COPY, name: 'copy-to', title: 'nbdcopy to the server, half-sparse', direction: 'to-server' },
]

export function overTls(job: Job): boolean {
  return job.tool === 'fio' && job.tls
}

export function writes(job: Job): boolean {
  return job.tool === 'nbdcopy' ? job.direction === 'to-server' : !/^(rand)?read$/.test(job.pattern)
}
