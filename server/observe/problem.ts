// What a problem is, and the words that all of them share.

/** broken: data or durability is at stake now; waiting: guests stand still; warning: look at it; notice: it was so. */
export const SEVERITIES = ['broken', 'waiting', 'warning', 'notice'] as const
export type Severity = (typeof SEVERITIES)[number]

export interface Problem {
  readonly severity: Severity
  /** Absent where it is the server's own, or a file system's. */
  readonly export?: string
  /** What is wrong, in a few words. */
  readonly title: string
  readonly since?: string
  /** When it was seen last, where it comes and goes. */
  readonly last?: string
  /** Sentences: what it means for the guest. */
  readonly detail: string
  /** Sentences: what to do. */
  readonly remedy: string
  /** What to type, where that helps. */
  readonly command?: string
  /** Where it is explained, as a path of this server. */
  readonly help: string
}

/** The handbook as this server has it. */
export const HELP = '/docs/errors'
export const FULL_HELP = `${HELP}#out-of-space`

/** Worst first; among equals what began first. */
export function ranked(problems: readonly Problem[]): Problem[] {
  const rank = ({ severity }: Problem) => SEVERITIES.indexOf(severity)
  return [...problems].sort((a, b) => rank(a) - rank(b) || (a.since ?? '').localeCompare(b.since ?? ''))
}

export function plural(count: number, one: string): string {
  return `${count.toLocaleString('en')} ${one}${count === 1 ? '' : 's'}`
}

const UNITS = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const

export function bytes(count: number): string {
  let value = count
  let unit = 'bytes'
  for (const larger of UNITS) {
    if (value < 1024) break
    value /= 1024
    unit = larger
  }
  return `${Number(value.toFixed(1))} ${unit}`
}
