// What a process has open, as proc(5) tells it.
import { readdirSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'

/** What each descriptor leads to: a path, or a kind such as `socket:[…]`. What is closed while it is looked at is left out. */
export function openFiles(pid: number | string): string[] {
  const folder = `/proc/${pid}/fd`
  return readdirSync(folder).flatMap((name) => {
    try {
      return [readlinkSync(join(folder, name))]
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
      throw error
    }
  })
}
