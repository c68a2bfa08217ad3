// An export as a virtio block device: what it offers, and its configuration space. Law: a cache that the guest may turn off
// is off as long as anybody could believe it is.
import {
  type BlockConfig,
  bits,
  type Device,
  encodeBlockConfig,
  hasBit,
  PROTOCOL_FEATURES,
  VIRTIO_BLK_CONFIG_WRITEBACK_AT,
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_SIZE_MAX,
  VIRTIO_BLK_F_TOPOLOGY,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_ID_BYTES,
  VIRTIO_BLK_SECTOR_BYTES,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from 'vhost-user-protocol'
import { MEMORY_REGIONS_MAX } from '../../backends/index.js'
import type { Export } from '../exports/export.js'

/** Rings of one session: as many as a kick can name. A monitor wants one for each processor of its guest. */
export const QUEUES_MAX = 256
/** Bytes of a segment and segments of a request, which together are less than REQUEST_BYTES_MAX. */
const SEGMENT_BYTES_MAX = 256 << 10
const SEGMENTS_MAX = 126
/** Bytes of data in one request, as NBD's largest; a guest that keeps to the configuration never gets there. */
export const REQUEST_BYTES_MAX = 32 << 20
/** Of the capacity, at the beginning of the configuration space. */
const CAPACITY_BYTES = 8
/** Of one DISCARD or WRITE_ZEROES. */
export const DISCARD_SEGMENTS_MAX = 16
export const DISCARD_SECTORS_MAX = 2 ** 31 / VIRTIO_BLK_SECTOR_BYTES

const RING_FEATURES = [VIRTIO_F_VERSION_1, VIRTIO_F_INDIRECT_DESC, VIRTIO_F_EVENT_IDX, VIRTIO_F_RING_PACKED]
const BLOCK_FEATURES = [
  VIRTIO_BLK_F_SIZE_MAX,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_TOPOLOGY,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_MQ,
]

/** What is asked of a request, and what it is told. */
export class BlockDevice {
  readonly served: Export
  #features = 0n
  /** What a driver that agreed to CONFIG_WCE has last written. */
  writeback = true
  /** That is its last word, since it was said here or is in the in-flight log. */
  knowsCache = false
  /** The front-end was told in this session whether the cache is on: a driver that starts now hears it from there. */
  hasToldCache = false
  /** Bytes that the front-end was told in this session; undefined when it has not asked. */
  sizeTold: number | undefined

  constructor(served: Export) {
    this.served = served
  }

  agree(features: bigint): void {
    this.#features = features
  }

  has(feature: number): boolean {
    return hasBit(this.#features, feature)
  }

  /**
   * The driver takes each completion for durable: it knows of no FLUSH, or turned the write cache off; or it could turn it
   * off, and nobody can say whether it did before this session.
   */
  get isDurable(): boolean {
    if (!this.has(VIRTIO_BLK_F_FLUSH)) return true
    return this.has(VIRTIO_BLK_F_CONFIG_WCE) && !(this.writeback && this.knowsCache)
  }

  /** Bytes that a request may reach: whole sectors. */
  get size(): number {
    const { size } = this.served
    return size - (size % VIRTIO_BLK_SECTOR_BYTES)
  }

  get readOnly(): boolean {
    return this.served.readOnly
  }

  /** What GET_ID answers: the export's name, as much of it as there is room for. */
  get id(): Uint8Array {
    const id = new Uint8Array(VIRTIO_BLK_ID_BYTES)
    new TextEncoder().encodeInto(this.served.name, id)
    return id
  }

  describe(): Device {
    const { readOnly } = this.served
    const changing = readOnly ? [VIRTIO_BLK_F_RO] : [VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES]
    return {
      features: bits(...RING_FEATURES, ...BLOCK_FEATURES, ...changing),
      protocolFeatures: bits(...PROTOCOL_FEATURES),
      queuesMax: QUEUES_MAX,
      memorySlotsMax: MEMORY_REGIONS_MAX,
      config: (offset, size) => {
        const at = VIRTIO_BLK_CONFIG_WRITEBACK_AT
        if (offset <= at && at < offset + size) this.hasToldCache = true
        if (offset < CAPACITY_BYTES) this.sizeTold = this.size
        return encodeBlockConfig(this.#config()).subarray(offset, offset + size)
      },
    }
  }

  #config(): BlockConfig {
    const { minimumBlockSize, preferredBlockSize } = this.served.backend.can
    const blockSize = Math.max(VIRTIO_BLK_SECTOR_BYTES, minimumBlockSize)
    const physicalBlockSize = Math.max(blockSize, preferredBlockSize)
    return {
      size: this.size,
      segmentBytesMax: SEGMENT_BYTES_MAX,
      segmentsMax: SEGMENTS_MAX,
      blockSize,
      physicalBlockSize,
      optimalIoBytes: physicalBlockSize,
      writeback: this.writeback,
      queues: QUEUES_MAX,
      discardSectorsMax: DISCARD_SECTORS_MAX,
      discardSegmentsMax: DISCARD_SEGMENTS_MAX,
      discardAlignment: physicalBlockSize / VIRTIO_BLK_SECTOR_BYTES,
    }
  }

  /** SET_CONFIG: the write cache is all that may be written. False: it was something else. */
  write(offset: number, data: Uint8Array): boolean {
    const [byte] = data
    if (offset !== VIRTIO_BLK_CONFIG_WRITEBACK_AT || data.length !== 1 || byte === undefined) return false
    this.writeback = byte !== 0
    this.knowsCache = true
    return true
  }
}
