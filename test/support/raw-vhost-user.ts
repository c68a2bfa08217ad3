// vhost-user by hand: messages as the specification draws them. Law: nothing of vhost-user-protocol is used here, so that
// an encoder and a decoder of ours that share a mistake are still found out.
import { type Raw, raw } from './raw-bytes.js'

function little(value: number | bigint, bytes: number): string {
  const digits = BigInt.asUintN(8 * bytes, BigInt(value))
    .toString(16)
    .padStart(2 * bytes, '0')
  return (digits.match(/../g) ?? []).reverse().join('')
}

export const le16 = (value: number): string => little(value, 2)
export const le32 = (value: number): string => little(value, 4)
export const le64 = (value: number | bigint): string => little(value, 8)

/** Request, flags with version 1, size, payload. */
export function message(request: number, flags: number, ...payload: readonly Raw[]): Uint8Array {
  const bytes = raw(...payload)
  return raw(le32(request), le32(flags), le32(bytes.length), bytes)
}

export const PLAIN = 1
export const REPLY = 5
export const NEED_REPLY = 9

export const region = (guest: bigint, size: bigint, user: bigint, offset: bigint): Uint8Array =>
  raw(le64(guest), le64(size), le64(user), le64(offset))

export const REGION = region(0n, 0x1000_0000n, 0x7f00_0000_0000n, 0n)
export const table = (...regions: readonly Uint8Array[]): Uint8Array => raw(le32(regions.length), le32(0), ...regions)

export const state = (index: number, num: number): Uint8Array => raw(le32(index), le32(num))
export const addresses = (index: number): Uint8Array =>
  raw(le32(index), le32(0), le64(0x7f00_0000_1000n), le64(0x7f00_0000_3000n), le64(0x7f00_0000_2000n), le64(0))

/** Features that a modern driver agrees to: VERSION_1, EVENT_IDX, INDIRECT_DESC, FLUSH and the protocol features. */
export const FEATURES = (1n << 32n) | (1n << 30n) | (1n << 29n) | (1n << 28n) | (1n << 9n)
/** MQ, REPLY_ACK, BACKEND_REQ, CONFIG, INFLIGHT_SHMFD, RESET_DEVICE, CONFIGURE_MEM_SLOTS, STATUS. */
export const PROTOCOL = 0b1_1011_0010_0010_1001n
