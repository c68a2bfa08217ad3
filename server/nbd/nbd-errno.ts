// Which error value of the spec goes out for which of the host's errnos: the one table (docs/errors.md explains it).
// Law: only the request's own fault is EINVAL; whatever the host says and the table does not know is EIO.

import { NBD_EIO, NBD_ENOSPC, NBD_ENOTSUP, NBD_ESHUTDOWN, NBD_SUCCESS } from 'nbd-protocol'
import { EDQUOT, EFBIG, ENOSPC, errnoOf, NOT_FAST, type Outcome, SHUT_DOWN } from '../../backends/index.js'

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
