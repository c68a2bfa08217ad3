// What fuzz tests choose by chance, from a seed that is printed and can be set; and how bytes are spoilt.
import type { TestContext } from 'node:test'
import { type Random as Source, seededRandom as seededSource } from './random.js'

export class Random {
  readonly #source: Source

  constructor(source: Source) {
    this.#source = source
  }

  /** 0 to `bound` - 1. */
  below(bound: number): number {
    return this.#source.below(bound)
  }

  uint32(): number {
    return this.#source.below(2 ** 32)
  }

  /** True once in `times`. */
  onceIn(times: number): boolean {
    return this.below(times) === 0
  }

  pick<T>(choices: readonly T[]): T {
    const choice = choices[this.below(choices.length)]
    if (choice === undefined) throw new TypeError('nothing to choose from')
    return choice
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.uint32() & 0xff)
  }

  /** A safe integer; small ones, large ones and the edges alike are likely. */
  safeInteger(): number {
    const edges = [0, 1, 511, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 52, Number.MAX_SAFE_INTEGER]
    if (this.onceIn(3)) return this.pick(edges)
    return Math.floor(this.below(2 ** 53) / 2 ** this.below(53))
  }
}

/** The randomness of one test; CANDOR_FUZZ_SEED repeats it. */
export function seededRandom(scope: TestContext): Random {
  return new Random(seededSource(scope))
}

/** Bytes with a few changes of the kinds that parsers dislike: flipped, removed, doubled, inserted, cut off. */
export function mutated(random: Random, bytes: Uint8Array): Uint8Array {
  let result = [...bytes]
  for (let changes = 1 + random.below(3); changes > 0; changes--) result = mutateOnce(random, result)
  return Uint8Array.from(result)
}

function mutateOnce(random: Random, bytes: number[]): number[] {
  const at = random.below(bytes.length + 1)
  const span = 1 + random.below(8)
  const kind = random.below(5)
  if (kind === 0) return bytes.map((byte, index) => (index === at ? byte ^ (1 << random.below(8)) : byte))
  if (kind === 1) return [...bytes.slice(0, at), ...bytes.slice(at + span)]
  if (kind === 2) return [...bytes.slice(0, at + span), ...bytes.slice(at)]
  if (kind === 3) return [...bytes.slice(0, at), ...random.bytes(span), ...bytes.slice(at)]
  return bytes.map((byte, index) => (index >= at && index < at + 4 ? random.pick([0, 0xff, byte]) : byte))
}
