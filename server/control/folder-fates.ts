// What became of the files of a folder, by what is served now. Law: a folder speaks for the exports that came with it, and for
// no other.
import { resolve } from 'node:path'
import type { ExportDirectory } from '../io/directory.js'
import type { FileStatus } from './folder-files.js'

/** A file as it was seen last, and what became of it. */
export interface Known {
  status: FileStatus
  /** Since when it looks like that. */
  since: number
  /**
   * `unfit`: no image; `leaving`: its file is gone under clients; `dismissed`: an operator has removed it; `named`: it was
   * served by words of its own when it was looked at.
   */
  fate: 'new' | 'unfit' | 'served' | 'failed' | 'leaving' | 'dismissed' | 'named'
  triedAt: number
}

/** No other name may serve it again. */
export function isTaken(fate: Known['fate']): boolean {
  return fate === 'served' || fate === 'leaving' || fate === 'named'
}

/** An export that came of this very file with its folder, be it in a process that served before this one. */
export function isOfFolder(directory: ExportDirectory, name: string, path: string): boolean {
  const config = directory.holds(name) ? directory.find(name)?.config : undefined
  return config?.isOfFolder === true && resolve(config.path) === path
}

/** An operator has removed it since it was looked at: what was served is not, or what had failed is given up. */
export function isRemoved(directory: ExportDirectory, name: string, fate: Known['fate']): boolean {
  return (fate === 'served' && !directory.holds(name)) || (fate === 'failed' && !directory.failed.has(name))
}

/** What is served, by its path. */
export function namesByPath(directory: ExportDirectory): ReadonlyMap<string, string> {
  return new Map([...directory].map(({ name, config }) => [resolve(config?.path ?? ''), name]))
}
