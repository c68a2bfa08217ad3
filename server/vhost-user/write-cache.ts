// The write cache that a driver turns off. Law: when it hears that the cache is off, nothing that it was told of before is
// in it, since it sends no FLUSH from then on.
import { NBD_CMD_FLUSH } from 'nbd-protocol'
import { type Result, DONE as TOLD } from 'vhost-user-protocol'
import { DONE, errnoName, errnoOf } from '../../backends/index.js'
import type { Export } from '../exports/export.js'

export async function emptyCache(served: Export, client: string): Promise<Result> {
  const outcome = await served.flush()
  if (outcome === DONE) return TOLD
  const errno = errnoOf(outcome)
  served.failed({ client, command: NBD_CMD_FLUSH, errno, offset: 0, length: 0 })
  return { kind: 'refused', reason: `what the write cache held cannot be made durable: ${errnoName(errno)}` }
}
