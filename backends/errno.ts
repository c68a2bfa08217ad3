// The host's error numbers by name and back. Node knows most of Linux's; those of storage that it leaves out are here.
import { constants } from 'node:os'

const MORE: Readonly<Record<string, number>> = {
  ESHUTDOWN: 108,
  EUCLEAN: 117,
  EREMOTEIO: 121,
  ENOMEDIUM: 123,
  EMEDIUMTYPE: 124,
  EHWPOISON: 133,
}

export const {
  EPERM,
  EIO,
  EAGAIN,
  ENOMEM,
  EACCES,
  EBUSY,
  EFAULT,
  EINVAL,
  ENOENT,
  ENOSPC,
  EFBIG,
  EROFS,
  EOVERFLOW,
  EOPNOTSUPP,
  EDQUOT,
} = constants.errno
export const ESHUTDOWN = 108

const NUMBERS: Readonly<Record<string, number>> = { ...constants.errno, ...MORE }
const NAMES = new Map<number, string>()
// EAGAIN before EWOULDBLOCK, ENOTSUP before EOPNOTSUPP would be a coin's toss: the man pages' first word wins.
for (const [name, value] of Object.entries(NUMBERS)) if (!NAMES.has(value)) NAMES.set(value, name)
NAMES.set(EAGAIN, 'EAGAIN').set(EOPNOTSUPP, 'EOPNOTSUPP')

/** One past the largest errno that Linux defines, for tables indexed by errno. */
export const ERRNOS = 134

/** ENOSPC for 28; "errno N" where there is no name for it. */
export function errnoName(errno: number): string {
  return NAMES.get(errno) ?? `errno ${errno}`
}

/** 28 for ENOSPC; undefined for what is no errno's name. */
export function errnoNumber(name: string): number | undefined {
  return NUMBERS[name]
}
