// An export that changes processes: how it comes to rest, what is known of it, how it goes on. Law: what one process has heard
// of its storage the other knows, since the kernel tells it once.
import type { KnownDurability } from './durable-record.js'
import type { Export } from './export.js'
import type { ExportPolicy } from './export-options.js'

/** What is known of an export beside its counters. */
export interface KnownExport {
  readonly durability: KnownDurability
  /** Bytes of the image that were there at the last look. */
  readonly present: number
  /** Injection rules in force, as they were given, and how often they may still hit. */
  readonly rules: readonly (readonly [text: string, countMax: number])[]
  /** When an operator had the image let go of, in ms since the epoch. */
  readonly releasedSince: number | undefined
  /** By the operator's last word. */
  readonly policy: ExportPolicy
}

/** While it is frozen what would wait is moved, and nothing is begun. */
export function freezeExport(entry: Export, frozen: boolean): void {
  entry.frozen = frozen
  const { space, recess, order, gate } = entry
  for (const place of [space, recess, order, gate]) place.freeze(frozen)
}

/** What is known of a frozen export, when nothing is in flight. */
export function knownOf({ durability, length, rules, recess, policy }: Export): KnownExport {
  const left = [...rules].filter(([, countMax]) => countMax > 0)
  const texts = left.map(([{ text }, countMax]) => [text, countMax] as const)
  return { durability: durability.known, present: length.present, rules: texts, releasedSince: recess.since, policy }
}

/** Goes on where another process stopped, with its counters and rules put in force. */
export function goOnWith(entry: Export, { durability, present, releasedSince }: KnownExport): void {
  entry.length.present = present
  entry.durability.goOn(durability)
  if (releasedSince !== undefined) entry.recess.goOn(releasedSince)
}
