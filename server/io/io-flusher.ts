// Where client and server share a kernel that is short of memory, a thread that writes the client's pages out must not be made
// to wait until the client's pages are written out (docs/operations.md). Law: said before other threads start, who inherit it.
import { becomeIoFlusher } from '../../backends/index.js'
import type { Log } from '../observe/log.js'

let asked = false

/** Needs CAP_SYS_RESOURCE; without it all goes on as before. Called before each thread that does I/O, of use before the first. */
export function standOutOfTheCircle(log: Log): void {
  if (asked) return
  asked = true
  if (becomeIoFlusher() !== 0) return
  log.info({}, 'short memory makes no thread of candor wait for what it has to write itself (PR_SET_IO_FLUSHER)')
}
