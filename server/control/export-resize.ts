// `candor ctl resize`: another length for an image. Laws: nothing that a client wrote is cut off without --force; what is
// cut off on purpose is no loss, and says so.
import { DONE, EOPNOTSUPP, errnoName, errnoOf } from '../../backends/index.js'
import type { Export } from '../exports/export.js'
import { type ControlReply, failed } from './export-actions.js'
import { summary } from './export-summary.js'

export interface ResizeScene {
  /** Ends the sessions of those who would lose the end of their disk. */
  readonly force: boolean
  readonly connections: () => readonly { destroy(): void }[]
  /** Waits until nothing of the export is in flight; false when that took too long. */
  readonly idle: () => Promise<boolean>
}

/** Why it cannot be, whatever is wanted; undefined when it can. */
function obstacle({ name, readOnly, recess, state }: Export): string | undefined {
  if (recess.active) return `export ${name} is released: resize it after 'candor ctl resume'`
  if (state === 'detached') return `export ${name} is detached: its image is not where it was; see 'candor ctl resume'`
  return readOnly ? `export ${name} is read-only: make the image longer yourself, and candor follows` : undefined
}

/** Gives the export `size` bytes. */
export async function resizeExport(entry: Export, size: number, scene: ResizeScene): Promise<ControlReply> {
  if (!Number.isSafeInteger(size) || size < 0) return failed('an export has a whole number of bytes')
  // What somebody cut off before is told as lost first.
  entry.inspect()
  // Bytes that somebody added are a part of the disk, and not cut off as if they were not.
  if (entry.length.grown) await entry.length.follow()
  const isCut = size < entry.size
  // Much may have happened while it was emptied.
  const hindered = obstacle(entry) ?? (isCut ? ((await emptied(entry, size, scene)) ?? obstacle(entry)) : undefined)
  if (hindered !== undefined) return failed(hindered)
  const outcome = await entry.length.resize(size)
  if (outcome === EOPNOTSUPP) {
    return failed(`export ${entry.name} lies on a device, which has its own size: change that one, and candor follows`)
  }
  if (outcome !== DONE) return failed(`export ${entry.name} cannot be resized: ${errnoName(errnoOf(outcome))}`)
  const synced = await entry.flush()
  if (synced === DONE || scene.force) return { ok: true, result: summary(entry) }
  return failed(`export ${entry.name} is resized, but its sync fails: ${errnoName(errnoOf(synced))}`)
}

/** Before the end of a disk is cut off: nobody may be at it, and all that was written is on stable storage. */
async function emptied(entry: Export, size: number, scene: ResizeScene): Promise<string | undefined> {
  const { name } = entry
  const lost = `would lose its last ${entry.size - size} bytes`
  const clients = scene.connections().length
  if (clients > 0 && !scene.force) {
    return `export ${name} ${lost} under ${clients} clients: detach them, or say --force, which ends their sessions`
  }
  for (const connection of scene.connections()) connection.destroy()
  if (!(await scene.idle()))
    return `export ${name} has requests that its storage does not answer: mend it, then ask again`
  const outcome = await entry.flush()
  if (outcome !== DONE && !scene.force) {
    return `export ${name} ${lost}, and its sync fails with ${errnoName(errnoOf(outcome))}: mend that, or say --force`
  }
  return scene.connections().length > 0 ? `a client came to export ${name} meanwhile: ask again` : undefined
}
