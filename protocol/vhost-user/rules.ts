// The session as a table: which message is legal when, with how many descriptors, and how it is answered. Law: what a
// message may ask is settled here, before anybody looks at what it says.
import {
  VHOST_USER_ADD_MEM_REG,
  VHOST_USER_GET_CONFIG,
  VHOST_USER_GET_FEATURES,
  VHOST_USER_GET_INFLIGHT_FD,
  VHOST_USER_GET_MAX_MEM_SLOTS,
  VHOST_USER_GET_PROTOCOL_FEATURES,
  VHOST_USER_GET_QUEUE_NUM,
  VHOST_USER_GET_STATUS,
  VHOST_USER_GET_VRING_BASE,
  VHOST_USER_PROTOCOL_F_BACKEND_REQ,
  VHOST_USER_PROTOCOL_F_CONFIG,
  VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
  VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD,
  VHOST_USER_PROTOCOL_F_MQ,
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
  VHOST_USER_PROTOCOL_F_RESET_DEVICE,
  VHOST_USER_PROTOCOL_F_STATUS,
  VHOST_USER_REM_MEM_REG,
  VHOST_USER_RESET_DEVICE,
  VHOST_USER_RESET_OWNER,
  VHOST_USER_SET_BACKEND_REQ_FD,
  VHOST_USER_SET_CONFIG,
  VHOST_USER_SET_FEATURES,
  VHOST_USER_SET_INFLIGHT_FD,
  VHOST_USER_SET_MEM_TABLE,
  VHOST_USER_SET_OWNER,
  VHOST_USER_SET_PROTOCOL_FEATURES,
  VHOST_USER_SET_STATUS,
  VHOST_USER_SET_VRING_ADDR,
  VHOST_USER_SET_VRING_BASE,
  VHOST_USER_SET_VRING_CALL,
  VHOST_USER_SET_VRING_ENABLE,
  VHOST_USER_SET_VRING_ERR,
  VHOST_USER_SET_VRING_KICK,
  VHOST_USER_SET_VRING_NUM,
} from './constants.js'
import {
  type ConfigAccess,
  decodeConfigAccess,
  decodeEmpty,
  decodeInflightArea,
  decodeMemoryTable,
  decodeSingleRegion,
  decodeU64,
  decodeVringAddress,
  decodeVringFile,
  decodeVringState,
  type InflightArea,
  type MemoryRegion,
  type VringAddress,
  type VringFile,
  type VringState,
} from './payloads.js'

/** What the payload of each message means. */
export interface Bodies {
  [VHOST_USER_GET_FEATURES]: true
  [VHOST_USER_SET_FEATURES]: bigint
  [VHOST_USER_SET_OWNER]: true
  [VHOST_USER_RESET_OWNER]: true
  [VHOST_USER_SET_MEM_TABLE]: MemoryRegion[]
  [VHOST_USER_SET_VRING_NUM]: VringState
  [VHOST_USER_SET_VRING_ADDR]: VringAddress
  [VHOST_USER_SET_VRING_BASE]: VringState
  [VHOST_USER_GET_VRING_BASE]: VringState
  [VHOST_USER_SET_VRING_KICK]: VringFile
  [VHOST_USER_SET_VRING_CALL]: VringFile
  [VHOST_USER_SET_VRING_ERR]: VringFile
  [VHOST_USER_GET_PROTOCOL_FEATURES]: true
  [VHOST_USER_SET_PROTOCOL_FEATURES]: bigint
  [VHOST_USER_GET_QUEUE_NUM]: true
  [VHOST_USER_SET_VRING_ENABLE]: VringState
  [VHOST_USER_SET_BACKEND_REQ_FD]: true
  [VHOST_USER_GET_CONFIG]: ConfigAccess
  [VHOST_USER_SET_CONFIG]: ConfigAccess
  [VHOST_USER_GET_INFLIGHT_FD]: InflightArea
  [VHOST_USER_SET_INFLIGHT_FD]: InflightArea
  [VHOST_USER_RESET_DEVICE]: true
  [VHOST_USER_GET_MAX_MEM_SLOTS]: true
  [VHOST_USER_ADD_MEM_REG]: MemoryRegion
  [VHOST_USER_REM_MEM_REG]: MemoryRegion
  [VHOST_USER_SET_STATUS]: bigint
  [VHOST_USER_GET_STATUS]: true
}

export type Request = keyof Bodies

/** `opened` until the front-end has set the features, `agreed` from then on. */
export type Phase = 'opened' | 'agreed'

export interface Rule<Body> {
  readonly decode: (payload: Uint8Array) => Body | undefined
  /** Descriptors that it may bring, for its body. */
  readonly descriptors: (body: Body) => { readonly min: number; readonly max: number }
  /** The protocol feature, as the number of its bit, that has to be agreed on. */
  readonly feature: number | undefined
  readonly phases: readonly Phase[]
  /** It has an answer of its own, and no other acknowledgement. */
  readonly answers: boolean
}

const NONE = { min: 0, max: 0 }
const ONE = { min: 1, max: 1 }
const ALWAYS: readonly Phase[] = ['opened', 'agreed']
const AGREED: readonly Phase[] = ['agreed']

function rule<Body>(decode: Rule<Body>['decode'], more: Partial<Rule<Body>> = {}): Rule<Body> {
  return { decode, descriptors: () => NONE, feature: undefined, phases: ALWAYS, answers: false, ...more }
}

const slots = VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS
const inflight = VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD
const file = { descriptors: ({ hasDescriptor }: VringFile) => (hasDescriptor ? ONE : NONE) }

/** "Front-end message types", one line for each that a block device without live migration understands. */
export const RULES: { readonly [Each in Request]: Rule<Bodies[Each]> } = {
  [VHOST_USER_GET_FEATURES]: rule(decodeEmpty, { answers: true }),
  [VHOST_USER_SET_FEATURES]: rule(decodeU64),
  [VHOST_USER_SET_OWNER]: rule(decodeEmpty),
  [VHOST_USER_RESET_OWNER]: rule(decodeEmpty),
  [VHOST_USER_SET_MEM_TABLE]: rule(decodeMemoryTable, {
    descriptors: ({ length }) => ({ min: length, max: length }),
  }),
  [VHOST_USER_SET_VRING_NUM]: rule(decodeVringState),
  [VHOST_USER_SET_VRING_ADDR]: rule(decodeVringAddress, { phases: AGREED }),
  [VHOST_USER_SET_VRING_BASE]: rule(decodeVringState),
  [VHOST_USER_GET_VRING_BASE]: rule(decodeVringState, { answers: true }),
  [VHOST_USER_SET_VRING_KICK]: rule(decodeVringFile, { ...file, phases: AGREED }),
  [VHOST_USER_SET_VRING_CALL]: rule(decodeVringFile, file),
  [VHOST_USER_SET_VRING_ERR]: rule(decodeVringFile, file),
  [VHOST_USER_GET_PROTOCOL_FEATURES]: rule(decodeEmpty, { answers: true }),
  [VHOST_USER_SET_PROTOCOL_FEATURES]: rule(decodeU64),
  [VHOST_USER_GET_QUEUE_NUM]: rule(decodeEmpty, { answers: true, feature: VHOST_USER_PROTOCOL_F_MQ }),
  [VHOST_USER_SET_VRING_ENABLE]: rule(decodeVringState, { phases: AGREED }),
  [VHOST_USER_SET_BACKEND_REQ_FD]: rule(decodeEmpty, {
    feature: VHOST_USER_PROTOCOL_F_BACKEND_REQ,
    descriptors: () => ONE,
  }),
  [VHOST_USER_GET_CONFIG]: rule(decodeConfigAccess, { answers: true, feature: VHOST_USER_PROTOCOL_F_CONFIG }),
  [VHOST_USER_SET_CONFIG]: rule(decodeConfigAccess, { feature: VHOST_USER_PROTOCOL_F_CONFIG }),
  [VHOST_USER_GET_INFLIGHT_FD]: rule(decodeInflightArea, { answers: true, feature: inflight }),
  [VHOST_USER_SET_INFLIGHT_FD]: rule(decodeInflightArea, { feature: inflight, descriptors: () => ONE }),
  [VHOST_USER_RESET_DEVICE]: rule(decodeEmpty, { feature: VHOST_USER_PROTOCOL_F_RESET_DEVICE }),
  [VHOST_USER_GET_MAX_MEM_SLOTS]: rule(decodeEmpty, { answers: true, feature: slots }),
  [VHOST_USER_ADD_MEM_REG]: rule(decodeSingleRegion, { feature: slots, descriptors: () => ONE }),
  // "The back-end MAY accept messages with one file descriptor", which is closed unused.
  [VHOST_USER_REM_MEM_REG]: rule(decodeSingleRegion, { feature: slots, descriptors: () => ({ min: 0, max: 1 }) }),
  [VHOST_USER_SET_STATUS]: rule(decodeU64, { feature: VHOST_USER_PROTOCOL_F_STATUS }),
  [VHOST_USER_GET_STATUS]: rule(decodeEmpty, { answers: true, feature: VHOST_USER_PROTOCOL_F_STATUS }),
}

/** What this table knows how to keep. */
export const PROTOCOL_FEATURES = [
  VHOST_USER_PROTOCOL_F_MQ,
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
  VHOST_USER_PROTOCOL_F_BACKEND_REQ,
  VHOST_USER_PROTOCOL_F_CONFIG,
  inflight,
  VHOST_USER_PROTOCOL_F_RESET_DEVICE,
  slots,
  VHOST_USER_PROTOCOL_F_STATUS,
] as const

export function isKnown(request: number): request is Request {
  return Object.hasOwn(RULES, request)
}
