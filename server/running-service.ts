// A service as the program around it sees it, and what it needs of that program.
import type { Config } from './config.js'
import type { FdStore } from './fd-store.js'
import type { Outgrowing } from './io/backing-desk.js'
import type { DirectoryEntry } from './io/directory.js'
import type { ListenAddress } from './nbd/listen.js'
import type { HttpAddress } from './observe/http.js'
import type { ServiceManager } from './service-manager.js'
import type { Predecessor } from './upgrade/predecessor.js'
import type { Upgrading } from './upgrade/upgrading.js'

export interface RunningService {
  readonly exports: Iterable<DirectoryEntry>
  /** Where it listens, with real ports. */
  readonly addresses: readonly ListenAddress[]
  readonly http: HttpAddress | undefined
  /** File systems that their images could outgrow. */
  readonly outgrowing: readonly Outgrowing[]
  /** Reads the words that it was started with again, and applies what can be. The log tells how that went. */
  reload(): Promise<void>
  /** How another process takes over. */
  readonly upgrading: Upgrading
  /** Answers what is in flight, refuses what is new, syncs everything. `synced` is false when a sync failed. */
  stop(): Promise<{ readonly synced: boolean }>
}

/** What belongs to the program around the server. */
export interface ServiceSurroundings {
  /** The words of the configuration once more. @throws UsageError */
  readonly read?: () => Config
  /** A reload begins; what is returned is called when it is over. */
  readonly reloading?: () => () => void
  /** A guest's vhost-user session has ended. */
  readonly guestLeft?: () => void
  /** Whoever watches over the service. */
  readonly manager?: ServiceManager
  /** Where descriptions of images outlive the process. */
  readonly store?: FdStore
  /** The process whose place is to be taken. */
  readonly predecessor?: Predecessor | undefined
}
