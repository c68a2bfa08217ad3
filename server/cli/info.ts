// `candor info`: what a server tells of an export, seen through nbd-protocol's client half.
import {
  BASE_ALLOCATION,
  type BlockDescriptor,
  type Client,
  ClientHandshake,
  connectClient,
  type ExportInfo,
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
import { type NbdTarget, openStream, parseUri } from './connect.js'
import { formatBytes } from './format.js'

interface InfoFlags {
  readonly uri: string
  readonly json?: boolean
  readonly map?: boolean
}

const CAPABILITIES: readonly (readonly [string, number])[] = [
  ['read_only', NBD_FLAG_READ_ONLY],
  ['can_flush', NBD_FLAG_SEND_FLUSH],
  ['can_fua', NBD_FLAG_SEND_FUA],
  ['can_trim', NBD_FLAG_SEND_TRIM],
  ['can_write_zeroes', NBD_FLAG_SEND_WRITE_ZEROES],
  ['can_fast_zero', NBD_FLAG_SEND_FAST_ZERO],
  ['can_df', NBD_FLAG_SEND_DF],
  ['can_cache', NBD_FLAG_SEND_CACHE],
  ['can_multi_conn', NBD_FLAG_CAN_MULTI_CONN],
  ['rotational', NBD_FLAG_ROTATIONAL],
]

/** What is printed, as JSON and as text. */
interface Report {
  readonly uri: string
  readonly export: string
  readonly description: string
  readonly size: number
  readonly flags: Readonly<Record<string, boolean>>
  readonly blockSizes: ExportInfo['blockSizes']
  readonly contexts: readonly string[]
  readonly map?: readonly { readonly offset: number; readonly length: number; readonly type: string }[]
}

async function ask(uri: string, target: NbdTarget): Promise<Report> {
  const handshake = await ClientHandshake.begin(await openStream(target))
  await handshake.replies('structured')
  const info = await handshake.info(target.exportName)
  const contexts = await listContexts(handshake, target.exportName)
  await handshake.abort()
  const flags = info.transmissionFlags ?? 0
  return {
    uri,
    export: info.name ?? target.exportName,
    description: info.description ?? '',
    size: info.size ?? 0,
    flags: Object.fromEntries(CAPABILITIES.map(([name, bit]) => [name, (flags & bit) !== 0])),
    blockSizes: info.blockSizes,
    contexts: contexts.map(({ name }) => name),
  }
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

async function map(client: Client): Promise<Report['map']> {
  const runs: { offset: number; length: number; type: string }[] = []
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
  return runs
}

function text(report: Report): string {
  const { blockSizes } = report
  const lines = [
    `export: ${report.export}`,
    `description: ${report.description}`,
    `size: ${report.size} (${formatBytes(report.size)})`,
    ...Object.entries(report.flags).map(([name, set]) => `${name}: ${set}`),
    `contexts: ${report.contexts.join(', ')}`,
    ...(blockSizes === undefined
      ? []
      : Object.entries(blockSizes).map(([name, bytes]) => `block_size_${name}: ${bytes}`)),
    ...(report.map ?? []).map(
      ({ offset, length, type }) => `${offset.toString().padStart(16)} ${length.toString().padStart(16)}  ${type}`,
    ),
  ]
  return `${lines.join('\n')}\n`
}

async function run({ uri, json, map: wantsMap }: InfoFlags): Promise<number> {
  const target = parseUri(uri)
  try {
    let report = await ask(uri, target)
    if (wantsMap) {
      const wishes = { contexts: [BASE_ALLOCATION] }
      const client = await connectClient(await openStream(target), target.exportName, wishes)
      report = { ...report, map: (await map(client)) ?? [] }
      await client.disconnect()
    }
    process.stdout.write(json ? `${JSON.stringify(report, undefined, 2)}\n` : text(report))
    return 0
  } catch (error) {
    if (error instanceof OptionError || error instanceof ProtocolError || error instanceof RequestError) {
      throw new UsageError(`${uri}: ${error.message}`)
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
      })
      .example('$0 info nbd://127.0.0.1/disk.img --map', 'what is there, and where its data lies'),
  run,
}
