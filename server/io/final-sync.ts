// The last sync of an export, before its image is given back. Law: one that fails is told, and counted against the end.
import { DONE, errnoName, errnoOf } from '../../backends/index.js'
import type { Export } from '../exports/export.js'
import type { Log } from '../observe/log.js'

/** False when it failed. `moved`: it is believed wherever the path leads, and the image is let go of. */
export async function finalSync(entry: Export, log: Log, moved = false): Promise<boolean> {
  const outcome = await (moved ? entry.recess.begin() : entry.flush())
  entry.wasSynced = outcome === DONE && entry.waiting.oldest === undefined
  if (outcome === DONE) return true
  entry.notSynced(errnoOf(outcome))
  const errno = errnoName(errnoOf(outcome))
  log.error({ export: entry.name, errno }, `the final sync of export ${entry.name} failed: ${errno}`)
  return false
}
