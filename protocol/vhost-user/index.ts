// The door of vhost-user-protocol: everything that a back-end of a block device needs, and nothing that does I/O.
export * from './constants.js'
export type { Device } from './device.js'
export {
  encodeMessage,
  type Frame,
  HEADER_BYTES,
  MessageStream,
  PAYLOAD_BYTES_MAX,
  WAITING_BYTES_MAX,
  WAITING_DESCRIPTORS_MAX,
} from './message-stream.js'
export { DONE, type MappedRegion, type Order, type Reply, type Result, type RingSetup } from './orders.js'
export * from './payloads.js'
export { ProtocolError, type ProtocolErrorCode } from './protocol-error.js'
export { type Bodies, type Phase, PROTOCOL_FEATURES, type Request, RULES } from './rules.js'
export { Session } from './session.js'
export * from './virtio-blk.js'
