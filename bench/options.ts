// The command line of the benchmark: flags to one frozen Options value. An operator's mistake is an OptionsError.

import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { AXES } from './growth.js'
import type { Axis } from './growth-axis.js'
import { JOBS, type Job } from './jobs.js'

export const PEERS = ['nbdkit', 'qemu-nbd', 'c-loop'] as const
export type Peer = (typeof PEERS)[number]

export interface Options {
  readonly jobs: readonly Job[]
  readonly peers: readonly Peer[]
  readonly candor: boolean
  readonly rounds: number
  readonly seconds: number
  readonly warmUpMs: number
  readonly imageBytes: number
  readonly copyBytes: number
  readonly dir: string
  readonly json: string | undefined
  readonly peerRoot: string | undefined
  /** How the cost grows is measured, and nothing else. */
  readonly growth: readonly Axis[]
}

export class OptionsError extends Error {}

export const USAGE = `usage: npm run bench -- [flags]

  --quick             every job, short: 2 rounds of half a second on a 256M image
  --jobs LIST         ${nameJobs(0, 4)},
                      ${nameJobs(4, 8)},
                      ${nameJobs(8)}
  --peers LIST        ${PEERS.join(',')} (default: all; '' for none)
  --no-candor         measure the peers alone
  --rounds N          rounds per job (default 5)
  --seconds N         length of one measurement (default 3)
  --image-size SIZE   of the images under fio (default 1G)
  --copy-size SIZE    of the images under nbdcopy (default 2G)
  --dir DIR           where the images live (default: the system's temporary folder)
  --peer-root DIR     run nbdkit and qemu-nbd under chroot DIR; the images then live in DIR/var/tmp
  --json FILE         write every figure of every round
  --plot [LIST]       how the cost grows, and nothing else: tables and plots in docs/, of
                      ${AXES.map(({ name }) => name).join(',')}
`

const FLAGS = {
  quick: { type: 'boolean', default: false },
  jobs: { type: 'string' },
  peers: { type: 'string' },
  'no-candor': { type: 'boolean', default: false },
  rounds: { type: 'string' },
  seconds: { type: 'string' },
  'image-size': { type: 'string' },
  'copy-size': { type: 'string' },
  dir: { type: 'string' },
  'peer-root': { type: 'string' },
  json: { type: 'string' },
  plot: { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
} as const

function nameJobs(from: number, to?: number): string {
  return JOBS.slice(from, to)
    .map((job) => job.name)
    .join(',')
}

/** Returns undefined when help was asked for. Throws OptionsError with one plain sentence. */
export function parseOptions(argv: readonly string[]): Options | undefined {
  const { values, positionals } = parse(argv)
  if (values.help) return undefined
  const quick = values.quick
  const peerRoot = values['peer-root'] === undefined ? undefined : resolve(values['peer-root'])
  const dir = resolve(values.dir ?? (peerRoot === undefined ? tmpdir() : join(peerRoot, 'var/tmp')))
  if (peerRoot !== undefined && !dir.startsWith(`${peerRoot}/`)) {
    throw new OptionsError(`--dir ${dir} must lie inside --peer-root ${peerRoot}, where the peers can see it`)
  }
  if (peerRoot !== undefined && process.getuid?.() !== 0) {
    throw new OptionsError('--peer-root uses chroot and needs root')
  }
  const options: Options = {
    jobs: choose('--jobs', values.jobs, JOBS, (job) => job.name),
    peers: choose('--peers', values.peers, PEERS, (peer) => peer),
    candor: !values['no-candor'],
    rounds: count('--rounds', values.rounds, quick ? 2 : 5),
    seconds: count('--seconds', values.seconds, quick ? 0.5 : 3),
    warmUpMs: quick ? 200 : 1000,
    imageBytes: size('--image-size', values['image-size'] ?? (quick ? '256M' : '1G')),
    copyBytes: size('--copy-size', values['copy-size'] ?? (quick ? '512M' : '2G')),
    dir,
    json: values.json === undefined ? undefined : resolve(values.json),
    peerRoot,
    growth: axes(values.plot, positionals),
  }
  return Object.freeze(options)
}

function parse(argv: readonly string[]) {
  try {
    return parseArgs({ args: [...argv], options: FLAGS, strict: true, allowPositionals: true })
  } catch (error) {
    // parseArgs throws nothing but TypeErrors, each with a sentence for the operator.
    if (error instanceof TypeError) throw new OptionsError(error.message)
    throw error
  }
}

function axes(plot: boolean, positionals: readonly string[]): Axis[] {
  const [list, more] = plot ? positionals : [undefined, ...positionals]
  if (more !== undefined) throw new OptionsError(`'${more}' is neither a flag nor the value of one: see --help`)
  return plot ? choose('--plot', list, AXES, ({ name }) => name) : []
}

function choose<T>(flag: string, list: string | undefined, all: readonly T[], nameOf: (item: T) => string): T[] {
  if (list === undefined) return [...all]
  const wanted = list.split(',').filter((word) => word !== '')
  const unknown = wanted.find((word) => !all.some((item) => nameOf(item) === word))
  if (unknown !== undefined) {
    throw new OptionsError(`${flag}: '${unknown}' is none of ${all.map(nameOf).join(', ')}`)
  }
  return all.filter((item) => wanted.includes(nameOf(item)))
}

function count(flag: string, text: string | undefined, preset: number): number {
  if (text === undefined) return preset
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new OptionsError(`${flag} takes a whole number from 1 to 9999, not '${text}'`)
  return Number(text)
}

function size(flag: string, text: string): number {
  const match = /^(\d+)([MGT])$/.exec(text)
  const bytes = match === null ? 0 : Number(match[1]) * 1024 ** ' KMGT'.indexOf(match[2] ?? ' ')
  if (bytes < 16 * 1024 ** 2 || !Number.isSafeInteger(bytes)) {
    throw new OptionsError(`${flag} takes a size such as 512M or 1G, at least 16M, not '${text}'`)
  }
  return bytes
}
