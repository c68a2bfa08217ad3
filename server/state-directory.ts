// The folder in which candor keeps what must outlive it. One server at a time: the folder is locked while it is used.
import { closeSync, mkdirSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { lockFile, OpenError } from '../backends/index.js'

/** Takes the state directory; the returned function gives it back. @throws OpenError */
export async function takeStateDirectory(path: string): Promise<() => void> {
  let fd: number
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 })
    fd = openSync(join(path, 'lock'), 'w', 0o600)
  } catch (error) {
    const reason = (error as Error).message
    throw new OpenError(`the state directory ${path} cannot be made (${reason}): choose another with --state-dir DIR`)
  }
  if (!(await lockFile(fd, 'exclusive'))) {
    closeSync(fd)
    throw new OpenError(
      `the state directory ${path} is in use by another candor: stop that one, or choose another with --state-dir DIR`,
    )
  }
  return () => closeSync(fd)
}
