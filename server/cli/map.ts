// `candor map`: where an export has data, holes, and bytes that failed or may be lost. Asks the running server; without
// one it looks at the image itself, and at what the state directory knows of it.
import { openBackend } from '../../backends/index.js'
import { defaultStateDirectory } from '../config.js'
import { type DiskMap, drawMap, MAP_CELLS_MAX, windowFault } from '../exports/disk-map.js'
import { ledgerPath, readLedger } from '../state/ledger.js'
import { findRecord, locateRecord, readRecord } from '../state/record-files.js'
import { parseCount, parseSize, UsageError } from '../values.js'
import { askServer } from './ask-server.js'
import type { Command } from './command.js'
import { columnsFor, MAP_ROWS, mapPicture } from './map-picture.js'

interface MapFlags {
  readonly name: string
  readonly from?: string
  readonly to?: string
  readonly cells?: string
  readonly image?: string
  readonly json?: boolean
  readonly 'state-dir'?: string
}

const COLUMNS_DEFAULT = 80

/** Bytes as they were asked for; undefined is the whole export. */
interface Wish {
  readonly from: number | undefined
  readonly to: number | undefined
  readonly cells: number
}

function wishOf(flags: MapFlags, columns: number): Wish {
  const { from, to, cells } = flags
  const wish = {
    from: from === undefined ? undefined : parseSize(from, '--from'),
    to: to === undefined ? undefined : parseSize(to, '--to'),
    cells: cells === undefined ? columns * MAP_ROWS : parseCount(cells, '--cells'),
  }
  if (wish.cells <= MAP_CELLS_MAX) return wish
  throw new UsageError(`--cells is '${cells}': write a whole number from 1 to ${MAP_CELLS_MAX}`)
}

async function fromServer(stateDirectory: string, name: string, wish: Wish): Promise<DiskMap | undefined> {
  const words = [wish.from, wish.to, wish.cells].map((value) => value?.toString() ?? '')
  const reply = await askServer(stateDirectory, { command: 'map', name, words })
  if (reply === undefined) return undefined
  if (!reply.ok) throw new UsageError(reply.error)
  return reply.result as DiskMap
}

/** The image as it lies there, with the ledger and the suspect ranges that the last server stored. */
async function fromImage(stateDirectory: string, name: string, path: string, wish: Wish): Promise<DiskMap> {
  const backend = await openBackend('sparse-file', { path, readOnly: true, create: undefined })
  try {
    const { size, identity = '' } = backend
    const window = { from: wish.from ?? 0, to: wish.to ?? size, cells: wish.cells }
    const fault = windowFault(window, size)
    if (fault !== undefined) throw new UsageError(fault)
    const { stored } = readRecord(locateRecord(stateDirectory, { identity }), size)
    const sources = {
      name,
      size,
      extents: (offset: number, length: number, limit: number) => backend.extents(offset, length, limit),
      suspect: (stored?.suspect ?? []).map(([start, end]) => ({ start, end })),
      failures: readLedger(ledgerPath(stateDirectory, name)).entries,
      held: [],
    }
    return await drawMap(sources, window)
  } finally {
    await backend.close()
  }
}

async function withoutServer(stateDirectory: string, { name, image }: MapFlags, wish: Wish): Promise<DiskMap> {
  const path = image ?? findRecord(stateDirectory, name)?.path
  if (path !== undefined) return fromImage(stateDirectory, name, path, wish)
  throw new UsageError(
    `no candor answers in ${stateDirectory}, and none has served '${name}' from there: name its image with --image PATH`,
  )
}

async function run(flags: MapFlags): Promise<number> {
  const stateDirectory = flags['state-dir'] ?? defaultStateDirectory()
  const columns = columnsFor(process.stdout.columns ?? COLUMNS_DEFAULT)
  const wish = wishOf(flags, columns)
  const running = flags.image === undefined ? await fromServer(stateDirectory, flags.name, wish) : undefined
  const map = running ?? (await withoutServer(stateDirectory, flags, wish))
  if (flags.json) process.stdout.write(`${JSON.stringify(map)}\n`)
  else {
    const colours = process.stdout.isTTY === true && (process.env['NO_COLOR'] ?? '') === ''
    process.stdout.write(`${mapPicture(map, columns, colours).join('\n')}\n`)
    if (running === undefined) process.stdout.write('no server is asked: the image itself, the record and the ledger\n')
  }
  return 0
}

const word = { type: 'string', requiresArg: true } as const

export const map: Command<MapFlags> = {
  words: 'map <name>',
  describe: 'show where an export has data, holes, and bytes that failed or may be lost',
  flags: (yargs) =>
    yargs
      .positional('name', { describe: 'an export', type: 'string' })
      .options({
        from: { ...word, describe: 'the first byte that is shown: 0, 64M, 1G', defaultDescription: '0' },
        to: { ...word, describe: 'the byte behind the last', defaultDescription: 'the end' },
        cells: { ...word, describe: 'how many cells', defaultDescription: `${MAP_ROWS} rows of the terminal's width` },
        image: { ...word, describe: 'the image itself, where no server runs' },
        json: { type: 'boolean', describe: 'for programs' },
        'state-dir': { ...word, describe: "the server's", defaultDescription: defaultStateDirectory() },
      })
      .example('$0 map disk.img', 'the whole disk')
      .example('$0 map disk.img --from 400M --to 401M', 'a part of it, down to single sectors'),
  run,
}
