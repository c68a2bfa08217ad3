// Payloads of options and their replies: bytes to values and back. A decoder answers undefined for what is malformed,
// and never reads past the payload it was given.
import { concatenate, decodeUtf8, encodeUtf8, getUint64, setUint64, viewOf } from './bytes.js'
import {
  IHAVEOPT,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_EXPORT,
  NBD_INFO_NAME,
  NBD_MAX_STRING,
  NBD_REP_MAGIC,
} from './constants.js'

/** Bytes of an option's header: magic, option, length. */
export const OPTION_HEADER_BYTES = 16
/** Bytes of an option reply's header: magic, option, reply type, length. */
export const OPTION_REPLY_HEADER_BYTES = 20
/** Zeroes that end a reply to NBD_OPT_EXPORT_NAME unless NBD_FLAG_C_NO_ZEROES was negotiated. */
export const EXPORT_NAME_ZEROES = 124

/** Payload of NBD_OPT_INFO and NBD_OPT_GO. */
export interface InfoRequest {
  readonly name: string
  readonly requests: readonly number[]
}

/** Payload of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. */
export interface MetaContextRequest {
  readonly name: string
  readonly queries: readonly string[]
}

/** Size constraints of an export, in bytes ("Size constraints"). */
export interface BlockSizes {
  readonly minimum: number
  readonly preferred: number
  readonly maximum: number
}

/** A metadata context with the id under which replies name it. */
export interface MetaContext {
  readonly id: number
  readonly name: string
}

export function encodeOption(option: number, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(OPTION_HEADER_BYTES + data.length)
  const view = viewOf(bytes)
  view.setBigUint64(0, IHAVEOPT)
  view.setUint32(8, option)
  view.setUint32(12, data.length)
  bytes.set(data, OPTION_HEADER_BYTES)
  return bytes
}

export function encodeOptionReply(option: number, type: number, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(OPTION_REPLY_HEADER_BYTES + data.length)
  const view = viewOf(bytes)
  view.setBigUint64(0, NBD_REP_MAGIC)
  view.setUint32(8, option)
  view.setUint32(12, type)
  view.setUint32(16, data.length)
  bytes.set(data, OPTION_REPLY_HEADER_BYTES)
  return bytes
}

/** A name as the wire has it: at most 4096 bytes of UTF-8 without NUL ("Restrictions on strings"). */
export function decodeName(bytes: Uint8Array): string | undefined {
  return bytes.length > NBD_MAX_STRING ? undefined : decodeUtf8(bytes)
}

/** Walks a payload made of 32-bit lengths, strings and numbers; every step past the end makes it `failed`. */
class PayloadReader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  #at = 0
  failed = false

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.#view = viewOf(bytes)
  }

  get finished(): boolean {
    return this.#at === this.#bytes.length
  }

  #advance(bytes: number): number {
    const at = this.#at
    if (bytes > this.#bytes.length - at) this.failed = true
    else this.#at += bytes
    return at
  }

  uint16(): number {
    const at = this.#advance(2)
    return this.failed ? 0 : this.#view.getUint16(at)
  }

  uint32(): number {
    const at = this.#advance(4)
    return this.failed ? 0 : this.#view.getUint32(at)
  }

  text(length: number): string {
    const at = this.#advance(length)
    const text = this.failed ? undefined : decodeName(this.#bytes.subarray(at, at + length))
    if (text === undefined) this.failed = true
    return text ?? ''
  }
}

/** Decodes the payload of NBD_OPT_INFO or NBD_OPT_GO; undefined where its lengths or its name are not sound. */
export function decodeInfoRequest(data: Uint8Array): InfoRequest | undefined {
  const reader = new PayloadReader(data)
  const name = reader.text(reader.uint32())
  const count = reader.uint16()
  const requests: number[] = []
  while (requests.length < count && !reader.failed) requests.push(reader.uint16())
  return reader.failed || !reader.finished ? undefined : { name, requests }
}

export function encodeInfoRequest({ name, requests }: InfoRequest): Uint8Array<ArrayBuffer> {
  const text = encodeUtf8(name)
  const bytes = new Uint8Array(4 + text.length + 2 + 2 * requests.length)
  const view = viewOf(bytes)
  view.setUint32(0, text.length)
  bytes.set(text, 4)
  view.setUint16(4 + text.length, requests.length)
  requests.forEach((request, index) => {
    view.setUint16(6 + text.length + 2 * index, request)
  })
  return bytes
}

/** Decodes the payload of the META_CONTEXT options; undefined where its lengths or strings are not sound. */
export function decodeMetaContextRequest(data: Uint8Array): MetaContextRequest | undefined {
  const reader = new PayloadReader(data)
  const name = reader.text(reader.uint32())
  const count = reader.uint32()
  const queries: string[] = []
  while (queries.length < count && !reader.failed) queries.push(reader.text(reader.uint32()))
  return reader.failed || !reader.finished ? undefined : { name, queries }
}

export function encodeMetaContextRequest({ name, queries }: MetaContextRequest): Uint8Array<ArrayBuffer> {
  const parts = [lengthAndText(name), uint32(queries.length), ...queries.map(lengthAndText)]
  return concatenate(parts)
}

function uint32(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  viewOf(bytes).setUint32(0, value)
  return bytes
}

function lengthAndText(text: string): Uint8Array {
  const bytes = encodeUtf8(text)
  return concatenate([uint32(bytes.length), bytes])
}

/** Payload of NBD_REP_SERVER: a name, then a description that people may read. */
export function encodeServer(name: string, description: string): Uint8Array<ArrayBuffer> {
  return concatenate([lengthAndText(name), encodeUtf8(description)])
}

/** Payload of NBD_REP_META_CONTEXT. */
export function encodeMetaContext({ id, name }: MetaContext): Uint8Array<ArrayBuffer> {
  return concatenate([uint32(id), encodeUtf8(name)])
}

/** Payload of NBD_REP_INFO with NBD_INFO_EXPORT. */
export function encodeInfoExport(size: number, transmissionFlags: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(12)
  const view = viewOf(bytes)
  view.setUint16(0, NBD_INFO_EXPORT)
  setUint64(view, 2, size)
  view.setUint16(10, transmissionFlags)
  return bytes
}

/** Payload of NBD_REP_INFO with NBD_INFO_NAME or NBD_INFO_DESCRIPTION. */
export function encodeInfoText(type: number, text: string): Uint8Array<ArrayBuffer> {
  const head = new Uint8Array(2)
  viewOf(head).setUint16(0, type)
  return concatenate([head, encodeUtf8(text)])
}

/** Payload of NBD_REP_INFO with NBD_INFO_BLOCK_SIZE. */
export function encodeInfoBlockSize(sizes: BlockSizes): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(14)
  const view = viewOf(bytes)
  view.setUint16(0, NBD_INFO_BLOCK_SIZE)
  view.setUint32(2, sizes.minimum)
  view.setUint32(6, sizes.preferred)
  view.setUint32(10, sizes.maximum)
  return bytes
}

/** What a server told of one export through NBD_REP_INFO, as far as this package understands it. */
export interface ExportInfo {
  size?: number
  transmissionFlags?: number
  name?: string
  description?: string
  blockSizes?: BlockSizes
}

/** Adds what one NBD_REP_INFO payload says to `into`; unknown types are ignored, as the spec asks of clients. */
export function decodeInfo(data: Uint8Array, into: ExportInfo): void {
  if (data.length < 2) return
  const view = viewOf(data)
  const type = view.getUint16(0)
  if (type === NBD_INFO_EXPORT && data.length === 12) {
    into.size = getUint64(view, 2)
    into.transmissionFlags = view.getUint16(10)
  } else if (type === NBD_INFO_BLOCK_SIZE && data.length === 14) {
    into.blockSizes = { minimum: view.getUint32(2), preferred: view.getUint32(6), maximum: view.getUint32(10) }
  } else if (type === NBD_INFO_NAME) {
    into.name = decodeUtf8(data.subarray(2)) ?? ''
  } else if (type === NBD_INFO_DESCRIPTION) {
    into.description = decodeUtf8(data.subarray(2)) ?? ''
  }
}

/** Decodes NBD_REP_SERVER; undefined where it is malformed. */
export function decodeServer(data: Uint8Array): { name: string; description: string } | undefined {
  if (data.length < 4) return undefined
  const length = viewOf(data).getUint32(0)
  if (length > data.length - 4) return undefined
  const name = decodeUtf8(data.subarray(4, 4 + length))
  const description = decodeUtf8(data.subarray(4 + length)) ?? ''
  return name === undefined ? undefined : { name, description }
}

/** Decodes NBD_REP_META_CONTEXT; undefined where it is malformed. */
export function decodeMetaContext(data: Uint8Array): MetaContext | undefined {
  if (data.length < 4) return undefined
  const name = decodeUtf8(data.subarray(4))
  return name === undefined ? undefined : { id: viewOf(data).getUint32(0), name }
}
