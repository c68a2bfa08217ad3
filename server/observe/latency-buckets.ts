// How durations are sorted: the bounds of the histogram's buckets, and the outcomes that are told apart.
import { DONE, NOT_FAST, type Outcome, RESERVED, SHUT_DOWN } from '../../backends/index.js'

/**
 * Upper bounds, in seconds: a cached request alone, a batch of them or a way through the pool, an SSD, a busy one, a
 * disk's seek or a quick sync, what a person notices, a stall, and what the log calls hung.
 */
export const LATENCY_BOUNDS = [25e-6, 100e-6, 500e-6, 2.5e-3, 10e-3, 100e-3, 1, 10] as const

/** The bounds as OpenMetrics wants them written, and a last bucket without one. */
export const LATENCY_LABELS = ['2.5e-05', '0.0001', '0.0005', '0.0025', '0.01', '0.1', '1.0', '10.0', '+Inf'] as const

/** `refused`: by the operator's policy or because the request itself was at fault, before storage had a say. */
export const OUTCOMES = ['ok', 'failed', 'refused'] as const
export const OK = 0
export const FAILED = 1
export const REFUSED = 2
export type OutcomeClass = typeof OK | typeof FAILED | typeof REFUSED

/** One histogram: a count for each bucket, not summed up, then the sum of all durations in seconds. */
export const LATENCY_SUM_AT = LATENCY_LABELS.length
export const LATENCY_SLOTS = LATENCY_SUM_AT + 1

/** How a storage outcome is shown. */
export function outcomeClass(outcome: Outcome): OutcomeClass {
  if (outcome === DONE) return OK
  return outcome === SHUT_DOWN || outcome === NOT_FAST || outcome === RESERVED ? REFUSED : FAILED
}

/** The bucket of a duration. */
export function bucketOf(seconds: number): number {
  let bucket = 0
  while (bucket < LATENCY_BOUNDS.length && seconds > (LATENCY_BOUNDS[bucket] ?? 0)) bucket += 1
  return bucket
}
