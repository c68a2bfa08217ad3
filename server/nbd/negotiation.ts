// The server's answers to the questions of the handshake: which exports there are, and how one is shown.
import type { HandshakeExport, HandshakeHost, HandshakeOutcome } from 'nbd-protocol'
import type { Export } from '../exports/export.js'
import type { ExportDirectory } from '../io/directory.js'
import { CONTEXT_NAMES } from './block-status.js'
import type { TlsMode } from './tls.js'
import { allowedFlags, type Terms } from './validation.js'

/** Bytes of the largest READ or WRITE that candor takes: what the spec says every server should bear. */
export const PAYLOAD_BYTES_MAX = 32 << 20

/** What an export looks like from the wire. */
export function describeExport(entry: Export): HandshakeExport {
  const { minimumBlockSize, preferredBlockSize, extents } = entry.backend.can
  return {
    name: entry.name,
    description: entry.description,
    size: entry.size,
    transmissionFlags: entry.transmissionFlags,
    blockSizes: { minimum: minimumBlockSize, preferred: preferredBlockSize, maximum: PAYLOAD_BYTES_MAX },
    contexts: extents ? CONTEXT_NAMES : [],
  }
}

/** A handshake that ended in transmission. */
export type Established = Extract<HandshakeOutcome, { kind: 'transmission' }>

/**
 * What the handshake's result means for the requests to come. A client that did not ask for the size constraints may
 * go by the spec's defaults, whose minimum is one byte ("Size constraints").
 */
export function termsFor(served: Export, established: Established): Terms {
  const { transmissionFlags, replyStyle, contexts, knowsBlockSizes } = established
  const extended = replyStyle === 'extended'
  return {
    size: served.size,
    readOnly: served.readOnly,
    extended,
    minimumBlockSize: knowsBlockSizes ? served.backend.can.minimumBlockSize : 1,
    payloadBytesMax: PAYLOAD_BYTES_MAX,
    allowedFlags: allowedFlags(transmissionFlags, extended, contexts.length),
  }
}

/** Who is at the other end of a connection. */
export interface Peer {
  /** undefined: it came through a Unix socket, whose permissions have let it in. */
  readonly address: string | undefined
  readonly port: number | undefined
  /** TLS was set up. */
  secured: boolean
  /** Subject of the verified client certificate, once there is one. */
  subject: string | undefined
}

/** The peer as log and ledger name it. */
export function peerName({ address, port }: Peer): string {
  return address === undefined ? 'unix' : `${address}:${port}`
}

/** The handshake's view of the exports, for one peer. `isShuttingDown` is asked at every option. */
export function handshakeHost(
  directory: ExportDirectory,
  tls: TlsMode,
  peer: Peer,
  isShuttingDown: () => boolean,
): HandshakeHost {
  return {
    tls,
    get shuttingDown() {
      return isShuttingDown()
    },
    *list() {
      for (const { access, face, leaving } of directory) if (!leaving && access.admits(peer)) yield face
    },
    find: (name) => {
      const found = directory.find(name)
      return found?.access.admits(peer) && !found.leaving ? found.face : undefined
    },
  }
}
