// The stream as whole messages, each with the descriptors that came along. Law: a descriptor belongs to one message, and
// until that was taken, to this stream.
//
// The kernel ends what one recvmsg(2) brings behind the bytes that descriptors were sent with, so those of a piece belong
// to the message that holds the piece's last byte:
//
//     piece   |NUM |BASE |KICK |  + 1 descriptor        it is KICK's
import { LITTLE, written } from './bytes.js'
import {
  VHOST_USER_NEED_REPLY_FLAG,
  VHOST_USER_REPLY_FLAG,
  VHOST_USER_VERSION,
  VHOST_USER_VERSION_MASK,
} from './constants.js'
import { ProtocolError } from './protocol-error.js'

export const HEADER_BYTES = 12
/** No message of the spec comes near. */
export const PAYLOAD_BYTES_MAX = 4096
/** What a front-end may say before it is heard. */
export const WAITING_BYTES_MAX = 64 << 10
export const WAITING_DESCRIPTORS_MAX = 1024

/** One message whose payload nobody has looked at. */
export interface Frame {
  readonly request: number
  readonly needsReply: boolean
  readonly isReply: boolean
  readonly payload: Uint8Array
  readonly descriptors: readonly number[]
}

interface Sent {
  /** Of the last byte that they came with, in the stream. */
  readonly position: number
  readonly descriptors: readonly number[]
}

/**
 * What waits lies between `#at` and `#end`, and moves to the start of a larger buffer only where there is no room behind it:
 *
 *     #bytes   |taken   |waiting       |room      |
 *                       #at            #end
 */
export class MessageStream {
  #bytes = new Uint8Array(0)
  #at = 0
  #end = 0
  /** Of the first byte that waits, in the stream. */
  #position = 0
  /** In the order of their positions. */
  #sent: Sent[] = []

  /** Takes one piece of the stream. @throws ProtocolError when more waits than the bounds allow */
  receive(bytes: Uint8Array, descriptors: readonly number[]): void {
    const length = this.#end - this.#at + bytes.length
    if (descriptors.length > 0) this.#sent.push({ position: this.#position + length - 1, descriptors })
    const waiting = this.#sent.reduce((sum, each) => sum + each.descriptors.length, 0)
    if (length > WAITING_BYTES_MAX || waiting > WAITING_DESCRIPTORS_MAX) {
      throw new ProtocolError('too-much-waiting', `${length} bytes and ${waiting} descriptors wait to be heard`)
    }
    if (this.#end + bytes.length > this.#bytes.length) this.#move(length)
    this.#bytes.set(bytes, this.#end)
    this.#end += bytes.length
  }

  /** As much room again: so that bytes are moved once or twice, and not with each piece. */
  #move(length: number): void {
    const waiting = this.#bytes.subarray(this.#at, this.#end)
    this.#bytes = new Uint8Array(2 * length)
    this.#bytes.set(waiting)
    this.#end -= this.#at
    this.#at = 0
  }

  /** The next whole message, if any. @throws ProtocolError when what follows cannot be understood */
  next(): Frame | undefined {
    const waiting = this.#end - this.#at
    if (waiting < HEADER_BYTES) return undefined
    const view = new DataView(this.#bytes.buffer, this.#at, HEADER_BYTES)
    const flags = view.getUint32(4, LITTLE)
    const size = view.getUint32(8, LITTLE)
    if ((flags & VHOST_USER_VERSION_MASK) !== VHOST_USER_VERSION) {
      throw new ProtocolError('bad-header', `a message has the flags 0x${flags.toString(16)}, which are not version 1`)
    }
    if (size > PAYLOAD_BYTES_MAX) {
      throw new ProtocolError(
        'payload-too-long',
        `a message announced ${size} bytes; ${PAYLOAD_BYTES_MAX} is the bound`,
      )
    }
    const length = HEADER_BYTES + size
    if (waiting < length) return undefined
    const payload = this.#bytes.slice(this.#at + HEADER_BYTES, this.#at + length)
    this.#at += length
    this.#position += length
    if (this.#at === this.#end) this.#at = this.#end = 0
    return {
      request: view.getUint32(0, LITTLE),
      needsReply: (flags & VHOST_USER_NEED_REPLY_FLAG) !== 0,
      isReply: (flags & VHOST_USER_REPLY_FLAG) !== 0,
      payload,
      descriptors: this.#take(this.#position),
    }
  }

  /** Every descriptor of messages that nobody has taken. */
  release(): number[] {
    return this.#take(Number.POSITIVE_INFINITY)
  }

  /** Those that came before this place in the stream. */
  #take(before: number): number[] {
    const kept = this.#sent.findIndex(({ position }) => position >= before)
    const due = this.#sent.splice(0, kept === -1 ? this.#sent.length : kept)
    return due.flatMap(({ descriptors }) => descriptors)
  }
}

/** A whole message ("Header"). */
export function encodeMessage(
  request: number,
  payload: Uint8Array = new Uint8Array(0),
  flags = 0,
): Uint8Array<ArrayBuffer> {
  const bytes = written(HEADER_BYTES + payload.length, (view) => {
    view.setUint32(0, request, LITTLE)
    view.setUint32(4, VHOST_USER_VERSION | flags, LITTLE)
    view.setUint32(8, payload.length, LITTLE)
  })
  bytes.set(payload, HEADER_BYTES)
  return bytes
}
