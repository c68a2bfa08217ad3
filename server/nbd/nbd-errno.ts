// Which error value of the spec goes out for which of the host's errnos: the one table (docs/errors.md explains it).
// Law: only the request's own fault is EINVAL; whatever the host says and the table does not know is EIO.

import {
  commandName,
  errorName,
  NBD_EIO,
  NBD_ENOSPC,
  NBD_ENOTSUP,
  NBD_ESHUTDOWN,
  NBD_SUCCESS,
  type Request,
} from 'nbd-protocol'
import {
  EDQUOT,
  EFBIG,
  ENOSPC,
  errnoName,
  errnoOf,
  NOT_FAST,
  type Outcome,
  RESERVED,
  SHUT_DOWN,
} from '../../backends/index.js'

const BY_ERRNO: ReadonlyMap<number, number> = new Map([
  [ENOSPC, NBD_ENOSPC],
  [EDQUOT, NBD_ENOSPC],
  [EFBIG, NBD_ENOSPC],
])

/** The NBD error for a storage outcome. */
export function nbdErrorOf(outcome: Outcome): number {
  if (outcome === 0) return NBD_SUCCESS
  if (outcome === NOT_FAST) return NBD_ENOTSUP
  if (outcome === SHUT_DOWN) return NBD_ESHUTDOWN
  return BY_ERRNO.get(errnoOf(outcome)) ?? NBD_EIO
}

/** The same in words, for structured replies: what the host said, or why it was not asked. */
export function hostSays(command: number, outcome: Outcome): string {
  const name = commandName(command)
  if (outcome === RESERVED) return `${name} was refused: it would take space that the server keeps in reserve`
  return `${name} failed: ${errnoName(errnoOf(outcome))} on the host`
}

export function refusalSays({ type, offset, length }: Request, error: number): string {
  return `${commandName(type)} at ${offset} for ${length} bytes was refused: ${errorName(error)}`
}
