// The folder in which candor keeps what must outlive it. One server at a time: the folder is locked while it is used.
import { closeSync, existsSync, mkdirSync, openSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { lockFile, OpenError } from '../../backends/index.js'

/** Makes a folder with its parents. mkdir(2)'s ENOENT below /proc is for ever, which a recursive mkdirSync never learns. */
function makeFolder(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST' && statSync(path).isDirectory()) return
    if (code !== 'ENOENT' || existsSync(dirname(path))) throw error
    makeFolder(dirname(path))
    mkdirSync(path, { mode: 0o700 })
  }
}

/** Takes the state directory; who closes the returned descriptor of its lock gives it back. @throws OpenError */
export async function takeStateDirectory(path: string): Promise<number> {
  let fd: number
  try {
    makeFolder(resolve(path))
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
  return fd
}
