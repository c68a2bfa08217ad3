// The server's answers to the questions of the handshake: which exports there are, and how one is shown.
import {
  type HandshakeExport,
  type HandshakeHost,
  type HandshakeOutcome,
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_REP_ERR_POLICY,
  NBD_REP_ERR_TLS_REQD,
} from 'nbd-protocol'
import type { Export } from '../exports/export.js'
import type { DirectoryEntry, ExportDirectory } from '../io/directory.js'
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
 * go by the spec's defaults, whose minimum is one byte ("Size constraints"). `size` is what it was told.
 */
export function termsFor(served: Export, established: Established, size = served.size): Terms {
  const { transmissionFlags, replyStyle, contexts, knowsBlockSizes } = established
  const extended = replyStyle === 'extended'
  return {
    size,
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

/** What the handshake asks of the server behind it, for one peer. */
export interface Desk {
  readonly directory: ExportDirectory
  /** Of exports that have no word of their own. */
  readonly tls: TlsMode
  /** Whether STARTTLS can be granted. */
  readonly offersTls: boolean
  readonly isShuttingDown: () => boolean
  /** Gives the peer a seat at an export, or says why there is none. */
  readonly enter: (entry: DirectoryEntry) => string | undefined
}

/** `require` only where no export can be had in the clear: what is fixed before a client has named one. */
function serverMode({ directory, tls, offersTls }: Desk): TlsMode {
  if (!offersTls) return 'off'
  const entries = [...directory]
  const inTheClear =
    entries.length === 0 ? tls !== 'require' : entries.some((entry) => modeOf(entry, tls) !== 'require')
  return inTheClear ? 'allow' : 'require'
}

function modeOf({ config }: DirectoryEntry, byDefault: TlsMode): TlsMode {
  return config?.tls ?? byDefault
}

/** One session at a time cannot be shared by several connections. */
function faceOf({ face, config }: DirectoryEntry): HandshakeExport {
  if (config?.writers !== 1 || face.readOnly) return face
  return { ...face, transmissionFlags: face.transmissionFlags & ~NBD_FLAG_CAN_MULTI_CONN }
}

/** The handshake's view of the exports, for one peer. */
export function handshakeHost(desk: Desk, peer: Peer): HandshakeHost {
  const { directory } = desk
  const shows = (entry: DirectoryEntry) => !entry.leaving && entry.access.admits(peer)
  const isSecureEnough = (entry: DirectoryEntry) => peer.secured || modeOf(entry, desk.tls) !== 'require'
  return {
    tls: serverMode(desk),
    get shuttingDown() {
      return desk.isShuttingDown()
    },
    *list() {
      for (const entry of directory) if (shows(entry) && isSecureEnough(entry)) yield entry.face
    },
    find: (name) => {
      const found = directory.find(name)
      return found !== undefined && shows(found) ? faceOf(found) : undefined
    },
    refusal: ({ name }, enters) => {
      const entry = directory.find(name)
      if (entry === undefined) return undefined
      if (!isSecureEnough(entry)) {
        return { error: NBD_REP_ERR_TLS_REQD, message: `export '${name}' is had over TLS alone` }
      }
      const message = enters ? desk.enter(entry) : undefined
      return message === undefined ? undefined : { error: NBD_REP_ERR_POLICY, message }
    },
  }
}
