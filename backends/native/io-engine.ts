// Which way waiting reads go: through the kernel's ring where kernel and container allow it, else through threads.
// Law: what this says was tried out, with a read, not inferred from a version.
import { OpenError } from '../backend.js'
import { errnoName } from '../errno.js'
import { fileIo } from './file-io.js'

export const IO_ENGINES = ['uring', 'pool'] as const
export type IoEngine = (typeof IO_ENGINES)[number]
/** What an operator may ask for. */
export type IoEngineWish = 'auto' | IoEngine

export interface ChosenEngine {
  readonly engine: IoEngine
  /** Why io_uring is not used although it was not ruled out; undefined when it is, or was. */
  readonly reason: string | undefined
}

const REASONS: Readonly<Record<string, string>> = {
  EPERM: "kernel.io_uring_disabled or the container's seccomp profile forbids it",
  EACCES: 'a security policy of the host forbids it',
  ENOSYS: "the kernel is older than 5.11 or built without it, or the container's seccomp profile hides it",
  ENOMEM: 'the limit on locked memory (ulimit -l) is too low for it',
}

/** The engine that a wish comes to on this host. @throws OpenError where io_uring is insisted on and not to be had */
export function chooseIoEngine(wish: IoEngineWish): ChosenEngine {
  if (wish === 'pool') return { engine: 'pool', reason: undefined }
  const errno = fileIo.probeRing()
  if (errno === 0) return { engine: 'uring', reason: undefined }
  const name = errnoName(errno)
  const reason = `${REASONS[name] ?? 'the host refuses it'} (${name})`
  if (wish === 'auto') return { engine: 'pool', reason }
  throw new OpenError(`--io-engine uring cannot be had: ${reason}; allow it, or take --io-engine auto`)
}
