// The few ways in which this package touches bytes: 64-bit numbers as safe integers, and strings as UTF-8.

const TWO_32 = 0x1_0000_0000

/** What a 64-bit number reads as when it is larger than a safe integer: no export reaches it, so validation refuses it. */
export const SATURATED = Number.MAX_SAFE_INTEGER

/** Reads an unsigned 64-bit number; values past 2^53 - 1 saturate to SATURATED. */
export function getUint64(view: DataView, at: number): number {
  const high = view.getUint32(at)
  return high > 0x1f_ffff ? SATURATED : high * TWO_32 + view.getUint32(at + 4)
}

/** Writes a safe integer as an unsigned 64-bit number. */
export function setUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / TWO_32))
  view.setUint32(at + 4, value % TWO_32)
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

// WHATWG Encoding: in every JavaScript runtime, but in none of ECMAScript's own libraries, so its shape is stated here.
declare class TextEncoder {
  encode(text: string): Uint8Array<ArrayBuffer>
}
declare class TextDecoder {
  constructor(label: string, options: { fatal?: boolean; ignoreBOM?: boolean })
  decode(bytes: Uint8Array): string
}

const encoder = new TextEncoder()
const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const lenient = new TextDecoder('utf-8', { ignoreBOM: true })

export function encodeUtf8(text: string): Uint8Array<ArrayBuffer> {
  return encoder.encode(text)
}

/** The text of well-formed UTF-8 without NUL, as the spec asks of every string; undefined for anything else. */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  if (bytes.includes(0)) return undefined
  try {
    return strict.decode(bytes)
  } catch {
    return undefined
  }
}

/** For texts that are only shown to people: ill-formed parts become U+FFFD. */
export function decodeForDisplay(bytes: Uint8Array): string {
  return lenient.decode(bytes)
}

export function concatenate(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}
