// From a line of configuration and an open image to an export that may be served: what an earlier server knew of it is
// put in force before the first client is let in.
import { resolve } from 'node:path'
import {
  type Backend,
  DONE,
  errnoName,
  errnoOf,
  type InjectionRule,
  OpenError,
  type OpenedImage,
  openBackend,
  type Reopen,
  withZeroDetection,
} from '../../backends/index.js'
import type { ExportConfig } from '../config.js'
import { addSections, EXPORT_SECTIONS, type Sections, sectionsOf } from '../observe/counter-sections.js'
import { STATE_SINCE_AT, UNCLEAN_AT } from '../observe/counters.js'
import type { Log } from '../observe/log.js'
import { continueRecord, type ImageRecord, openRecord } from '../state/image-record.js'
import { Ledger, ledgerPath } from '../state/ledger.js'
import { bootId, claimRecord, type Found, locateRecord, readRecord } from '../state/record-files.js'
import type { Stored } from '../state/record-format.js'
import { parseRule } from '../values.js'
import type { Backing } from './backing.js'
import { Export } from './export.js'
import { goOnWith, type KnownExport, knownOf } from './moving.js'

export const RESERVE_WITHOUT_EFFECT = 'the reserve has no effect: nobody can say what is free where this image lies'

export interface OpenedExport {
  readonly entry: Export
  /** Gives record, locks and descriptors back. The image was synced before, or it is an unclean end. */
  readonly close: () => Promise<void>
  /** All of it for another process, when it is frozen and quiet; undefined when its storage cannot change processes. */
  readonly moved: () => Promise<MovedExport | undefined>
  /** Another process has it: record and descriptors are let go of, and nothing else. */
  readonly abandon: () => Promise<void>
  /** Negative while the image is let go of. */
  readonly descriptor: () => number
}

/** An export as another process goes on with it. */
export interface MovedExport {
  readonly config: ExportConfig
  readonly image: OpenedImage
  readonly known: KnownExport
  readonly stored: Stored | undefined
  readonly counters: Sections
}

/** What an export is opened from. */
export interface OpenSources {
  readonly image: OpenedImage
  readonly reopen?: Reopen | undefined
  /** It was served by another process until now. */
  readonly moved?: MovedExport | undefined
}

/** @throws OpenError with one sentence for the operator */
export async function openExport(
  config: ExportConfig,
  { image, reopen, moved }: OpenSources,
  stateDirectory: string | undefined,
  log: Log,
  backing: Backing | undefined,
): Promise<OpenedExport> {
  const { name, path, readOnly, onSpace, reserve, inject, readsSuspects, ioEngine } = config
  const opened = await openBackend('opened-image', { image, readOnly, engine: ioEngine, reopen })
  const backend = config.detectsZeroes ? withZeroDetection(opened) : opened
  let record: ImageRecord | undefined
  try {
    for (const warning of backend.warnings) log.warn({ export: name, path }, warning)
    const recorded = await recordOf(config, backend, stateDirectory, moved)
    const { found } = recorded
    record = recorded.record
    const ledger = ledgerOf(name, stateDirectory, (entries) => entry.ledgerLost(entries))
    const rules = { onSpace, reserve, readsSuspects }
    const entry = new Export({ name, backend, witness: log, record, ledger, ...rules })
    entry.set({ limits: config.limits })
    injectInto(entry, moved?.known.rules.map(([text, countMax]) => ({ ...parseRule(text), countMax })) ?? inject, log)
    if (found !== undefined) await putInForce(entry, found, log)
    if (moved !== undefined) goOn(entry, moved)
    if (stateDirectory === undefined && !readOnly) {
      log.warn({ export: name }, 'without a state directory, what a failed sync made suspect is forgotten at the end')
    }
    const noted = moved === undefined ? await record?.opened() : undefined
    if (noted !== undefined && noted !== DONE) {
      throw unrecorded(path, stateDirectory, errnoName(errnoOf(noted)))
    }
    await entry.room.enter(backing)
    if (reserve > 0 && !entry.room.canReserve) {
      log.warn({ export: name, path }, RESERVE_WITHOUT_EFFECT)
    }
    const close = async () => {
      entry.room.leave()
      await ledger?.flush()
      await record?.closed(entry.wasSynced || record.untouched)
      await backend.close()
    }
    const descriptor = () => opened.image?.fd ?? -1
    return { entry, close, descriptor, ...leaving({ config, entry, backend: opened, record, ledger }) }
  } catch (error) {
    await record?.closed(false)
    await backend.close()
    throw error
  }
}

function injectInto(entry: Export, rules: readonly InjectionRule[], log: Log): void {
  if (rules.length === 0) return
  entry.inject(rules)
  const about = { export: entry.name, rules: rules.map(({ text }) => text) }
  log.warn(about, 'FAULT INJECTION is on: errors are made up')
}

function goOn(entry: Export, { known, counters }: MovedExport): void {
  addSections(EXPORT_SECTIONS, counters, entry.counters)
  goOnWith(entry, known)
}

interface Parts {
  readonly config: ExportConfig
  readonly entry: Export
  readonly backend: Backend
  readonly record: ImageRecord | undefined
  readonly ledger: Ledger | undefined
}

function leaving({ config, entry, backend, record, ledger }: Parts): Pick<OpenedExport, 'moved' | 'abandon'> {
  const moved = async () => {
    await backend.quiet?.()
    await ledger?.flush()
    const stored = await record?.settled()
    const { image } = backend
    if (image === undefined) return undefined
    const counters = sectionsOf(EXPORT_SECTIONS, [entry.counters])
    return { config, image, known: knownOf(entry), stored, counters }
  }
  const abandon = async () => {
    entry.room.leave()
    record?.abandon()
    await backend.close()
  }
  return { moved, abandon }
}

function ledgerOf(
  name: string,
  stateDirectory: string | undefined,
  onLost: (entries: number) => void,
): Ledger | undefined {
  return stateDirectory === undefined ? undefined : new Ledger(ledgerPath(stateDirectory, name), onLost)
}

async function recordOf(
  { name, path, readOnly }: ExportConfig,
  { identity, size }: Backend,
  stateDirectory: string | undefined,
  moved: MovedExport | undefined,
): Promise<{ record?: ImageRecord; found?: Found }> {
  if (stateDirectory === undefined || identity === undefined) return {}
  const image = { identity, name, path: resolve(path), size }
  try {
    if (moved !== undefined) {
      if (moved.stored === undefined) return {}
      return { record: continueRecord(locateRecord(stateDirectory, image), image, moved.stored) }
    }
    if (readOnly) return { found: readRecord(locateRecord(stateDirectory, image), size) }
    return await openRecord(claimRecord(stateDirectory, image), image)
  } catch (error) {
    throw unrecorded(path, stateDirectory, (error as Error).message)
  }
}

function unrecorded(path: string, stateDirectory: string | undefined, reason: string): OpenError {
  return new OpenError(
    `the record of ${path} cannot be kept in ${stateDirectory} (${reason}): ` +
      'make room there, or choose another folder with --state-dir',
  )
}

async function putInForce(entry: Export, found: Found, log: Log): Promise<void> {
  const { stored, damaged, shadow } = found
  const about = { export: entry.name }
  if (stored !== undefined) {
    const suspect = stored.suspect.map(([start, end]) => ({ start, end }))
    entry.durability.restore(stored.state, stored.errno, suspect)
    // 0 where nobody knows.
    if (stored.state !== 'ok') entry.counters[STATE_SINCE_AT] = stored.since ?? 0
    if (suspect.length > 0) log.warn({ ...about, ranges: suspect.length }, 'bytes are suspect since an earlier failure')
  }
  if (damaged) log.warn(about, 'the record of this image is damaged; it was set aside as .damaged')
  if (entry.readOnly || !(damaged || stored?.dirty)) return
  const crashed = stored !== undefined && stored.bootId !== bootId()
  const why = crashed
    ? 'the host went down while it was served'
    : 'its last server was killed, or its final sync failed'
  log.warn({ ...about, crashed }, `unclean end of export ${entry.name}: ${why}`)
  entry.counters[UNCLEAN_AT] = 1
  const outcome = await entry.backend.settle()
  // A damaged record may have told of ranges that were lost before: then nobody knows, and a good sync proves nothing.
  if (outcome === DONE && !damaged) return
  log.error({ ...about, errno: errnoName(errnoOf(outcome)) }, 'what the last server left unsynced may be lost')
  for (const { start, end } of shadow) {
    entry.durability.missing(start, end, 'the last server was killed, and what it left unsynced failed to sync')
  }
  if (shadow.length === 0) entry.durability.judge(outcome)
}
