// What the NBD front end is made of, and how much it lets in.
import type { TlsContext } from '../../backends/index.js'
import type { ExportDirectory } from '../io/directory.js'
import type { Counters } from '../observe/counters.js'
import type { Log } from '../observe/log.js'
import type { ConnectionLimits } from './connection-options.js'
import type { ReceptionLimits } from './reception.js'
import type { TlsMode } from './tls.js'
import type { Tunnels } from './tunnel.js'

export interface NbdLimits extends ConnectionLimits, ReceptionLimits {
  /** One more is closed as soon as it is accepted. */
  readonly connectionsMax: number
  /** The same for each client address; Unix sockets have none. */
  readonly connectionsPerAddressMax: number
  /** The same for each export, refused in the handshake. */
  readonly connectionsPerExportMax: number
}

export interface NbdServerOptions {
  readonly directory: ExportDirectory
  readonly counters: Counters
  readonly limits: NbdLimits
  readonly log: Log
  readonly tlsMode?: TlsMode
  readonly tls?: TlsContext | undefined
  /** Where clients go that ask for TLS; `tls` needs it. */
  readonly tunnels?: Tunnels
  /** Sessions at an export that came in by other doors. */
  readonly elsewhere?: (exportName: string) => number
  /** An export has another size in the directory. */
  readonly resized?: () => void
}
