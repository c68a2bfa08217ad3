// A connection in transmission as it can change processes: what was negotiated, what the peer has sent and nobody served,
// what it waits for. Law: a request is in one of these places and no other: unserved, to be begun anew, or in a reply.
import { closeSync } from 'node:fs'
import { ProtocolError, type ProtocolErrorCode } from 'nbd-protocol'
import type { Hold } from '../exports/space-hold.js'
import type { Connection } from './connection.js'
import type { Established } from './negotiation.js'
import type { ReceiveBuffer } from './receive-buffer.js'
import type { Unserved } from './region.js'
import type { Begun } from './slow-requests.js'
import type { Transmission } from './transmission.js'
import type { Transport } from './transport.js'

/** A request that was taken and not answered: it begins anew in the process that takes over. */
export interface MovedRequest {
  readonly request: Begun
  readonly payload: Uint8Array
  /** The order of arrival among all requests of the export. */
  readonly number: number
  /** ms since it arrived. */
  readonly ageMs: number
  /** It was held for want of space. */
  readonly hold: Hold | undefined
  /** Counters know it: where not, it is counted when it begins anew. */
  readonly counted: boolean
}

/** What a connection's stream and its requests have come to. */
export interface Progress {
  readonly unserved: Unserved
  /** The epochs under which the first FUA WRITEs in `unserved` began: of those parts may have landed. */
  readonly began: readonly number[]
  /** Bytes of replies that the kernel has not taken. */
  readonly unsent: Uint8Array
  readonly requests: readonly MovedRequest[]
  /** NBD_CMD_DISC was read. */
  readonly disconnected: boolean
  /** The peer broke the wire: it gets its answers, and then the end. */
  readonly lost: { readonly code: string; readonly message: string } | undefined
}

/** A connection that nobody serves. */
export interface MovedConnection {
  /** The front desk's number for it. */
  readonly connection: number
  readonly fd: number
  readonly exportName: string
  /** Bytes of the export as the client was told. */
  readonly size: number
  readonly established: Established
  /** The peer as log and ledger name it. */
  readonly client: string
  readonly progress: Progress
}

/** What a connection is made of. */
export interface ConnectionParts {
  readonly receive: ReceiveBuffer
  readonly transport: Transport
  readonly transmission: Transmission
  readonly established: Established
  readonly client: string
}

/**
 * Takes a frozen connection out whose requests are answered, or to be begun anew; the object is of no more use. undefined
 * when it has come to its end, and only waits for its peer to take the last replies.
 * @throws NoDescriptorError, and nothing has happened then
 */
export function takeOut(connection: Connection): Omit<MovedConnection, 'connection' | 'exportName'> | undefined {
  const { receive, transport, transmission, established, client } = connection.parts
  if (!transport.canMove) return undefined
  const fd = transport.duplicate()
  const abandoned = connection.abandon()
  if (abandoned === undefined) {
    closeSync(fd)
    return undefined
  }
  const unsent = transport.takeOut()
  const lost = abandoned.lost && { code: abandoned.lost.code, message: abandoned.lost.message }
  const { disconnected, slow, large } = transmission
  const { judged } = large
  const began = [...large.began, ...transmission.began]
  const unserved = receive.unserved(large.takeMoved(), judged)
  const requests = [...large.takeRequests(), ...slow.takeMoved()]
  const progress = { unserved, began, unsent, requests, disconnected, lost }
  return { fd, size: connection.size, established, client, progress }
}

/** Puts a connection that has not begun to where another object left it. */
export function goOn({ transport, transmission }: ConnectionParts, progress: Progress): void {
  if (progress.unsent.length > 0) transport.batch.send([progress.unsent])
  transmission.began = [...progress.began]
  transmission.disconnected = progress.disconnected
}

/** Why the peer is read no more, if it is so. */
export function lossOf(progress: Progress | undefined): ProtocolError | undefined {
  return progress?.lost && new ProtocolError(progress.lost.code as ProtocolErrorCode, progress.lost.message)
}

/** What comes first: what another object has left, or what came behind the handshake. */
export function unservedOf(progress: Progress | undefined, leftover: Uint8Array): Unserved {
  return progress?.unserved ?? { bytes: leftover, skip: 0, skippedHeader: undefined }
}
