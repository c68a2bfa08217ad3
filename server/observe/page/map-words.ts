// A cell of the map and the ranges that are marked, in words: what the picture shows, for those who do not see it, too.
import type { DiskMap, MapRange } from '../../exports/disk-map.js'
import { lookOf } from './map-canvas.js'
import { bytes, clock, element, grouped, plural, sectors } from './words.js'

const TOLD_MAX = 3
const BITS: Readonly<Record<MapRange['kind'], number>> = { failed: 4, held: 8, suspect: 16 }
const KIND_WORDS: Readonly<Record<MapRange['kind'], string>> = {
  failed: 'failed',
  held: 'waits for space',
  suspect: 'may be lost',
}

/** What happened there: write ENOSPC, 3 requests of unix, 14:03:07. */
export function rangeWords({ command, errno, count, client, time }: MapRange): string {
  const how = errno === 'reserve' ? 'refused by the reserve' : errno
  const what = [command, how].filter((word) => word !== undefined).join(' ')
  const who = count === undefined ? '' : `${plural(count, 'request')} of ${client}`
  return [what, who, time === undefined ? '' : clock(time)].filter((part) => part !== '').join(', ')
}

/** Where a cell begins, and how long it is. */
export function cellRange({ from, to, cellBytes }: DiskMap, index: number): { offset: number; length: number } {
  const offset = from + index * cellBytes
  return { offset, length: Math.min(cellBytes, to - offset) }
}

export function rangesWithin({ ranges }: DiskMap, offset: number, length: number): MapRange[] {
  return ranges.filter((range) => range.offset < offset + length && range.offset + range.length > offset)
}

function contents(map: DiskMap, index: number, length: number): string {
  const allocated = map.data[index] ?? 0
  const look = lookOf((map.cells[index] ?? 0) & 3)
  if (look === 'unknown') return 'Storage did not tell what lies here.'
  if (look === 'hole') return 'A hole: takes no space on the host and reads as zeroes.'
  if (look === 'data') return 'Data.'
  return map.exact ? `Data: ${bytes(allocated)} of ${bytes(length)}; the rest is a hole.` : 'Data and holes.'
}

/** What lies in a cell, as lines. */
export function cellWords(map: DiskMap, index: number): string[] {
  const { offset, length } = cellRange(map, index)
  const inside = rangesWithin(map, offset, length)
  const told = inside.slice(0, TOLD_MAX).map((range) => {
    const where = sectors(range.offset, range.length)
    return [`${KIND_WORDS[range.kind]}: ${where}`, rangeWords(range)].filter((part) => part !== '').join(', ')
  })
  const unnamed = Object.entries(BITS).filter(
    ([kind, bit]) => ((map.cells[index] ?? 0) & bit) !== 0 && !inside.some((range) => range.kind === kind),
  )
  const more = inside.length - told.length
  return [
    `Offset ${grouped(offset)} (${bytes(offset)}), ${sectors(offset, length)}`,
    contents(map, index, length),
    ...told,
    ...(more > 0 ? [`and ${plural(more, 'more range')}: zoom in`] : []),
    ...unnamed.map(([kind]) => `${kind}: zoom in to see which sectors`),
  ]
}

const ROWS_SHOWN = 8

/** All that is marked, as a table; `show` brings the map there. */
export function rangeTable(map: DiskMap, all: boolean, show: (range: MapRange) => void): HTMLElement {
  const rows = map.ranges.slice(0, all ? map.ranges.length : ROWS_SHOWN).map((range) => {
    const button = element('button', { type: 'button' }, sectors(range.offset, range.length))
    button.addEventListener('click', () => show(range))
    return element(
      'tr',
      {},
      element('td', {}, KIND_WORDS[range.kind]),
      element('td', { class: 'name' }, button),
      element('td', { class: 'number' }, bytes(range.length)),
      element('td', {}, rangeWords(range)),
    )
  })
  const head = ['What', 'Where', 'Length', 'Which requests, when'].map((word, index) =>
    element('th', { scope: 'col', ...(index === 2 && { class: 'number' }) }, word),
  )
  const table = element('table', {}, element('thead', {}, element('tr', {}, ...head)), element('tbody', {}, ...rows))
  return element('div', { class: 'table', tabindex: '0', role: 'region', 'aria-label': 'Marked ranges' }, table)
}

export function rangesHidden({ ranges, rangesOmitted }: DiskMap): number {
  return Math.max(0, ranges.length - ROWS_SHOWN) + rangesOmitted
}
