// Who is connected, from the first byte to the last: the main thread's word for a connection, wherever it is served.
import type { DirectoryEntry } from '../io/directory.js'
import type { IoHost } from '../io/io-host.js'
import { type Peer, peerName } from './negotiation.js'
import type { Reception } from './reception.js'

/** A connection as people look at it. */
export interface Session {
  /** By which `candor ctl disconnect` knows it. */
  readonly id: number
  /** Address and port, or 'unix'. */
  readonly peer: string
  /** Subject of the verified client certificate. */
  readonly subject?: string
  readonly tls: boolean
  /** Absent while the handshake lasts. */
  readonly export?: string
  /** ISO 8601. */
  readonly since: string
  readonly ageSeconds: number
  /** Requests that were taken and not answered yet; absent where the thread that knows waits for its storage. */
  readonly inFlight?: number
}

/** A connection, wherever it is. */
export interface Guest {
  readonly peer: Peer
  /** When it was accepted, in ms since the epoch. */
  readonly since: number
  /** The export that it was let into, or is about to be. */
  seat: string | undefined
  /** While the handshake lasts. */
  reception: Reception | undefined
  /** The export, and where it lives, once it is known. */
  exportName: string | undefined
  host: IoHost | undefined
}

export function newGuest(peer: Peer): Guest {
  const nowhere = { seat: undefined, reception: undefined, exportName: undefined, host: undefined }
  return { peer, since: Date.now(), ...nowhere }
}

export function whoIs(peer: Peer): { peer: string; subject?: string } {
  const { subject } = peer
  return { peer: peerName(peer), ...(subject !== undefined && { subject }) }
}

/** What keeps one more out of an export where so many are: a bound by its flag; undefined where there is a seat. */
export function boundOf({ name, config, face }: DirectoryEntry, byDefault: number, guests: Iterable<Guest>) {
  const most = config?.limits.connectionsPerExportMax ?? byDefault
  const writers = face.readOnly ? undefined : config?.writers
  let taken = 0
  for (const { seat } of guests) if (seat === name) taken += 1
  if (taken < Math.min(most, writers ?? most)) return undefined
  const flag =
    writers !== undefined && writers <= most ? `--writers ${writers}` : `--connections-per-export-max ${most}`
  return { flag, taken }
}
