// A READ that waits for storage, and the reply that comes of it, in buffers that nobody else has. Law: without a word of
// success from storage there is no reply.
import { NBD_CMD_FLAG_DF, type ReplyStyle, type Request, viewOf } from 'nbd-protocol'
import { type Backend, DONE, EIO, type Outcome } from '../../backends/index.js'
import type { Export } from '../exports/export.js'
import { giveBuffer, headAt, takeBuffer } from './buffer-pool.js'
import { encodeReadHeader, encodeReadRuns, readHeaderBytes } from './replies.js'

/** The parts of a whole reply; `pooled` is the pool's buffer behind them, given back when nobody needs it. */
export interface ReadReply {
  readonly parts: readonly Uint8Array[]
  readonly pooled: Uint8Array | undefined
}

/** Shorter replies have buffers that are left to the garbage collector. */
const POOLED_MIN = 64 << 10

/** Shorter reads are not worth asking for holes. */
const HOLE_BYTES_MIN = 512

/**
 * Bytes that were read before a failure may have been lost by then, and written again since: they are read anew, as long
 * as they are `wanted`. What became suspect while the request waited for an operator is not read at all, for the same reason.
 */
export async function readUnharmed(
  served: Export,
  style: ReplyStyle,
  request: Request,
  wanted: () => boolean,
): Promise<ReadReply | Outcome> {
  const { durability } = served
  for (;;) {
    if (served.firstSuspect(request.offset, request.length) !== undefined) return EIO
    const { epoch } = durability
    const reply = await served.gate.pass(() => readReply(served.backend, style, request), wanted)
    // Write-back may have failed, and these bytes have become suspect, before or while they were read.
    durability.readBack(request.offset, request.length)
    const isHarmed = served.firstSuspect(request.offset, request.length) !== undefined
    if (typeof reply === 'number') {
      // Data that are missing may be data that somebody truncated away: then all of them are suspect from here on.
      served.inspect()
      return isHarmed ? EIO : reply
    }
    if (!isHarmed && (durability.epoch === epoch || !wanted())) return reply
    if (reply.pooled !== undefined) giveBuffer(reply.pooled)
  }
}

/** The whole reply, or the outcome of a failure. */
export function readReply(backend: Backend, style: ReplyStyle, request: Request): Promise<ReadReply | Outcome> {
  const { flags, length } = request
  const tellsHoles = style !== 'simple' && (flags & NBD_CMD_FLAG_DF) === 0 && length >= HOLE_BYTES_MIN
  return tellsHoles ? readSparse(backend, style, request) : readPlain(backend, style, request)
}

async function readPlain(backend: Backend, style: ReplyStyle, request: Request): Promise<ReadReply | Outcome> {
  const start = readHeaderBytes(style)
  const [at, bytes] = [headAt(start), start + request.length]
  const pooled = request.length < POOLED_MIN ? undefined : takeBuffer(at + bytes)
  const reply = pooled?.subarray(at, at + bytes) ?? Buffer.allocUnsafeSlow(bytes)
  const outcome = await backend.read(reply, start, request.length, request.offset)
  if (outcome === DONE) {
    encodeReadHeader(viewOf(reply), 0, style, request)
    return { parts: [reply], pooled }
  }
  if (pooled !== undefined) giveBuffer(pooled)
  return outcome
}

async function readSparse(backend: Backend, style: ReplyStyle, request: Request): Promise<ReadReply | Outcome> {
  const headroom = readHeaderBytes(style)
  const { length, offset } = request
  let pooled: Uint8Array | undefined
  const take = (bytes: number) => {
    pooled = takeBuffer(bytes)
    return pooled
  }
  const read = await backend.readSparse(headroom, length, offset, length < POOLED_MIN ? undefined : take)
  if (typeof read === 'number') {
    if (pooled !== undefined) giveBuffer(pooled)
    return read
  }
  const [only] = read.runs
  if (read.runs.length > 1 || only === undefined || only.zero) {
    return { parts: encodeReadRuns(style, request, read), pooled }
  }
  const at = read.start - headroom
  encodeReadHeader(viewOf(read.buffer), at, style, request)
  return { parts: [read.buffer.subarray(at, read.start + length)], pooled }
}
