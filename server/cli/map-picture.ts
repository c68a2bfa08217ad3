// A map as a terminal shows it: a letter for each cell, rows that begin with their offset, and what is wrong in words.
// Law: letters alone tell everything; colour only helps.
import {
  CELL_DATA,
  CELL_FAILED,
  CELL_HELD,
  CELL_HOLE,
  CELL_SUSPECT,
  type DiskMap,
  type MapRange,
} from '../exports/disk-map.js'
import { formatBytes, formatSectors } from './format.js'

interface Look {
  readonly letter: string
  readonly meaning: string
  /** Parameters of the terminal's SGR sequence. */
  readonly colour: string
}

/** What is worst in a cell is what the cell shows. */
const WORST: readonly (readonly [bit: number, look: Look])[] = [
  [CELL_SUSPECT, { letter: '?', meaning: 'suspect: may be lost', colour: '1;35' }],
  [CELL_FAILED, { letter: 'X', meaning: 'requests failed', colour: '1;31' }],
  [CELL_HELD, { letter: 'H', meaning: 'writes held', colour: '1;33' }],
]
const DATA: Look = { letter: '#', meaning: 'data', colour: '36' }
const PARTLY: Look = { letter: '+', meaning: 'partly data', colour: '36' }
const HOLE: Look = { letter: '.', meaning: 'hole', colour: '2' }
const UNKNOWN: Look = { letter: '~', meaning: 'not known', colour: '2' }

const LABEL_COLUMNS = 12
const COLUMNS_MIN = 8
const COLUMNS_MAX = 256
export const MAP_ROWS = 16
/** Ranges that are told in words. */
const TOLD_MAX = 12

/** Cells in a row: a power of two, so that rows begin at round offsets. */
export function columnsFor(terminalColumns: number): number {
  const room = Math.min(COLUMNS_MAX, Math.max(COLUMNS_MIN, terminalColumns - LABEL_COLUMNS))
  return 2 ** Math.floor(Math.log2(room))
}

function lookOf(bits: number): Look {
  const worst = WORST.find(([bit]) => (bits & bit) !== 0)
  if (worst !== undefined) return worst[1]
  if ((bits & CELL_DATA) === 0) return (bits & CELL_HOLE) === 0 ? UNKNOWN : HOLE
  return (bits & CELL_HOLE) === 0 ? DATA : PARTLY
}

function painted(look: Look, text: string, colours: boolean): string {
  return colours ? `\x1b[${look.colour}m${text}\x1b[0m` : text
}

function rowOf(looks: readonly Look[], colours: boolean): string {
  let row = ''
  for (let at = 0; at < looks.length; ) {
    const look = looks[at] ?? UNKNOWN
    const end = looks.findIndex((other, index) => index > at && other !== look)
    const next = end === -1 ? looks.length : end
    row += painted(look, look.letter.repeat(next - at), colours)
    at = next
  }
  return row
}

function rangeLine({ kind, offset, length, time, command, errno, client, count }: MapRange): string {
  const where = `${offset}, ${formatBytes(length)} (${formatSectors(offset, length)})`
  const what = [command, errno].filter((word) => word !== undefined).join(' ')
  const times = count === undefined ? '' : `, ${count} request${count === 1 ? '' : 's'} of ${client}`
  const since = time === undefined ? '' : `, since ${time}`
  return `${kind.padEnd(8)}${what === '' ? '' : `${what} `}at ${where}${times}${since}`
}

function legend(looks: ReadonlySet<Look>, colours: boolean): string {
  return [...looks].map((look) => `${painted(look, look.letter, colours)} ${look.meaning}`).join('   ')
}

/** The whole picture, as lines. */
export function mapPicture(map: DiskMap, columns: number, colours: boolean): string[] {
  const { from, to, cellBytes, cells, data, ranges, rangesOmitted } = map
  const looks = cells.map(lookOf)
  const allocated = data.reduce((sum, bytes) => sum + bytes, 0)
  const atLeast = map.exact ? '' : 'at least '
  const lines = [`${map.export}: ${formatBytes(map.size)}; ${from} to ${to} is shown, ${formatBytes(cellBytes)} a cell`]
  for (let at = 0; at < looks.length; at += columns) {
    const label = formatBytes(from + at * cellBytes).padStart(LABEL_COLUMNS - 2)
    lines.push(`${label}  ${rowOf(looks.slice(at, at + columns), colours)}`)
  }
  lines.push(
    '',
    legend(
      new Set([HOLE, PARTLY, DATA, UNKNOWN, ...WORST.map(([, look]) => look)].filter((look) => looks.includes(look))),
      colours,
    ),
  )
  if (map.error === undefined) lines.push(`${atLeast}${formatBytes(allocated)} of ${formatBytes(to - from)} allocated`)
  else lines.push(`storage did not tell where data lies: ${map.error}`)
  if (ranges.length > 0) lines.push('', ...ranges.slice(0, TOLD_MAX).map(rangeLine))
  const untold = Math.max(0, ranges.length - TOLD_MAX) + rangesOmitted
  if (untold > 0) lines.push(`and ${untold} more: --json names more, and so does 'candor errors ${map.export}'`)
  return lines
}
