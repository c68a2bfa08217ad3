// The payloads of all messages, there and back ("Payload"). Law: what has not exactly the bytes that it should is undefined.
import { LITTLE, viewOf, written } from './bytes.js'
import {
  VHOST_USER_CONFIG_BYTES_MAX,
  VHOST_USER_CONFIG_OFFSET,
  VHOST_USER_VRING_INDEX_MASK,
  VHOST_USER_VRING_NOFD_FLAG,
} from './constants.js'

/** "A vring state description". */
export interface VringState {
  readonly index: number
  readonly num: number
}

/** "A vring address description"; user addresses, but for `log`. */
export interface VringAddress {
  readonly index: number
  readonly flags: number
  readonly descriptor: bigint
  readonly used: bigint
  readonly available: bigint
  readonly log: bigint
}

/** The u64 of SET_VRING_KICK, CALL and ERR. */
export interface VringFile {
  readonly index: number
  /** A descriptor comes with it; without one the ring is to be polled. */
  readonly hasDescriptor: boolean
}

/** A region of "Memory regions description". */
export interface MemoryRegion {
  readonly guestAddress: bigint
  readonly size: bigint
  readonly userAddress: bigint
  /** Where the region begins in its file. */
  readonly offset: bigint
}

/** "Virtio device config space". */
export interface ConfigAccess {
  /** As the front-end counts: `configPlace` has the place in the space. */
  readonly offset: number
  readonly size: number
  readonly flags: number
  readonly data: Uint8Array
}

/** "Inflight description". */
export interface InflightArea {
  readonly size: bigint
  readonly offset: bigint
  readonly queues: number
  readonly queueSize: number
}

const U64_BYTES = 8
const STATE_BYTES = 8
const ADDRESS_BYTES = 40
const REGION_BYTES = 32
const TABLE_HEADER_BYTES = 8
const SINGLE_REGION_BYTES = 8 + REGION_BYTES
const CONFIG_HEADER_BYTES = 12
const INFLIGHT_BYTES = 20
/** The structure of C that QEMU sends ends where its alignment does. */
const INFLIGHT_PADDED_BYTES = 24

export function decodeEmpty(bytes: Uint8Array): true | undefined {
  return bytes.length === 0 ? true : undefined
}

export function decodeU64(bytes: Uint8Array): bigint | undefined {
  return bytes.length === U64_BYTES ? viewOf(bytes).getBigUint64(0, LITTLE) : undefined
}

export function encodeU64(value: bigint): Uint8Array<ArrayBuffer> {
  return written(U64_BYTES, (view) => view.setBigUint64(0, value, LITTLE))
}

export function decodeVringState(bytes: Uint8Array): VringState | undefined {
  if (bytes.length !== STATE_BYTES) return undefined
  const view = viewOf(bytes)
  return { index: view.getUint32(0, LITTLE), num: view.getUint32(4, LITTLE) }
}

export function encodeVringState({ index, num }: VringState): Uint8Array<ArrayBuffer> {
  return written(STATE_BYTES, (view) => {
    view.setUint32(0, index, LITTLE)
    view.setUint32(4, num, LITTLE)
  })
}

export function decodeVringAddress(bytes: Uint8Array): VringAddress | undefined {
  if (bytes.length !== ADDRESS_BYTES) return undefined
  const view = viewOf(bytes)
  return {
    index: view.getUint32(0, LITTLE),
    flags: view.getUint32(4, LITTLE),
    descriptor: view.getBigUint64(8, LITTLE),
    used: view.getBigUint64(16, LITTLE),
    available: view.getBigUint64(24, LITTLE),
    log: view.getBigUint64(32, LITTLE),
  }
}

export function encodeVringAddress(address: VringAddress): Uint8Array<ArrayBuffer> {
  return written(ADDRESS_BYTES, (view) => {
    view.setUint32(0, address.index, LITTLE)
    view.setUint32(4, address.flags, LITTLE)
    view.setBigUint64(8, address.descriptor, LITTLE)
    view.setBigUint64(16, address.used, LITTLE)
    view.setBigUint64(24, address.available, LITTLE)
    view.setBigUint64(32, address.log, LITTLE)
  })
}

export function decodeVringFile(bytes: Uint8Array): VringFile | undefined {
  const word = decodeU64(bytes)
  if (word === undefined || word > BigInt(VHOST_USER_VRING_INDEX_MASK | VHOST_USER_VRING_NOFD_FLAG)) return undefined
  const low = Number(word)
  return { index: low & VHOST_USER_VRING_INDEX_MASK, hasDescriptor: (low & VHOST_USER_VRING_NOFD_FLAG) === 0 }
}

export function encodeVringFile({ index, hasDescriptor }: VringFile): Uint8Array<ArrayBuffer> {
  return encodeU64(BigInt(index | (hasDescriptor ? 0 : VHOST_USER_VRING_NOFD_FLAG)))
}

function regionAt(view: DataView, at: number): MemoryRegion {
  return {
    guestAddress: view.getBigUint64(at, LITTLE),
    size: view.getBigUint64(at + 8, LITTLE),
    userAddress: view.getBigUint64(at + 16, LITTLE),
    offset: view.getBigUint64(at + 24, LITTLE),
  }
}

function setRegion(view: DataView, at: number, region: MemoryRegion): void {
  view.setBigUint64(at, region.guestAddress, LITTLE)
  view.setBigUint64(at + 8, region.size, LITTLE)
  view.setBigUint64(at + 16, region.userAddress, LITTLE)
  view.setBigUint64(at + 24, region.offset, LITTLE)
}

export function decodeMemoryTable(bytes: Uint8Array): MemoryRegion[] | undefined {
  if (bytes.length < TABLE_HEADER_BYTES) return undefined
  const view = viewOf(bytes)
  const count = view.getUint32(0, LITTLE)
  if (bytes.length !== TABLE_HEADER_BYTES + count * REGION_BYTES) return undefined
  return Array.from({ length: count }, (_, index) => regionAt(view, TABLE_HEADER_BYTES + index * REGION_BYTES))
}

export function encodeMemoryTable(regions: readonly MemoryRegion[]): Uint8Array<ArrayBuffer> {
  return written(TABLE_HEADER_BYTES + regions.length * REGION_BYTES, (view) => {
    view.setUint32(0, regions.length, LITTLE)
    for (const [index, region] of regions.entries()) setRegion(view, TABLE_HEADER_BYTES + index * REGION_BYTES, region)
  })
}

export function decodeSingleRegion(bytes: Uint8Array): MemoryRegion | undefined {
  return bytes.length === SINGLE_REGION_BYTES ? regionAt(viewOf(bytes), 8) : undefined
}

export function encodeSingleRegion(region: MemoryRegion): Uint8Array<ArrayBuffer> {
  return written(SINGLE_REGION_BYTES, (view) => setRegion(view, 8, region))
}

/** Where in the space an offset is: cloud-hypervisor before 2026 reads from 0x100 on, and writes from 0 on. */
export function configPlace(offset: number): number {
  return offset < VHOST_USER_CONFIG_OFFSET ? offset : offset - VHOST_USER_CONFIG_OFFSET
}

/** A question may leave the bytes out that the answer will hold. */
export function decodeConfigAccess(bytes: Uint8Array): ConfigAccess | undefined {
  if (bytes.length < CONFIG_HEADER_BYTES) return undefined
  const view = viewOf(bytes)
  const [offset, size, flags] = [view.getUint32(0, LITTLE), view.getUint32(4, LITTLE), view.getUint32(8, LITTLE)]
  const data = bytes.slice(CONFIG_HEADER_BYTES)
  const fits = size <= VHOST_USER_CONFIG_BYTES_MAX && configPlace(offset) <= VHOST_USER_CONFIG_BYTES_MAX - size
  if (!fits || (data.length !== size && data.length !== 0)) return undefined
  return { offset, size, flags, data }
}

export function encodeConfigAccess({ offset, size, flags, data }: ConfigAccess): Uint8Array<ArrayBuffer> {
  const bytes = written(CONFIG_HEADER_BYTES + data.length, (view) => {
    view.setUint32(0, offset, LITTLE)
    view.setUint32(4, size, LITTLE)
    view.setUint32(8, flags, LITTLE)
  })
  bytes.set(data, CONFIG_HEADER_BYTES)
  return bytes
}

export function decodeInflightArea(bytes: Uint8Array): InflightArea | undefined {
  if (bytes.length !== INFLIGHT_BYTES && bytes.length !== INFLIGHT_PADDED_BYTES) return undefined
  const view = viewOf(bytes)
  return {
    size: view.getBigUint64(0, LITTLE),
    offset: view.getBigUint64(8, LITTLE),
    queues: view.getUint16(16, LITTLE),
    queueSize: view.getUint16(18, LITTLE),
  }
}

/** `length`: as many bytes as the question had, since a front-end expects them back. */
export function encodeInflightArea(area: InflightArea, length = INFLIGHT_PADDED_BYTES): Uint8Array<ArrayBuffer> {
  const { size, offset, queues, queueSize } = area
  return written(length, (view) => {
    view.setBigUint64(0, size, LITTLE)
    view.setBigUint64(8, offset, LITTLE)
    view.setUint16(16, queues, LITTLE)
    view.setUint16(18, queueSize, LITTLE)
  })
}
