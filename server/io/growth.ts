// Images that somebody made longer. Law: those who come from now on are told so; those who are there keep what they were told.
import { DONE, errnoName, errnoOf } from '../../backends/index.js'
import type { Export } from '../exports/export.js'
import type { Log } from '../observe/log.js'

/** Takes over the new length; false when it could not be noted. */
export async function followGrowth(entry: Export, log: Log): Promise<boolean> {
  const about = { export: entry.name }
  const outcome = await entry.length.follow()
  if (outcome === DONE) log.info({ ...about, size: entry.size }, `the image of export ${entry.name} has become longer`)
  else log.limited(`export ${entry.name} cannot grow: ${errnoName(errnoOf(outcome))}`, about)
  return outcome === DONE
}
