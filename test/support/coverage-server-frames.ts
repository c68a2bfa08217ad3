// What a stream of requests holds, by a reading of its own that shares nothing with the server's: the frames that came
// whole, and how the stream ends. Cookies are numbered anew, so that every answer can be told from every other.
import { viewOf } from 'nbd-protocol'
import { raw, type Style, zeroes } from './raw-bytes.js'

/** The longest payload that is kept, and the longest frame that is thrown away with an error; the server's limits. */
const PAYLOAD_BYTES_MAX = 32 << 20
const OVERSIZE_BYTES_MAX = 128 << 20
/** Frames a little above the limit are filled up with zeroes, so that short inputs reach what comes after them. */
const STUFFED_BYTES_MAX = PAYLOAD_BYTES_MAX + (64 << 10)
const DISC = 2
const PAYLOAD_LEN = 1 << 5

export interface Frame {
  readonly type: number
  readonly cookie: bigint
  readonly length: number
}

export interface Frames {
  readonly bytes: Uint8Array
  /** Requests that came whole, each to be answered once. */
  readonly requests: readonly Frame[]
  /** `lost`: the stream cannot be followed; `open`: the last frame is not whole, or more may come. */
  readonly end: 'lost' | 'disc' | 'open'
  /** True when the stream ends between two frames. */
  readonly between: boolean
  /** The place behind which the server reads no more: a client that went on writing would only break its own socket. */
  readonly heard: number
}

/** `stuffed`: the first frame that is a little above the limit is filled up with zeroes. */
export function framesOf(input: Uint8Array, style: Style, stuffed: boolean): Frames {
  const extended = style === 'extended'
  const [magic, headerBytes] = extended ? [0x21e41c71, 32] : [0x25609513, 28]
  const requests: Frame[] = []
  let bytes: Uint8Array = raw(input)
  let stuff = stuffed
  for (let at = 0; ; ) {
    const view = viewOf(bytes)
    if (bytes.length - at < headerBytes)
      return { bytes, requests, end: 'open', between: at === bytes.length, heard: bytes.length }
    if (view.getUint32(at) !== magic) return { bytes, requests, end: 'lost', between: false, heard: at + headerBytes }
    const type = view.getUint16(at + 6)
    const length = extended ? Number(view.getBigUint64(at + 24)) : view.getUint32(at + 24)
    const brings = type === 1 || (extended && (view.getUint16(at + 4) & PAYLOAD_LEN) !== 0)
    const payloadLength = brings ? length : 0
    const cookie = BigInt(requests.length + 1)
    view.setBigUint64(at + 8, cookie)
    const start = at + headerBytes
    if (stuff && payloadLength > PAYLOAD_BYTES_MAX && payloadLength <= STUFFED_BYTES_MAX) {
      stuff = false
      bytes = raw(bytes.subarray(0, start), zeroes(payloadLength), bytes.subarray(start))
    }
    if (payloadLength > bytes.length - start) {
      const end = payloadLength > OVERSIZE_BYTES_MAX ? 'lost' : 'open'
      return { bytes, requests, end, between: false, heard: end === 'lost' ? start : bytes.length }
    }
    if (type === DISC) return { bytes, requests, end: 'disc', between: false, heard: start + payloadLength }
    requests.push({ type, cookie, length })
    at = start + payloadLength
  }
}
