// What each message does to a session: a reply at once, an order, or nothing but an acknowledgement. One function for each
// row of the table in rules.ts.
import {
  bits,
  hasBit,
  VHOST_USER_ADD_MEM_REG,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VHOST_USER_GET_CONFIG,
  VHOST_USER_GET_FEATURES,
  VHOST_USER_GET_INFLIGHT_FD,
  VHOST_USER_GET_MAX_MEM_SLOTS,
  VHOST_USER_GET_PROTOCOL_FEATURES,
  VHOST_USER_GET_QUEUE_NUM,
  VHOST_USER_GET_STATUS,
  VHOST_USER_GET_VRING_BASE,
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
  VIRTIO_F_RING_PACKED,
} from './constants.js'
import type { Device } from './device.js'
import type { Order, Result } from './orders.js'
import {
  type ConfigAccess,
  configPlace,
  encodeConfigAccess,
  encodeInflightArea,
  encodeU64,
  encodeVringState,
  type VringFile,
} from './payloads.js'
import { ProtocolError } from './protocol-error.js'
import type { RingFile, Rings } from './rings.js'
import { type Bodies, type Phase, PROTOCOL_FEATURES, type Request } from './rules.js'

/** What the two sides agreed on. */
export interface Agreement {
  phase: Phase
  features: bigint
  protocolFeatures: bigint
  /** The device status, which only the front-end makes anything of. */
  status: bigint
}

/** What a message meets. */
export interface Context {
  readonly device: Device
  readonly rings: Rings
  readonly agreement: Agreement
  /** The descriptors that came with it, the caller's from here on. */
  readonly take: () => readonly number[]
  /** Bytes of its payload. */
  readonly length: number
}

/** What comes of a message. With none of these it is only acknowledged. */
export interface Step {
  readonly order?: Order
  /** When the order was carried out or refused. */
  readonly settle?: (result: Result) => void
  readonly reply?: (
    result: Result,
  ) => { readonly payload: Uint8Array; readonly descriptors: readonly number[] } | undefined
  /** A reply that needs nobody else. */
  readonly now?: Uint8Array
  readonly refused?: string
}

type Handlers = { readonly [Each in Request]: (body: Bodies[Each], context: Context) => Step }

const NOTHING: Step = {}

const HANDLERS: Handlers = {
  [VHOST_USER_GET_FEATURES]: (_, { device }) => ({ now: encodeU64(device.features) }),
  [VHOST_USER_SET_FEATURES]: setFeatures,
  [VHOST_USER_SET_OWNER]: () => NOTHING,
  // "It is recommended that back-ends either ignore this message, or use it to disable all rings."
  [VHOST_USER_RESET_OWNER]: () => NOTHING,
  [VHOST_USER_GET_PROTOCOL_FEATURES]: (_, { device }) => ({ now: encodeU64(offeredProtocol(device)) }),
  [VHOST_USER_SET_PROTOCOL_FEATURES]: (wanted, { device, agreement }) => {
    if ((wanted & ~offeredProtocol(device)) !== 0n) {
      throw new ProtocolError('bad-features', `protocol features 0x${wanted.toString(16)} were not all offered`)
    }
    agreement.protocolFeatures = wanted
    return NOTHING
  },
  [VHOST_USER_GET_QUEUE_NUM]: (_, { device }) => ({ now: encodeU64(BigInt(device.queuesMax)) }),
  [VHOST_USER_GET_MAX_MEM_SLOTS]: (_, { device }) => ({ now: encodeU64(BigInt(device.memorySlotsMax)) }),
  [VHOST_USER_SET_MEM_TABLE]: (table, { device, take }) => {
    if (table.length > device.memorySlotsMax) return { refused: `${table.length} regions of memory are too many` }
    const descriptors = take()
    return { order: { do: 'map', regions: table.map((each, at) => ({ ...each, descriptor: descriptors[at] ?? -1 })) } }
  },
  [VHOST_USER_ADD_MEM_REG]: (region, { take }) => ({
    order: { do: 'add-region', region: { ...region, descriptor: take()[0] ?? -1 } },
  }),
  [VHOST_USER_REM_MEM_REG]: (region) => ({ order: { do: 'remove-region', region } }),
  [VHOST_USER_SET_VRING_NUM]: ({ index, num }, { rings, agreement }) => {
    rings.setSize(index, num, hasBit(agreement.features, VIRTIO_F_RING_PACKED))
    return NOTHING
  },
  [VHOST_USER_SET_VRING_BASE]: ({ index, num }, { rings }) => {
    rings.setBase(index, num)
    return NOTHING
  },
  [VHOST_USER_SET_VRING_ADDR]: (addresses, { rings }) => {
    rings.setAddresses(addresses)
    return NOTHING
  },
  [VHOST_USER_SET_VRING_KICK]: setKick,
  [VHOST_USER_SET_VRING_CALL]: setCall,
  [VHOST_USER_SET_VRING_ERR]: (file, context) => {
    setFile('err', file, context)
    return NOTHING
  },
  [VHOST_USER_SET_VRING_ENABLE]: setEnable,
  [VHOST_USER_GET_VRING_BASE]: getBase,
  [VHOST_USER_SET_BACKEND_REQ_FD]: (_, { take }) => ({ order: { do: 'take-channel', descriptor: take()[0] ?? -1 } }),
  [VHOST_USER_GET_CONFIG]: getConfig,
  // Its flags tell nothing: cloud-hypervisor writes with the one that the specification has for live migration.
  [VHOST_USER_SET_CONFIG]: ({ offset, size, data }) => {
    if (data.length !== size) return { refused: `SET_CONFIG says ${size} bytes and brings ${data.length}` }
    return { order: { do: 'write-config', offset: configPlace(offset), data } }
  },
  [VHOST_USER_GET_INFLIGHT_FD]: ({ queues, queueSize }, { length }) => ({
    order: { do: 'make-inflight', queues, queueSize },
    reply: (result) => {
      const { size, offset, descriptors } =
        result.kind === 'area'
          ? { ...result, descriptors: [result.descriptor] }
          : { size: 0n, offset: 0n, descriptors: [] }
      return { payload: encodeInflightArea({ size, offset, queues, queueSize }, length), descriptors }
    },
  }),
  [VHOST_USER_SET_INFLIGHT_FD]: (area, { take }) => ({
    order: { do: 'take-inflight', area, descriptor: take()[0] ?? -1 },
  }),
  [VHOST_USER_RESET_DEVICE]: (_, { rings, agreement }) => ({
    order: { do: 'reset' },
    settle: () => {
      rings.reset()
      agreement.status = 0n
    },
  }),
  [VHOST_USER_SET_STATUS]: (status, { agreement }) => {
    agreement.status = status
    return NOTHING
  },
  [VHOST_USER_GET_STATUS]: (_, { agreement }) => ({ now: encodeU64(agreement.status) }),
}

/** What has to be done for a message that its rule has let through. @throws ProtocolError */
export function orderFor<Each extends Request>(request: Each, body: Bodies[Each], context: Context): Step {
  return HANDLERS[request](body, context)
}

/** What the device offers, as far as this package keeps it. */
function offeredProtocol({ protocolFeatures }: Device): bigint {
  return protocolFeatures & bits(...PROTOCOL_FEATURES)
}

function setFeatures(features: bigint, { device, rings, agreement }: Context): Step {
  if ((features & ~device.features) !== 0n) {
    throw new ProtocolError('bad-features', `features 0x${features.toString(16)} were not all offered`)
  }
  if (rings.anyRunning && features !== agreement.features) {
    throw new ProtocolError('out-of-turn', 'SET_FEATURES would change the features of rings that run')
  }
  agreement.phase = 'agreed'
  agreement.features = features
  if (!hasBit(features, VHOST_USER_F_PROTOCOL_FEATURES)) rings.enableAll()
  return { order: { do: 'agree', features } }
}

function setFile(which: RingFile, file: VringFile, { rings, take }: Context): number | undefined {
  // Asked first, so that a ring that is not there leaves the descriptor where it is closed.
  rings.at(file.index)
  const descriptor = file.hasDescriptor ? take()[0] : undefined
  rings.setFile(which, file, descriptor)
  return descriptor
}

function setKick(file: VringFile, context: Context): Step {
  const { rings } = context
  const kick = setFile('kick', file, context)
  if (rings.at(file.index).running) return { order: { do: 'set-kick', index: file.index, kick } }
  return start(file.index, rings)
}

function setCall(file: VringFile, context: Context): Step {
  const call = setFile('call', file, context)
  return context.rings.at(file.index).running ? { order: { do: 'set-call', index: file.index, call } } : NOTHING
}

function start(index: number, rings: Rings): Step {
  const ring = rings.due(index)
  if (ring === undefined) return NOTHING
  return { order: { do: 'start-ring', ring }, settle: ({ kind }) => rings.running(index, kind === 'done') }
}

/** A ring that is disabled is not served, and goes on from where it was when it is enabled again. */
function setEnable({ index, num }: { readonly index: number; readonly num: number }, { rings }: Context): Step {
  if (num > 1) throw new ProtocolError('bad-payload', `SET_VRING_ENABLE says ${num}, which is neither 0 nor 1`)
  rings.enable(index, num === 1)
  if (num === 1) return start(index, rings)
  if (!rings.at(index).running) return NOTHING
  return { order: { do: 'stop-ring', index }, settle: (result) => rings.paused(index, baseOf(result)) }
}

function getBase({ index }: { readonly index: number }, { rings }: Context): Step {
  const { running, base } = rings.at(index)
  if (!running) {
    rings.stopped(index)
    return { now: encodeVringState({ index, num: base }) }
  }
  return {
    order: { do: 'stop-ring', index },
    settle: (result) => {
      rings.paused(index, baseOf(result))
      rings.stopped(index)
    },
    reply: (result) => ({ payload: encodeVringState({ index, num: baseOf(result) }), descriptors: [] }),
  }
}

function baseOf(result: Result): number {
  if (result.kind !== 'base') throw new TypeError("a stopped ring's base has to be told")
  return result.base
}

/** "The payload size MUST match the front-end's request"; its offset goes back as it came. */
function getConfig({ offset, size, flags }: ConfigAccess, { device }: Context): Step {
  const data = device.config(configPlace(offset), size)
  return { now: encodeConfigAccess({ offset, size, flags, data }) }
}
