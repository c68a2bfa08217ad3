// The open file descriptions of images, which a service manager keeps while no server runs (sd_pid_notify_with_fds(3),
// FDSTORE=1). Law: a description that outlived its server is taken up again, and never a fresh one in its place: only the
// old one hears of write-back that failed in between.
import { type BigIntStats, closeSync, fstatSync, statSync } from 'node:fs'
import { DONE, type Outcome, sendDatagram } from '../backends/index.js'
import type { ExportConfig } from './config.js'

/** What the names of stored descriptions begin with; those of sockets are the socket unit's. */
const PREFIX = 'image-'

/** A descriptor that was handed over with a name. */
export interface NamedDescriptor {
  readonly fd: number
  readonly name: string
}

export function isStored({ name }: NamedDescriptor): boolean {
  return name.startsWith(PREFIX)
}

function nameOf(status: BigIntStats | undefined): string {
  if (status === undefined) return ''
  return status.isBlockDevice() ? `${PREFIX}device-${status.rdev}` : `${PREFIX}${status.dev}-${status.ino}`
}

/** undefined where nothing can be found: whoever opens it says why. */
function statusOf(path: string): BigIntStats | undefined {
  try {
    return statSync(path, { bigint: true })
  } catch {
    return undefined
  }
}

export class FdStore {
  readonly #notifySocket: string | undefined
  /** By name: what was kept, and is not taken up yet. */
  readonly #kept: Map<string, number>
  /** By export: what is kept for the next server. */
  readonly #names = new Map<string, string>()

  /** Called where a description cannot be given to the manager; it ends with this process then. */
  unkept: (exportName: string, errno: Outcome) => void = () => {}

  constructor(kept: readonly NamedDescriptor[] = [], notifySocket = process.env['NOTIFY_SOCKET']) {
    this.#kept = new Map(kept.map(({ name, fd }) => [name, fd]))
    this.#notifySocket = notifySocket
  }

  #tell(fd: number, ...lines: readonly string[]): Outcome {
    return this.#notifySocket === undefined ? DONE : sendDatagram(this.#notifySocket, lines.join('\n'), fd)
  }

  /** The descriptor of this very image that an earlier server left; whoever asks closes it. */
  take({ path, readOnly }: ExportConfig): number | undefined {
    if (readOnly || this.#kept.size === 0) return undefined
    const name = nameOf(statusOf(path))
    const fd = this.#kept.get(name)
    this.#kept.delete(name)
    return fd
  }

  /**
   * An image is served, and will be changed: its description outlives this process from here on, unless that fails. `isKept`:
   * the manager has it from the process before, and would not hear this one yet.
   */
  keep({ name: exportName, readOnly }: Pick<ExportConfig, 'name' | 'readOnly'>, fd: number, isKept = false): void {
    if (readOnly || fd < 0 || this.#notifySocket === undefined) return
    const name = nameOf(fstatSync(fd, { bigint: true }))
    this.#names.set(exportName, name)
    if (isKept) return
    const errno = this.#tell(fd, 'FDSTORE=1', `FDNAME=${name}`, 'FDPOLL=0')
    if (errno !== DONE) this.unkept(exportName, errno)
  }

  /** The same for an image that was opened again while it was served: the description before it is no witness any more. */
  keepAnew(name: string, fd: number): void {
    this.drop(name)
    this.keep({ name, readOnly: false }, fd)
  }

  /** Its image is synced and let go of. */
  drop(exportName: string): void {
    const name = this.#names.get(exportName)
    if (name === undefined) return
    this.#names.delete(exportName)
    this.#tell(-1, 'FDSTOREREMOVE=1', `FDNAME=${name}`)
  }

  dropAll(): void {
    for (const exportName of [...this.#names.keys()]) this.drop(exportName)
  }

  /** Gives up what nobody has come for: images that are served no more, which their records speak of all the same. */
  dropUnclaimed(): void {
    for (const [name, fd] of this.#kept) {
      closeSync(fd)
      this.#tell(-1, 'FDSTOREREMOVE=1', `FDNAME=${name}`)
    }
    this.#kept.clear()
  }
}
