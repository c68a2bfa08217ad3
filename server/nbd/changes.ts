// WRITE, TRIM and WRITE_ZEROES as what a backend is asked to do.
import {
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  type Request,
} from 'nbd-protocol'
import { type Backend, type Outcome, ZERO_FAST, ZERO_PUNCH } from '../../backends/index.js'

/** Punching gives space back: it needs none, and falls under no reserve. */
export function takesSpace({ type, flags }: Request): boolean {
  return type === NBD_CMD_WRITE || (type === NBD_CMD_WRITE_ZEROES && (flags & NBD_CMD_FLAG_NO_HOLE) !== 0)
}

/** Makes the change, which validation let through; the payload is the backend's until the promise settles. */
export function submitChange(
  backend: Backend,
  { type, offset, length, flags }: Request,
  payload: Uint8Array,
  durable: boolean,
): Promise<Outcome> {
  if (type === NBD_CMD_WRITE) return backend.write(payload, 0, length, offset, durable)
  if (type === NBD_CMD_TRIM) return backend.trim(offset, length, durable)
  const punch = (flags & NBD_CMD_FLAG_NO_HOLE) === 0 ? ZERO_PUNCH : 0
  const fast = (flags & NBD_CMD_FLAG_FAST_ZERO) === 0 ? 0 : ZERO_FAST
  return backend.zero(offset, length, punch | fast, durable)
}
