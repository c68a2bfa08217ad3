// The block device of virtio 1.2 ("Block Device"): its feature bits, requests and statuses under the spec's names, and its
// configuration space as bytes.
import { LITTLE, written } from './bytes.js'
import { VHOST_USER_CONFIG_BYTES_MAX } from './constants.js'

// Feature bits, as the numbers of their bits.
export const VIRTIO_BLK_F_SIZE_MAX = 1
export const VIRTIO_BLK_F_SEG_MAX = 2
export const VIRTIO_BLK_F_GEOMETRY = 4
export const VIRTIO_BLK_F_RO = 5
export const VIRTIO_BLK_F_BLK_SIZE = 6
export const VIRTIO_BLK_F_FLUSH = 9
export const VIRTIO_BLK_F_TOPOLOGY = 10
export const VIRTIO_BLK_F_CONFIG_WCE = 11
export const VIRTIO_BLK_F_MQ = 12
export const VIRTIO_BLK_F_DISCARD = 13
export const VIRTIO_BLK_F_WRITE_ZEROES = 14

// Request types.
export const VIRTIO_BLK_T_IN = 0
export const VIRTIO_BLK_T_OUT = 1
export const VIRTIO_BLK_T_FLUSH = 4
export const VIRTIO_BLK_T_GET_ID = 8
export const VIRTIO_BLK_T_DISCARD = 11
export const VIRTIO_BLK_T_WRITE_ZEROES = 13

// Statuses.
export const VIRTIO_BLK_S_OK = 0
export const VIRTIO_BLK_S_IOERR = 1
export const VIRTIO_BLK_S_UNSUPP = 2

export const VIRTIO_BLK_ID_BYTES = 20
/** What offsets and lengths are counted in, whatever the block size is. */
export const VIRTIO_BLK_SECTOR_BYTES = 512

/** Of the flags of struct virtio_blk_discard_write_zeroes. */
export const VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP = 1
export const DISCARD_SEGMENT_BYTES = 16

/** struct virtio_blk_discard_write_zeroes. */
export interface DiscardSegment {
  /** Beyond what a number holds exactly it is Infinity, which is past every end. */
  readonly sector: number
  readonly sectors: number
  readonly flags: number
}

/** The segments of a DISCARD or WRITE_ZEROES; undefined where the bytes are no whole number of them. */
export function decodeDiscardSegments(view: DataView, at: number, length: number): DiscardSegment[] | undefined {
  if (length === 0 || length % DISCARD_SEGMENT_BYTES !== 0) return undefined
  return Array.from({ length: length / DISCARD_SEGMENT_BYTES }, (_, index) => {
    const start = at + index * DISCARD_SEGMENT_BYTES
    const sector = Number(view.getBigUint64(start, LITTLE))
    return {
      sector: Number.isSafeInteger(sector * VIRTIO_BLK_SECTOR_BYTES) ? sector : Number.POSITIVE_INFINITY,
      sectors: view.getUint32(start + 8, LITTLE),
      flags: view.getUint32(start + 12, LITTLE),
    }
  })
}

export function encodeDiscardSegments(segments: readonly DiscardSegment[]): Uint8Array<ArrayBuffer> {
  return written(segments.length * DISCARD_SEGMENT_BYTES, (view) => {
    segments.forEach(({ sector, sectors, flags }, index) => {
      const at = index * DISCARD_SEGMENT_BYTES
      view.setBigUint64(at, BigInt(sector), LITTLE)
      view.setUint32(at + 8, sectors, LITTLE)
      view.setUint32(at + 12, flags, LITTLE)
    })
  })
}

/** What struct virtio_blk_config tells of a device. */
export interface BlockConfig {
  /** Bytes. */
  readonly size: number
  /** Bytes of one segment, and segments of one request, at most. */
  readonly segmentBytesMax: number
  readonly segmentsMax: number
  /** Bytes, powers of two: of a logical block, of a physical one. */
  readonly blockSize: number
  readonly physicalBlockSize: number
  /** Bytes: what requests are best made of. */
  readonly optimalIoBytes: number
  /** The device has a write cache, which FLUSH empties. */
  readonly writeback: boolean
  readonly queues: number
  /** Of a DISCARD and of a WRITE_ZEROES. */
  readonly discardSectorsMax: number
  readonly discardSegmentsMax: number
  /** Sectors. */
  readonly discardAlignment: number
}

/** Where `writeback` lies: the one byte that a driver may write. */
export const VIRTIO_BLK_CONFIG_WRITEBACK_AT = 32

/** The configuration space whole; what the structure does not know reads as zeroes. */
export function encodeBlockConfig(config: BlockConfig): Uint8Array<ArrayBuffer> {
  return written(VHOST_USER_CONFIG_BYTES_MAX, (view) => {
    view.setBigUint64(0, BigInt(Math.floor(config.size / VIRTIO_BLK_SECTOR_BYTES)), LITTLE)
    view.setUint32(8, config.segmentBytesMax, LITTLE)
    view.setUint32(12, config.segmentsMax, LITTLE)
    view.setUint32(20, config.blockSize, LITTLE)
    view.setUint8(24, Math.log2(config.physicalBlockSize / config.blockSize))
    view.setUint16(26, config.physicalBlockSize / config.blockSize, LITTLE)
    view.setUint32(28, config.optimalIoBytes / config.blockSize, LITTLE)
    view.setUint8(VIRTIO_BLK_CONFIG_WRITEBACK_AT, config.writeback ? 1 : 0)
    view.setUint16(34, config.queues, LITTLE)
    view.setUint32(36, config.discardSectorsMax, LITTLE)
    view.setUint32(40, config.discardSegmentsMax, LITTLE)
    view.setUint32(44, config.discardAlignment, LITTLE)
    view.setUint32(48, config.discardSectorsMax, LITTLE)
    view.setUint32(52, config.discardSegmentsMax, LITTLE)
    view.setUint8(56, 1)
  })
}
