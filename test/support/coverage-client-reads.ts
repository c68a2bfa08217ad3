// Which READs a server has answered whole, by a second reading of its bytes that shares nothing with the client's.
// Law: data that no chunk brought is no data, and a client that hands it out as zeroes has invented it.
import { viewOf } from 'nbd-protocol'

/** The reads that the fuzzed client sends first, with the cookies 1, 2, 3. */
export const READS = [
  { offset: 0, length: 16 },
  { offset: 65536, length: 40 },
  { offset: 2 ** 40, length: 3 },
] as const

const DATA = 1
const HOLE = 2
const DONE = 1

interface Chunk {
  readonly cookie: number
  readonly simple: boolean
  readonly error: number
  readonly flags: number
  readonly type: number
  readonly payload: Uint8Array
  readonly end: number
}

const HEADER_BYTES: Readonly<Record<number, number>> = { 1732535960: 16, 1720595439: 20, 1854547852: 32 }

/** The message at `at`, undefined where it is not there whole. */
function chunkAt(bytes: Uint8Array, at: number): Chunk | undefined {
  const view = viewOf(bytes)
  if (bytes.length - at < 16) return undefined
  const headerBytes = HEADER_BYTES[view.getUint32(at)]
  if (headerBytes === undefined || bytes.length - at < headerBytes || view.getUint32(at + 8) !== 0) return undefined
  const simple = headerBytes === 16
  const [cookie, error] = [view.getUint32(at + 12), simple ? view.getUint32(at + 4) : 0]
  const readLength = error === 0 ? (READS[cookie - 1]?.length ?? 0) : 0
  const length = simple ? readLength : Number(headerBytes === 32 ? view.getBigUint64(at + 24) : view.getUint32(at + 16))
  const start = at + headerBytes
  if (length > bytes.length - start) return undefined
  const payload = bytes.subarray(start, start + length)
  const [flags, type] = simple ? [DONE, DATA] : [view.getUint16(at + 4), view.getUint16(at + 6)]
  return { cookie, simple, error, flags, type, payload, end: start + length }
}

/** Cookies of the reads that got every one of their bytes. */
export function answeredWhole(bytes: Uint8Array): Set<number> {
  const whole = new Set<number>()
  const missing = new Map(READS.map(({ length }, index) => [index + 1, new Uint8Array(length).fill(1)]))
  for (let at = 0; ; ) {
    const chunk = chunkAt(bytes, at)
    if (chunk === undefined) return whole
    at = chunk.end
    const left = missing.get(chunk.cookie)
    const read = READS[chunk.cookie - 1]
    if (left === undefined || read === undefined) continue
    const view = viewOf(chunk.payload)
    if (chunk.simple) left.fill(0)
    else if (chunk.payload.length >= 8 && (chunk.type === DATA || chunk.type === HOLE)) {
      const start = Number(view.getBigUint64(0)) - read.offset
      const hole = chunk.type === HOLE && chunk.payload.length >= 12 ? view.getUint32(8) : 0
      const length = chunk.type === HOLE ? hole : chunk.payload.length - 8
      if (start >= 0 && start + length <= left.length) left.fill(0, start, start + length)
    }
    if ((chunk.flags & DONE) === 0) continue
    missing.delete(chunk.cookie)
    if (!left.includes(1)) whole.add(chunk.cookie)
  }
}
