// What a request may ask of this connection. Law: refuse here, once; what comes after trusts.
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_EPERM,
  NBD_FLAG_BLOCK_STATUS_PAYLOAD,
  NBD_FLAG_SEND_CACHE,
  NBD_FLAG_SEND_DF,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
  NBD_SUCCESS,
  type Request,
} from 'nbd-protocol'

/** What was negotiated, as far as requests are judged by it. */
export interface Terms {
  /** Bytes of the export. */
  readonly size: number
  readonly readOnly: boolean
  readonly extended: boolean
  readonly minimumBlockSize: number
  /** Bytes of the largest READ and WRITE. */
  readonly payloadBytesMax: number
  /** Flags that each command may carry, by its number; undefined for commands that do not exist here. */
  readonly allowedFlags: readonly (number | undefined)[]
}

/** The flags that each command may carry under these transmission flags ("Command flags"). */
export function allowedFlags(transmissionFlags: number, extended: boolean, contexts: number): (number | undefined)[] {
  const has = (flag: number) => (transmissionFlags & flag) !== 0
  const fua = has(NBD_FLAG_SEND_FUA) ? NBD_CMD_FLAG_FUA : 0
  const fast = has(NBD_FLAG_SEND_FAST_ZERO) ? NBD_CMD_FLAG_FAST_ZERO : 0
  const flags: (number | undefined)[] = []
  flags[NBD_CMD_READ] = fua | (has(NBD_FLAG_SEND_DF) ? NBD_CMD_FLAG_DF : 0)
  flags[NBD_CMD_WRITE] = fua | (extended ? NBD_CMD_FLAG_PAYLOAD_LEN : 0)
  flags[NBD_CMD_FLUSH] = fua
  flags[NBD_CMD_TRIM] = has(NBD_FLAG_SEND_TRIM) ? fua : undefined
  flags[NBD_CMD_CACHE] = has(NBD_FLAG_SEND_CACHE) ? fua : undefined
  flags[NBD_CMD_WRITE_ZEROES] = has(NBD_FLAG_SEND_WRITE_ZEROES) ? fua | NBD_CMD_FLAG_NO_HOLE | fast : undefined
  const filter = has(NBD_FLAG_BLOCK_STATUS_PAYLOAD) ? NBD_CMD_FLAG_PAYLOAD_LEN : 0
  flags[NBD_CMD_BLOCK_STATUS] = contexts > 0 ? fua | NBD_CMD_FLAG_REQ_ONE | filter : undefined
  return flags
}

/** True for the commands that change the image. */
export function changesImage(type: number): boolean {
  return type === NBD_CMD_WRITE || type === NBD_CMD_TRIM || type === NBD_CMD_WRITE_ZEROES
}

/** FUA binds what changes the image; on other commands the spec has it ignored. */
export function promisesDurability({ type, flags }: Request): boolean {
  return (flags & NBD_CMD_FLAG_FUA) !== 0 && changesImage(type)
}

/** NBD_SUCCESS, or the error value with which the request is refused ("Error values"). */
export function validate(request: Request, terms: Terms): number {
  const { type, offset, length } = request
  if (terms.readOnly && changesImage(type)) return NBD_EPERM
  const allowed = terms.allowedFlags[type]
  if (allowed === undefined || (request.flags & ~allowed) !== 0) return NBD_EINVAL
  if (type === NBD_CMD_FLUSH) return offset === 0 && length === 0 ? NBD_SUCCESS : NBD_EINVAL
  if (type === NBD_CMD_BLOCK_STATUS) return validateBlockStatus(request, terms)
  if ((type === NBD_CMD_READ || type === NBD_CMD_WRITE) && length > terms.payloadBytesMax) return NBD_EINVAL
  if (offset % terms.minimumBlockSize !== 0 || length % terms.minimumBlockSize !== 0) return NBD_EINVAL
  // Past the end: offset + length may exceed what a number holds exactly, so neither is added to the other.
  if (offset > terms.size || length > terms.size - offset) return type === NBD_CMD_WRITE ? NBD_ENOSPC : NBD_EINVAL
  return NBD_SUCCESS
}

// With a payload the header's length counts the payload's bytes; the effect length stands in the payload itself.
function validateBlockStatus({ offset, length, payloadLength }: Request, terms: Terms): number {
  if (payloadLength > 0) return NBD_SUCCESS
  const inside = length > 0 && offset <= terms.size && length <= terms.size - offset
  return inside ? NBD_SUCCESS : NBD_EINVAL
}
