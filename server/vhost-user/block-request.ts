// An entry of a ring's table as a request, and what may be asked. Law: refuse here, once; what comes after trusts.
import { NBD_CMD_FLUSH, NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES } from 'nbd-protocol'
import {
  type DiscardSegment,
  VIRTIO_BLK_SECTOR_BYTES,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
} from 'vhost-user-protocol'
import {
  DONE,
  EINVAL,
  ENOSPC,
  EPERM,
  REQUEST_ID,
  REQUEST_IN_LENGTH,
  REQUEST_OUT_LENGTH,
  REQUEST_SECTOR,
  REQUEST_START,
  REQUEST_TYPE,
  REQUEST_WINDOW,
  REQUEST_WORDS,
} from '../../backends/index.js'
import { DISCARD_SECTORS_MAX, REQUEST_BYTES_MAX } from './device.js'

export interface BlockRequest {
  readonly id: number
  readonly type: number
  /** Bytes; above 2^53 it is no exact number, and past every end. */
  readonly offset: number
  /** Bytes that the guest hands over, and wants. */
  readonly outLength: number
  readonly inLength: number
  /** Where the data lies in one piece (VhostMemory.window), or -1. */
  readonly window: number
  readonly start: number
}

export function requestAt(table: Float64Array, row: number): BlockRequest {
  const at = row * REQUEST_WORDS
  return {
    id: table[at + REQUEST_ID] ?? 0,
    type: table[at + REQUEST_TYPE] ?? 0,
    offset: (table[at + REQUEST_SECTOR] ?? 0) * VIRTIO_BLK_SECTOR_BYTES,
    outLength: table[at + REQUEST_OUT_LENGTH] ?? 0,
    inLength: table[at + REQUEST_IN_LENGTH] ?? 0,
    window: table[at + REQUEST_WINDOW] ?? -1,
    start: table[at + REQUEST_START] ?? 0,
  }
}

const COMMANDS: ReadonlyMap<number, number> = new Map([
  [VIRTIO_BLK_T_IN, NBD_CMD_READ],
  [VIRTIO_BLK_T_OUT, NBD_CMD_WRITE],
  [VIRTIO_BLK_T_FLUSH, NBD_CMD_FLUSH],
  [VIRTIO_BLK_T_DISCARD, NBD_CMD_TRIM],
  [VIRTIO_BLK_T_WRITE_ZEROES, NBD_CMD_WRITE_ZEROES],
])

/** The command that it is counted and told as; undefined for those that never reach storage. */
export function commandOf(type: number): number | undefined {
  return COMMANDS.get(type)
}

/** What a range may be asked of. */
export interface Bounds {
  readonly size: number
  readonly readOnly: boolean
}

/** DONE, or the errno with which a READ or WRITE is refused. */
export function refusalOfData(command: number, offset: number, length: number, { size, readOnly }: Bounds): number {
  if (command === NBD_CMD_WRITE && readOnly) return EPERM
  if (length % VIRTIO_BLK_SECTOR_BYTES !== 0 || length > REQUEST_BYTES_MAX) return EINVAL
  // Neither is added to the other: an offset may exceed what a number holds exactly.
  if (offset > size || length > size - offset) return command === NBD_CMD_WRITE ? ENOSPC : EINVAL
  return DONE
}

/** The same for one segment of a DISCARD or WRITE_ZEROES. */
export function refusalOfSegment({ sector, sectors }: DiscardSegment, { size, readOnly }: Bounds): number {
  const [offset, length] = [sector * VIRTIO_BLK_SECTOR_BYTES, sectors * VIRTIO_BLK_SECTOR_BYTES]
  if (readOnly) return EPERM
  if (sectors > DISCARD_SECTORS_MAX || offset > size || length > size - offset) return EINVAL
  return DONE
}
