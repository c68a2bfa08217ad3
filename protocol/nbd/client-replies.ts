// What a client makes of replies: one pending request, and the chunks that settle it.
import { decodeForDisplay, getUint64, viewOf } from './bytes.js'
import {
  errorName,
  NBD_EIO,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
  NBD_REPLY_TYPE_ERROR_OFFSET,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
} from './constants.js'
import { ProtocolError } from './protocol-error.js'
import { OFFSET_BYTES, type ReplyHeader } from './reply.js'

/** Bytes without which a chunk's payload cannot be understood. */
const SHORTEST_PAYLOADS: Readonly<Record<number, number>> = {
  [NBD_REPLY_TYPE_OFFSET_DATA]: 9,
  [NBD_REPLY_TYPE_OFFSET_HOLE]: 12,
  [NBD_REPLY_TYPE_BLOCK_STATUS]: 12,
  [NBD_REPLY_TYPE_BLOCK_STATUS_EXT]: 24,
}

/** A request that the server answered with an error value of the spec. */
export class RequestError extends Error {
  /** One of the NBD_E… values. */
  readonly error: number
  /** The first byte of the export that failed, where the server named it. */
  readonly offset: number | undefined

  constructor(command: string, error: number, text: string, offset: number | undefined) {
    super(`${command}: ${errorName(error)}${text === '' ? '' : ` (${text})`}`)
    this.name = 'RequestError'
    this.error = error
    this.offset = offset
  }
}

/** One descriptor of a block status reply. */
export interface BlockDescriptor {
  /** Bytes. */
  readonly length: number
  readonly flags: number
}

/** What a request came to: READ's bytes, and BLOCK_STATUS's descriptors by metadata context id. */
export interface Answer {
  readonly data: Uint8Array
  readonly status: ReadonlyMap<number, readonly BlockDescriptor[]>
}

export interface Pending {
  readonly command: string
  readonly type: number
  readonly offset: number
  readonly data: Uint8Array
  /** What chunks have brought so far: pairs (start, end) within `data`. */
  readonly covered: [number, number][]
  readonly status: Map<number, BlockDescriptor[]>
  failure: RequestError | undefined
  settle(answer: Answer): void
  fail(error: Error): void
}

/** Adds what one chunk brings to its request. @throws ProtocolError when the chunk lies */
export function takeChunk(header: ReplyHeader, payload: Uint8Array, pending: Pending): void {
  const view = viewOf(payload)
  if (header.type >= 0x8000) pending.failure ??= chunkError(header.type, payload, pending.command)
  else if (payload.length < (SHORTEST_PAYLOADS[header.type] ?? 0)) {
    throw new ProtocolError('bad-reply', `a chunk of type ${header.type} has only ${payload.length} bytes`)
  } else if (header.type === NBD_REPLY_TYPE_OFFSET_DATA) {
    const data = payload.subarray(OFFSET_BYTES)
    pending.data.set(data, placeOf(pending, getUint64(view, 0), data.length))
  } else if (header.type === NBD_REPLY_TYPE_OFFSET_HOLE) {
    const length = view.getUint32(8)
    const at = placeOf(pending, getUint64(view, 0), length)
    pending.data.fill(0, at, at + length)
  } else if (header.type === NBD_REPLY_TYPE_BLOCK_STATUS) {
    pending.status.set(view.getUint32(0), decodeDescriptors(view, 4, 8))
  } else if (header.type === NBD_REPLY_TYPE_BLOCK_STATUS_EXT) {
    pending.status.set(view.getUint32(0), decodeDescriptors(view, 8, 16))
  } else if (header.type !== NBD_REPLY_TYPE_NONE) {
    throw new ProtocolError('bad-reply', `a chunk of the unknown type ${header.type}`)
  }
}

/** Where a chunk's data belongs in the buffer of its READ, which it is the first to fill. */
function placeOf(pending: Pending, offset: number, length: number): number {
  const at = offset - pending.offset
  const overlaps = pending.covered.some(([start, end]) => at < end && start < at + length)
  if (at >= 0 && at + length <= pending.data.length && !overlaps) {
    pending.covered.push([at, at + length])
    return at
  }
  throw new ProtocolError('bad-reply', `a chunk at ${offset} lies outside of the read at ${pending.offset}`)
}

/** A READ that ends with success has brought every byte, or the server invents some. @throws ProtocolError */
export function checkCovered(pending: Pending): void {
  const bytes = pending.covered.reduce((sum, [start, end]) => sum + end - start, 0)
  if (bytes === pending.data.length) return
  throw new ProtocolError('bad-reply', `a read of ${pending.data.length} bytes ended with ${bytes} of them`)
}

function decodeDescriptors(view: DataView, start: number, bytes: number): BlockDescriptor[] {
  const descriptors: BlockDescriptor[] = []
  for (let at = start; at + bytes <= view.byteLength; at += bytes) {
    const wide = bytes === 16
    descriptors.push({
      length: wide ? getUint64(view, at) : view.getUint32(at),
      flags: wide ? getUint64(view, at + 8) : view.getUint32(at + 4),
    })
  }
  return descriptors
}

function chunkError(type: number, payload: Uint8Array, command: string): RequestError {
  if (payload.length < 6) return new RequestError(command, NBD_EIO, 'a malformed error chunk', undefined)
  const view = viewOf(payload)
  const end = Math.min(6 + view.getUint16(4), payload.length)
  const located = type === NBD_REPLY_TYPE_ERROR_OFFSET && payload.length >= end + OFFSET_BYTES
  const offset = located ? getUint64(view, end) : undefined
  return new RequestError(command, view.getUint32(0), decodeForDisplay(payload.subarray(6, end)), offset)
}
