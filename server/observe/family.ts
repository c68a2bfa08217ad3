// What a metric is, and what is observed: the exports whose shared counters it reads. Law: most series of an export that
// no client has used are left out while they are 0, or a thousand exports would fill every scrape.
import { COMMANDS } from 'nbd-protocol'
import type { BackingBlock } from './backing-block.js'
import { type Counters, REQUESTS_AT, VHOST_USER_REQUESTS_AT } from './counters.js'

/** What the HTTP thread is told of one export. */
export interface ObservedExport {
  readonly name: string
  readonly size: number
  readonly readOnly: boolean
  /** Where the image lies. */
  readonly path: string
  /** Of its file system, as `ObservedBacking` names it; undefined where nobody can say. */
  readonly device: string | undefined
  readonly counters: Counters
  /** Why it is not served; absent where it is. */
  readonly reason?: string
  /** Of its thread. */
  readonly pulse: Counters
}

/** What the HTTP thread is told of a file system that images lie on. */
export interface ObservedBacking {
  readonly device: string
  readonly mount: string
  readonly block: BackingBlock
}

export interface Observed {
  readonly version: string
  /** The engine in use: `uring` or `pool`. */
  readonly ioEngine: string
  readonly server: Counters
  /** Of the main thread. */
  readonly pulse: Counters
  /** Of every I/O thread, also of one that has no exports any more; absent: those of the exports. */
  readonly threads?: readonly Counters[]
  readonly exports: readonly ObservedExport[]
  readonly backings: readonly ObservedBacking[]
}

export interface Sample {
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
  /** Labels of several samples, one object for all of them: they are rendered once. */
  readonly sharedLabels?: Readonly<Record<string, string>>
  /** Of the series, where it is not the family's: those of a histogram have several. */
  readonly metricName?: string
}

export type Collect = (observed: Observed) => Iterable<Sample>

export interface Family {
  readonly name: string
  readonly help: string
  readonly type: 'counter' | 'gauge' | 'histogram'
  readonly collect: Collect
}

/** Where each front end counts its requests, by its label value. */
export const FRONT_ENDS = { nbd: REQUESTS_AT, 'vhost-user': VHOST_USER_REQUESTS_AT } as const

/** Requests of all front ends. */
export function requestsOf(counters: Counters, command: number): number {
  return (counters[REQUESTS_AT + command] ?? 0) + (counters[VHOST_USER_REQUESTS_AT + command] ?? 0)
}

/** A client has asked something of it. */
export function isUsed(counters: Counters): boolean {
  for (let command = 0; command < COMMANDS; command++) if (requestsOf(counters, command) > 0) return true
  return false
}

/** One number of each export, also of those that nobody has used. */
export function* ofAll({ exports }: Observed, at: number): Iterable<Sample> {
  for (const { name, counters } of exports) yield { labels: { export: name }, value: counters[at] ?? 0 }
}

/** One number of each export that was used, or for which it is not 0. */
export function* perExport({ exports }: Observed, at: number): Iterable<Sample> {
  for (const { name, counters } of exports) {
    const value = counters[at] ?? 0
    if (value !== 0 || isUsed(counters)) yield { labels: { export: name }, value }
  }
}
