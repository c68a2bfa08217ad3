// Random numbers that can be had again: the seed is printed with the test, and CANDOR_FUZZ_SEED sets it.
import type { TestContext } from 'node:test'

export interface Random {
  readonly seed: number
  /** A whole number from 0 to bound - 1; bounds up to 2^53. */
  below(bound: number): number
}

/** xorshift32, two rounds to a number: plenty for choosing test cases. */
export function randomFrom(seed: number): Random {
  let state = seed | 0 || 1
  const next = () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state >>> 0
  }
  return {
    seed,
    below: (bound) => Math.floor(((next() * 0x20_0000 + (next() >>> 11)) / 2 ** 53) * bound),
  }
}

/** A generator for one test, whose seed stands in the test's output. */
export function seededRandom(scope: TestContext): Random {
  const given = process.env['CANDOR_FUZZ_SEED']
  const seed = given === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(given)
  scope.diagnostic(`seed ${seed} (CANDOR_FUZZ_SEED=${seed} repeats it)`)
  return randomFrom(seed)
}
