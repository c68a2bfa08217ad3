// The part of the list of exports that a client looks at.
import type { ExportView } from './overview.js'

export const ROWS_DEFAULT = 25
export const ROWS_MAX = 100

export interface Matching {
  /** Part of the name; the empty text matches all. */
  readonly text: string
  readonly first: number
  readonly count: number
}

export interface Rows {
  readonly exports: readonly ExportView[]
  readonly first: number
  /** Exports whose name matches. */
  readonly matching: number
  readonly total: number
}

export function matching(views: readonly ExportView[], { text, first, count }: Matching): Rows {
  const wanted = text.toLowerCase()
  const found = wanted === '' ? views : views.filter(({ name }) => name.toLowerCase().includes(wanted))
  return { exports: found.slice(first, first + count), first, matching: found.length, total: views.length }
}
