// Medians, and ratios that are taken within a round: what a shared machine does to one server of a round it does to its
// neighbours too, so only such pairs may be compared.

export interface Ratio {
  readonly median: number
  readonly min: number
  readonly max: number
  readonly rounds: number
}

/** Of an empty list: NaN. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const upper = sorted[sorted.length >> 1] ?? Number.NaN
  const lower = sorted[(sorted.length - 1) >> 1] ?? Number.NaN
  return (lower + upper) / 2
}

/** `ours[i]` and `theirs[i]` belong to round i. Undefined when there is no pair. */
export function pairwiseRatio(ours: readonly number[], theirs: readonly number[]): Ratio | undefined {
  const ratios: number[] = []
  for (const [round, figure] of ours.entries()) {
    const other = theirs[round]
    if (other !== undefined && other > 0) ratios.push(figure / other)
  }
  if (ratios.length === 0) return undefined
  return { median: median(ratios), min: Math.min(...ratios), max: Math.max(...ratios), rounds: ratios.length }
}

/** The order of round `round`: everybody is first equally often. */
export function rotate<T>(items: readonly T[], round: number): T[] {
  const at = items.length === 0 ? 0 : round % items.length
  return [...items.slice(at), ...items.slice(0, at)]
}
