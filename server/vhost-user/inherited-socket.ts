// A Unix socket that was handed over by its descriptor: whether it listens, or is connected already. Node has no getsockopt(2);
// the kernel's list of Unix sockets says the same.
import { readFileSync, readlinkSync } from 'node:fs'
import { OpenError } from '../../backends/index.js'

/** __SO_ACCEPTCON of the kernel, in the column of flags. */
const ACCEPTS = 0x10000
const FLAGS_COLUMN = 3
const INODE_COLUMN = 6

/** True for a socket that listens, false for one that is connected. @throws OpenError for anything else */
export function listens(fd: number): boolean {
  const inode = /^socket:\[(\d+)\]$/.exec(targetOf(fd))?.[1]
  const rows = readFileSync('/proc/net/unix', 'latin1')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
  const row = inode === undefined ? undefined : rows.find((columns) => columns[INODE_COLUMN] === inode)
  if (row === undefined)
    throw new OpenError(`descriptor ${fd} is no Unix socket: give --socket-path PATH, or another --fd`)
  return (Number.parseInt(row[FLAGS_COLUMN] ?? '', 16) & ACCEPTS) !== 0
}

function targetOf(fd: number): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`)
  } catch {
    return ''
  }
}
