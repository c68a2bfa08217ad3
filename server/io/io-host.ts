// Where exports live: a host has some of them and serves their connections, in this thread or in one of its own. Law:
// who stands outside knows an export by its face alone, and hands connections over when their handshake is done.
import type { HandshakeExport } from 'nbd-protocol'
import type { OpenedImage } from '../../backends/index.js'
import type { ExportConfig } from '../config.js'
import type { ControlReply, ControlRequest } from '../control/export-actions.js'
import type { MovedExport } from '../exports/open-export.js'
import type { ConnectionFault } from '../nbd/connection-options.js'
import type { MovedConnection, Progress } from '../nbd/moved.js'
import type { Established } from '../nbd/negotiation.js'
import type { BackingShare } from '../observe/backing-block.js'
import type { Counters } from '../observe/counters.js'
import type { FrozenHost } from './freezing.js'

/** What the front desk knows of an export. */
export interface ExportFace extends HandshakeExport {
  readonly readOnly: boolean
  readonly counters: Counters
}

/** A connection whose handshake is done. */
export interface AttachOrder {
  /** The front desk's number for it. */
  readonly connection: number
  /** The socket, the host's own from here on. */
  readonly fd: number
  readonly exportName: string
  readonly established: Established
  /** What the client sent behind its handshake. */
  readonly leftover: Uint8Array
  /** The peer as log and ledger name it. */
  readonly client: string
  /** It was served elsewhere before: this is where it goes on. */
  readonly progress?: Progress
  /** Bytes of the export as the client was told; by default what it has now. */
  readonly size?: number
}

/** A vhost-user session that is about to begin. */
export interface VhostUserOrder {
  /** The front desk's number for it. */
  readonly connection: number
  /** The socket, the host's own from here on. */
  readonly fd: number
  readonly exportName: string
  /** The peer as log and ledger name it. */
  readonly client: string
}

/** Why a connection ended, as it can be told to another thread. */
export interface EndedFault {
  readonly phase: ConnectionFault['phase']
  /** A code of ProtocolError, or what happened. */
  readonly reason: string
  readonly isProtocolError: boolean
  readonly detail: string
}

/** `force`: connections are ended first. `moved`: its path leads elsewhere, which keeps no sync from being believed. */
export type RemovalKind = 'drain' | 'force' | 'moved'

/** How the removal of an export went. */
export interface Removal {
  /** False: storage has kept requests for too long, so the export stays, and takes no new requests. */
  readonly gone: boolean
  readonly unanswered: number
  /** The final sync succeeded. */
  readonly synced: boolean
}

export interface ConnectionEvents {
  connectionFaulted(connection: number, fault: EndedFault): void
  connectionEnded(connection: number): void
}

export interface HostEvents extends ConnectionEvents {
  /** Those who come from now on are told another size. */
  exportResized(exportName: string, size: number): void
}

export interface IoHost {
  /** ms since the epoch at [0], once a second: a host that stands still is waiting for storage. */
  readonly pulse: Counters
  /**
   * Serves an image that is open and locked; it is the host's from here on. `share` is the host's part in the file system
   * that the image lies on; `moved`: another process has served it until now. @throws OpenError
   */
  open(
    config: ExportConfig,
    image: OpenedImage,
    share: BackingShare | undefined,
    moved?: MovedExport,
  ): Promise<ExportFace>
  attach(order: AttachOrder): void
  /** Ends a connection; what it asked for and was not answered is not answered any more. */
  disconnect(connection: number): void
  /**
   * Stops to serve one export: its requests in flight are answered, unless their connections are ended first; new ones
   * are refused; then comes the final sync, and the image is given back.
   */
  remove(exportName: string, how: RemovalKind, timeoutMs: number): Promise<Removal>
  attachVhostUser(order: VhostUserOrder): void
  /** Asks one export something, by name, or all of them. */
  ask(request: ControlRequest): Promise<ControlReply>
  /** Every new request is refused with NBD_ESHUTDOWN from now on, and so is what is held. */
  drain(): void
  /** Waits until nothing is in flight and all replies are taken, or the time is over; then ends every connection. */
  finish(timeoutMs: number): Promise<{ readonly unanswered: number }>
  /**
   * Waits, while all are served, for requests that cannot change processes; the exports of those that are left when the time
   * is over.
   */
  settle(timeoutMs: number): Promise<readonly string[]>
  /**
   * Brings everything to rest: connections are taken out, and nothing is begun until `goOn`, which is due whatever the
   * answer, and also where none came.
   */
  freeze(timeoutMs: number): Promise<FrozenHost>
  /** Serves what was taken out and what was left when it froze, and these connections of another process. */
  goOn(handedOver?: readonly MovedConnection[]): Promise<void>
  /** Another process has it all: gives records and descriptors up, without a word to storage. */
  abandon(): Promise<void>
  /** The final sync of every export; false when one failed. */
  sync(): Promise<boolean>
  /** Gives records, locks and descriptors back. */
  close(): Promise<void>
}
