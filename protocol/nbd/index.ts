// The door of nbd-protocol: everything that a server or a client of NBD needs, and nothing that does I/O.
export { decodeForDisplay, decodeUtf8, encodeUtf8, getUint64, SATURATED, setUint64, viewOf } from './bytes.js'
export { Client, connectClient, enterTransmission } from './client.js'
export { ClientHandshake, type Negotiation, type NegotiationWishes, OptionError } from './client-handshake.js'
export { type BlockDescriptor, RequestError } from './client-replies.js'
export { ByteReader, type ByteStream } from './client-stream.js'
export * from './constants.js'
export { Handshake } from './handshake.js'
export type {
  ExportRefusal,
  HandshakeExport,
  HandshakeHost,
  HandshakeLimits,
  HandshakeOutcome,
} from './handshake-host.js'
export { BASE_ALLOCATION, matchingContexts, QEMU_ALLOCATION_DEPTH } from './meta-context.js'
export * from './options.js'
export { ProtocolError, type ProtocolErrorCode } from './protocol-error.js'
export * from './reply.js'
export * from './request.js'
