// NBD by hand: bytes as the specification draws them. Law: nothing of nbd-protocol is used here, so that an encoder
// and a decoder of ours that share a mistake are still found out.

/** Hexadecimal digits (blanks are free) or bytes. */
export type Raw = string | Uint8Array

function ofHex(digits: string): Uint8Array {
  const bare = digits.replaceAll(/\s/g, '')
  if (!/^(?:[0-9a-f]{2})*$/.test(bare)) throw new TypeError(`'${digits}' is no row of hexadecimal bytes`)
  return Uint8Array.from(bare.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))
}

/** All parts, one behind the other. */
export function raw(...parts: readonly Raw[]): Uint8Array {
  const pieces = parts.map((part) => (typeof part === 'string' ? ofHex(part) : part))
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0))
  let at = 0
  for (const piece of pieces) {
    whole.set(piece, at)
    at += piece.length
  }
  return whole
}

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')
}

function digits(value: number | bigint, bytes: number): string {
  return BigInt.asUintN(8 * bytes, BigInt(value))
    .toString(16)
    .padStart(2 * bytes, '0')
}

export const be16 = (value: number): string => digits(value, 2)
export const be32 = (value: number): string => digits(value, 4)
export const be64 = (value: number | bigint): string => digits(value, 8)
export const text = (words: string): Uint8Array => new TextEncoder().encode(words)
export const zeroes = (length: number): Uint8Array => new Uint8Array(length)
export const filled = (length: number, byte: number): Uint8Array => new Uint8Array(length).fill(byte)

/** 'NBDMAGIC' 'IHAVEOPT', fixed newstyle, no zeroes. */
export const GREETING = '4e42444d41474943 49484156454f5054 0003'
/** Client flags: fixed newstyle and no zeroes, or fixed newstyle alone. */
export const FLAGS = '00000003'
export const FLAGS_WITH_ZEROES = '00000001'

/** 'IHAVEOPT', the option, its length and its data. */
export function option(type: number, ...data: readonly Raw[]): Uint8Array {
  const payload = raw(...data)
  return raw('49484156454f5054', be32(type), be32(payload.length), payload)
}

export function optionReply(type: number, reply: number, ...data: readonly Raw[]): Uint8Array {
  const payload = raw(...data)
  return raw('0003e889045565a9', be32(type), be32(reply), be32(payload.length), payload)
}

const counted = (words: string): Uint8Array => raw(be32(text(words).length), text(words))

/** The data of INFO and GO. */
export function infoData(name: string, ...requests: readonly number[]): Uint8Array {
  return raw(counted(name), be16(requests.length), ...requests.map(be16))
}

/** The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function contextData(name: string, ...queries: readonly string[]): Uint8Array {
  return raw(counted(name), be32(queries.length), ...queries.map(counted))
}

export interface RawRequest {
  readonly type: number
  readonly flags?: number
  readonly cookie: bigint
  readonly offset?: number | bigint
  readonly length?: number | bigint
  readonly payload?: Uint8Array
}

export type Style = 'simple' | 'structured' | 'extended'
export const STYLES: readonly Style[] = ['simple', 'structured', 'extended']

/** A request of either kind; a payload alone sets neither length nor flag. */
export function request(
  style: Style,
  { type, flags = 0, cookie, offset = 0, length = 0, payload }: RawRequest,
): Uint8Array {
  const extended = style === 'extended'
  return raw(
    extended ? '21e41c71' : '25609513',
    be16(flags),
    be16(type),
    be64(cookie),
    be64(offset),
    extended ? be64(length) : be32(Number(BigInt.asUintN(32, BigInt(length)))),
    payload ?? '',
  )
}

/** A sound WRITE of these bytes. */
export function writeRequest(style: Style, cookie: bigint, offset: number, payload: Uint8Array, flags = 0): Uint8Array {
  const payloadLength = style === 'extended' ? 1 << 5 : 0
  return request(style, { type: 1, flags: flags | payloadLength, cookie, offset, length: payload.length, payload })
}

export function simpleReply(cookie: number, error: number, ...data: readonly Raw[]): Uint8Array {
  return raw('67446698', be32(error), be64(cookie), ...data)
}

/** A structured chunk, or an extended one where `offset` is given. */
export function chunk(
  head: { cookie: number; flags: number; type: number; offset?: number },
  ...data: readonly Raw[]
): Uint8Array {
  const payload = raw(...data)
  const start = raw(be16(head.flags), be16(head.type), be64(head.cookie))
  if (head.offset === undefined) return raw('668e33ef', start, be32(payload.length), payload)
  return raw('6e8a278c', start, be64(head.offset), be64(payload.length), payload)
}
