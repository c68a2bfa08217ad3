// How inputs are spoilt: at the level of bits, of numbers, of the protocol's own words, and of whole messages.
import * as protocol from 'nbd-protocol'
import type { Random } from './fuzz-random.js'
import { raw } from './raw-bytes.js'

/** Inputs are kept shorter than this. */
export const INPUT_BYTES_MAX = 16 << 10

const EDGES = [
  0n,
  1n,
  2n,
  3n,
  4n,
  7n,
  8n,
  9n,
  12n,
  15n,
  16n,
  17n,
  127n,
  128n,
  255n,
  256n,
  511n,
  512n,
  513n,
  4095n,
  4096n,
  4097n,
  8191n,
  8192n,
  8193n,
  32767n,
  32768n,
  65535n,
  65536n,
  2n ** 18n - 1n,
  2n ** 18n,
  2n ** 25n,
  2n ** 25n + 1n,
  2n ** 27n + 1n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 32n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 1n,
]

function bigEndian(value: bigint, bytes: number): Uint8Array {
  const all = new Uint8Array(8)
  new DataView(all.buffer).setBigUint64(0, BigInt.asUintN(64, value))
  return all.subarray(8 - bytes)
}

/** Every number that the protocol package exports, in the widths in which it may stand on the wire. */
const WORDS: readonly Uint8Array[] = Object.values(protocol).flatMap((value) => {
  if (typeof value === 'bigint') return [bigEndian(value, 8)]
  if (typeof value !== 'number' || !Number.isSafeInteger(value)) return []
  const number = BigInt(value >>> 0)
  return value <= 0xffff ? [bigEndian(number, 2), bigEndian(number, 4)] : [bigEndian(number, 4)]
})

const TEXTS = ['disk', 'größe', 'base:allocation', 'qemu:allocation-depth', 'base:', 'x:', ':', '\0', '\ufeff', ''].map(
  (text) => protocol.encodeUtf8(text),
)

/** What messages begin with; behind each lies a piece that may be moved as a whole. */
const MAGICS = [0x25609513, 0x21e41c71, 0x67446698, 0x668e33ef, 0x6e8a278c, 0x49484156, 0x0003e889]

/** Cuts where messages begin. */
function piecesOf(bytes: Uint8Array): Uint8Array[] {
  const view = protocol.viewOf(bytes)
  const cuts = [0]
  for (let at = 1; at + 4 <= bytes.length; at++) if (MAGICS.includes(view.getUint32(at))) cuts.push(at)
  return cuts.map((cut, index) => bytes.subarray(cut, cuts[index + 1] ?? bytes.length))
}

export class Mutator {
  readonly #random: Random
  readonly #operations: readonly ((bytes: Uint8Array, other: Uint8Array) => Uint8Array)[]

  constructor(random: Random) {
    this.#random = random
    this.#operations = [
      (bytes) => this.#overwrite(bytes, (old) => Uint8Array.of((old[0] ?? 0) ^ (1 << random.below(8)))),
      (bytes) => this.#overwrite(bytes, () => random.bytes(1)),
      (bytes) => this.#overwrite(bytes, () => this.#edge(bytes)),
      (bytes) => this.#overwrite(bytes, (old) => this.#nudged(old)),
      (bytes) => this.#overwrite(bytes, () => this.#word()),
      (bytes) => this.#insert(bytes, this.#word()),
      (bytes) => this.#insert(bytes, random.bytes(random.below(9))),
      (bytes) => this.#insert(bytes, this.#spanOf(bytes)),
      (bytes, other) => this.#insert(bytes, this.#spanOf(other)),
      (bytes) => this.#remove(bytes, 1 + random.below(random.pick([2, 9, 200]))),
      (bytes) => bytes.subarray(0, random.below(bytes.length + 1)),
      (bytes, other) => this.#spliced(bytes, other),
      (bytes, other) => this.#rearranged(bytes, other),
      (bytes, other) => this.#rearranged(bytes, other),
    ]
  }

  /** A new input made of one that is known, sometimes with parts of another. */
  mutate(bytes: Uint8Array, other: Uint8Array): Uint8Array {
    let result = bytes
    for (let changes = 1 + this.#random.below(this.#random.pick([1, 3, 6])); changes > 0; changes--) {
      result = this.#random.pick(this.#operations)(result, other)
    }
    return raw(result.subarray(0, INPUT_BYTES_MAX))
  }

  #overwrite(bytes: Uint8Array, by: (old: Uint8Array) => Uint8Array): Uint8Array {
    const at = this.#random.below(bytes.length + 1)
    const patch = by(bytes.subarray(at))
    return raw(bytes.subarray(0, at), patch, bytes.subarray(at + patch.length))
  }

  #insert(bytes: Uint8Array, more: Uint8Array): Uint8Array {
    const at = this.#random.below(bytes.length + 1)
    return raw(bytes.subarray(0, at), more, bytes.subarray(at))
  }

  #remove(bytes: Uint8Array, length: number): Uint8Array {
    const at = this.#random.below(bytes.length + 1)
    return raw(bytes.subarray(0, at), bytes.subarray(at + length))
  }

  #spanOf(bytes: Uint8Array): Uint8Array {
    const at = this.#random.below(bytes.length + 1)
    return bytes.subarray(at, at + 1 + this.#random.below(this.#random.pick([8, 40, 600])))
  }

  #edge(bytes: Uint8Array): Uint8Array {
    const width = this.#random.pick([1, 2, 4, 8])
    const value = this.#random.onceIn(4) ? BigInt(this.#random.below(bytes.length + 1)) : this.#random.pick(EDGES)
    return bigEndian(value, width)
  }

  /** The number that stands there, a little larger or smaller. */
  #nudged(old: Uint8Array): Uint8Array {
    const width = this.#random.pick([1, 2, 4])
    if (old.length < width) return old
    let value = 0n
    for (const byte of old.subarray(0, width)) value = value * 256n + BigInt(byte)
    return bigEndian(value + BigInt(this.#random.below(9) - 4), width)
  }

  #word(): Uint8Array {
    return this.#random.pick(this.#random.onceIn(4) ? TEXTS : WORDS)
  }

  #spliced(bytes: Uint8Array, other: Uint8Array): Uint8Array {
    return raw(
      bytes.subarray(0, this.#random.below(bytes.length + 1)),
      other.subarray(this.#random.below(other.length + 1)),
    )
  }

  /** Whole messages doubled, dropped, moved, or taken from another conversation. */
  #rearranged(bytes: Uint8Array, other: Uint8Array): Uint8Array {
    const pieces = piecesOf(bytes)
    const at = this.#random.below(pieces.length)
    const [piece = raw()] = this.#random.onceIn(2) ? pieces.slice(at) : pieces.splice(at, 1)
    const inserted = this.#random.pick([piece, piece, this.#random.pick(piecesOf(other)), raw()])
    pieces.splice(this.#random.below(pieces.length + 1), 0, inserted)
    return raw(...pieces)
  }
}
