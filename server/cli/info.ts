// `candor info`: what a server tells of an export, seen through nbd-protocol's client half.
import {
  BASE_ALLOCATION,
  type BlockDescriptor,
  type ClientHandshake,
  type ExportInfo,
  enterTransmission,
  type MetaContext,
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_ROTATIONAL,
  NBD_FLAG_SEND_CACHE,
  NBD_FLAG_SEND_DF,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
  NBD_STATE_HOLE,
  NBD_STATE_ZERO,
  OptionError,
  ProtocolError,
  RequestError,
} from 'nbd-protocol'
import { UsageError } from '../values.js'
import type { Command } from './command.js'
import { beginHandshake, type NbdTarget, parseUri } from './connect.js'
import { formatBytes } from './format.js'

interface InfoFlags {
  readonly uri: string
  readonly json?: boolean
  readonly map?: boolean
  readonly list?: boolean
  readonly size?: boolean
}

const CAPABILITIES: readonly (readonly [string, number])[] = [
  ['is_read_only', NBD_FLAG_READ_ONLY],
  ['can_flush', NBD_FLAG_SEND_FLUSH],
  ['can_fua', NBD_FLAG_SEND_FUA],
  ['can_trim', NBD_FLAG_SEND_TRIM],
  ['can_zero', NBD_FLAG_SEND_WRITE_ZEROES],
  ['can_fast_zero', NBD_FLAG_SEND_FAST_ZERO],
  ['can_df', NBD_FLAG_SEND_DF],
  ['can_cache', NBD_FLAG_SEND_CACHE],
  ['can_multi_conn', NBD_FLAG_CAN_MULTI_CONN],
  ['is_rotational', NBD_FLAG_ROTATIONAL],
]

/** What is printed of one export, as JSON and as text. */
interface ExportReport {
  readonly 'export-name': string
  readonly description: string
  readonly 'export-size': number
  readonly flags: Readonly<Record<string, boolean>>
  readonly 'block-size': ExportInfo['blockSizes']
  readonly contexts: readonly string[]
  readonly map?: readonly Run[]
}

interface Run {
  readonly offset: number
  length: number
  readonly type: string
}

interface Report {
  readonly protocol: 'newstyle-fixed'
  readonly tls: boolean
  readonly structured: boolean
  readonly exports: readonly ExportReport[]
}

async function describe(handshake: ClientHandshake, name: string): Promise<ExportReport> {
  const info = await handshake.info(name)
  const contexts = await listContexts(handshake, name)
  const flags = info.transmissionFlags ?? 0
  return {
    'export-name': info.name ?? name,
    description: info.description ?? '',
    'export-size': info.size ?? 0,
    flags: Object.fromEntries(CAPABILITIES.map(([word, bit]) => [word, (flags & bit) !== 0])),
    'block-size': info.blockSizes,
    contexts: contexts.map((context) => context.name),
  }
}

async function ask(target: NbdTarget, list: boolean): Promise<Report> {
  const handshake = await beginHandshake(target)
  const structured = (await handshake.replies('structured')) !== 'simple'
  const names = list ? (await handshake.list()).map(({ name }) => name) : [target.exportName]
  const exports: ExportReport[] = []
  for (const name of names) exports.push(await describe(handshake, name))
  await handshake.abort()
  return { protocol: 'newstyle-fixed', tls: target.tls !== undefined, structured, exports }
}

// Older servers know no metadata contexts: then there are none to print.
async function listContexts(handshake: ClientHandshake, name: string): Promise<MetaContext[]> {
  try {
    return await handshake.listContexts(name)
  } catch (error) {
    if (error instanceof OptionError) return []
    throw error
  }
}

const MAP_STEP_BYTES = 1 << 30

function typeOf(flags: number): string {
  const hole = (flags & NBD_STATE_HOLE) !== 0
  const zero = (flags & NBD_STATE_ZERO) !== 0
  if (hole) return zero ? 'hole' : 'hole, unknown contents'
  return zero ? 'zero' : 'data'
}

async function mapOf(target: NbdTarget, name: string): Promise<Run[]> {
  const client = await enterTransmission(await beginHandshake(target), name, { contexts: [BASE_ALLOCATION] })
  const runs: Run[] = []
  for (let offset = 0; offset < client.size; ) {
    const length = Math.min(MAP_STEP_BYTES, client.size - offset)
    const status = await client.blockStatus(offset, length)
    const descriptors: readonly BlockDescriptor[] = status.get(BASE_ALLOCATION) ?? [{ length, flags: 0 }]
    for (const descriptor of descriptors) {
      const type = typeOf(descriptor.flags)
      const last = runs.at(-1)
      if (last?.type === type) last.length += descriptor.length
      else runs.push({ offset, length: descriptor.length, type })
      offset += descriptor.length
    }
  }
  await client.disconnect()
  return runs
}

function textOf(report: ExportReport): string[] {
  const blockSizes = report['block-size']
  return [
    `export: ${report['export-name']}`,
    ...(report.description === '' ? [] : [`description: ${report.description}`]),
    `export-size: ${report['export-size']} (${formatBytes(report['export-size'])})`,
    ...Object.entries(report.flags).map(([name, set]) => `${name}: ${set}`),
    `contexts: ${report.contexts.join(', ')}`,
    ...Object.entries(blockSizes ?? {}).map(([name, bytes]) => `block_size_${name}: ${bytes}`),
    ...(report.map ?? []).map(({ offset, length, type }) => `${pad(offset)} ${pad(length)}  ${type}`),
  ]
}

function pad(number: number): string {
  return number.toString().padStart(16)
}

function text({ tls, structured, exports }: Report): string {
  const how = `${tls ? 'with' : 'without'} TLS, using ${structured ? 'structured' : 'simple'} packets`
  return `${[`protocol: newstyle-fixed ${how}`, ...exports.flatMap(textOf)].join('\n')}\n`
}

async function gather(target: NbdTarget, { list, map }: InfoFlags): Promise<Report> {
  const report = await ask(target, list ?? false)
  if (!map) return report
  const exports: ExportReport[] = []
  for (const entry of report.exports) exports.push({ ...entry, map: await mapOf(target, entry['export-name']) })
  return { ...report, exports }
}

async function run(flags: InfoFlags): Promise<number> {
  const target = parseUri(flags.uri)
  try {
    const report = await gather(target, flags)
    if (flags.size) process.stdout.write(report.exports.map((entry) => `${entry['export-size']}\n`).join(''))
    else process.stdout.write(flags.json ? `${JSON.stringify(report, undefined, 2)}\n` : text(report))
    return 0
  } catch (error) {
    if (error instanceof OptionError || error instanceof ProtocolError || error instanceof RequestError) {
      throw new UsageError(`${flags.uri}: ${error.message}`)
    }
    throw error
  }
}

export const info: Command<InfoFlags> = {
  words: 'info <uri>',
  describe: 'show what a server exports',
  flags: (yargs) =>
    yargs
      .positional('uri', { describe: 'nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH', type: 'string' })
      .options({
        json: { type: 'boolean', describe: 'for programs' },
        map: { type: 'boolean', describe: 'data and holes too' },
        list: { type: 'boolean', describe: 'every export that the server lists' },
        size: { type: 'boolean', describe: 'only the size in bytes' },
      })
      .example('$0 info nbd://127.0.0.1/disk.img --map', 'what is there, and where its data lies'),
  run,
}
