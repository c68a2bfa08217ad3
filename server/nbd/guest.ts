// Who is connected, from the first byte to the last: the main thread's word for a connection, wherever it is served.
import type { DirectoryEntry } from '../io/directory.js'
import type { IoHost } from '../io/io-host.js'
import { type Peer, peerName } from './negotiation.js'
import type { HandOver, Reception } from './reception.js'

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

/** A connection whose handshake is done. */
export interface ReadyGuest {
  readonly connection: number
  readonly guest: Guest
  readonly handOver: HandOver
}

export type Detour = (ready: ReadyGuest) => void

/** What the front desk knows, for another process. */
export interface KnownFront {
  readonly guests: readonly (Pick<Guest, 'peer' | 'since'> & {
    readonly connection: number
    readonly exportName: string
  })[]
  /** Numbers from this one on were given to nobody. */
  readonly nextConnection: number
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

/** How many of them are so. */
export function seatsOf(guests: Iterable<Guest>, isSo: (guest: Guest) => boolean): number {
  let seats = 0
  for (const guest of guests) if (isSo(guest)) seats += 1
  return seats
}

/** What keeps one more out of an export where so many are: a bound by its flag; undefined where there is a seat. */
export function boundOf({ name, config, face }: DirectoryEntry, byDefault: number, taken: number) {
  const most = config?.limits.connectionsPerExportMax ?? byDefault
  const writers = face.readOnly ? undefined : config?.writers
  if (taken < Math.min(most, writers ?? most)) return undefined
  const flag =
    writers !== undefined && writers <= most ? `--writers ${writers}` : `--connections-per-export-max ${most}`
  const others = taken === 1 ? 'another client' : `${taken} clients`
  return { flag, taken, sentence: `export '${name}' is in use by ${others}, and takes no more (${flag})` }
}

/** A connection as people look at it; `inFlight` by the connection's number. */
export function sessionOf(connection: number, guest: Guest, inFlight: ReadonlyMap<number, number>): Session {
  const { peer, since, exportName } = guest
  const requests = exportName === undefined ? 0 : inFlight.get(connection)
  return {
    id: connection,
    ...whoIs(peer),
    tls: peer.secured,
    ...(exportName !== undefined && { export: exportName }),
    since: new Date(since).toISOString(),
    ageSeconds: (Date.now() - since) / 1000,
    ...(requests !== undefined && { inFlight: requests }),
  }
}
