// What an export can do, in the flags of the wire ("Transmission flags").
import {
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_SEND_CACHE,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
} from 'nbd-protocol'
import type { Backend } from '../../backends/index.js'

export function transmissionFlagsOf({ write, fastZero }: Backend['can']): number {
  const always = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_CAN_MULTI_CONN
  if (!write) return always | NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_CACHE
  const zeroes = NBD_FLAG_SEND_WRITE_ZEROES | (fastZero ? NBD_FLAG_SEND_FAST_ZERO : 0)
  return always | NBD_FLAG_SEND_CACHE | NBD_FLAG_SEND_TRIM | zeroes
}
