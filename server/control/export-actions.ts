// What an operator may ask of an export, and what is answered. Each action gets the export and the words behind its name.
import { commandName } from 'nbd-protocol'
import { DONE, EBUSY, errnoName, errnoOf, OpenError } from '../../backends/index.js'
import { drawMap, MAP_CELLS_DEFAULT, type MapRange, windowFault } from '../exports/disk-map.js'
import type { Export } from '../exports/export.js'
import type { ExportPolicy } from '../exports/export-options.js'
import { RESERVE_WITHOUT_EFFECT } from '../exports/open-export.js'
import type { ExportRegistry } from '../exports/registry.js'
import type { Log } from '../observe/log.js'
import { parseRule } from '../values.js'
import { summary } from './export-summary.js'

export interface ControlRequest {
  readonly command: string
  readonly name?: string
  /** Further arguments, such as injection rules. */
  readonly words?: readonly string[]
  /** What was given beside them, by the names that `candor serve` has for it. */
  readonly flags?: Readonly<Record<string, unknown>>
  /** Of `set`, as the main thread hands it on. */
  readonly policy?: Partial<ExportPolicy>
}

/** `error` is a sentence for the operator. */
export type ControlReply =
  | { readonly ok: true; readonly result: unknown }
  | { readonly ok: false; readonly error: string }

export function failed(error: string): ControlReply {
  return { ok: false, error }
}

/** Lets go of the image, so that an operator can unmount what it lies on. */
function release(log: Log): Act {
  return async (entry) => {
    entry.inspect()
    const outcome = await entry.recess.begin()
    if (!entry.recess.active) {
      const errno = errnoName(errnoOf(outcome))
      return failed(
        errnoOf(outcome) === EBUSY
          ? `export ${entry.name} was not released: the kernel does not give its requests back; mend the storage first`
          : `export ${entry.name} cannot be released: ${errno}`,
      )
    }
    log.warn({ export: entry.name }, `export ${entry.name} is released: requests wait until 'candor ctl resume'`)
    return { ok: true, result: summary(entry) }
  }
}

/** The operator's word that storage is good again. */
function resume(log: Log): Act {
  return async (entry) => {
    entry.inspect()
    const wasReleased = entry.recess.active
    try {
      const outcome = await entry.recess.end()
      if (wasReleased) log.info({ export: entry.name }, `export ${entry.name} is held again: requests go on`)
      entry.inspect()
      if (outcome === DONE && entry.state === 'ok') return { ok: true, result: summary(entry) }
      if (outcome === DONE) return failed(`export ${entry.name} is ${entry.state}: its image is not whole; see the log`)
      const errno = errnoName(errnoOf(outcome))
      return failed(
        `export ${entry.name} is still ${entry.state}: its sync fails with ${errno}; mend the storage, then ask again`,
      )
    } catch (error) {
      if (!(error instanceof OpenError)) throw error
      return failed(`export ${entry.name} is still ${wasReleased ? 'released' : entry.state}: ${error.message}`)
    }
  }
}

async function forget(entry: Export): Promise<ControlReply> {
  const outcome = await entry.durability.forget()
  return outcome === DONE
    ? { ok: true, result: summary(entry) }
    : failed(`the record of ${entry.name} cannot be written`)
}

/** Tries what is held for want of space again, or answers it with ENOSPC. */
function hold(act: 'release' | 'fail'): (entry: Export) => Promise<ControlReply> {
  return async (entry) => {
    entry.space[act]()
    return { ok: true, result: summary(entry) }
  }
}

function inject(log: Log): (entry: Export, words: readonly string[]) => Promise<ControlReply> {
  return async (entry, words) => {
    try {
      const rules = words.filter((word) => word !== 'off').map(parseRule)
      entry.inject(rules)
      const texts = rules.map(({ text }) => text)
      log.warn(
        { export: entry.name, rules: texts },
        texts.length > 0 ? 'FAULT INJECTION is on' : 'fault injection is off',
      )
      return { ok: true, result: summary(entry) }
    } catch (error) {
      return failed((error as Error).message)
    }
  }
}

function* heldRanges(entry: Export): Iterable<MapRange> {
  for (const { since, client, command, offset, length } of entry.space.requests) {
    const time = new Date(since).toISOString()
    yield { kind: 'held', offset, length, time, command: commandName(command), client, count: 1 }
  }
}

/** The picture of [from, to) in `cells` cells: three words, each of which may be left out or empty. */
async function map(entry: Export, words: readonly string[]): Promise<ControlReply> {
  const [from, to, cells] = [0, entry.size, MAP_CELLS_DEFAULT].map((byDefault, at) => {
    const word = words[at] ?? ''
    return word === '' ? byDefault : /^\d+$/.test(word) ? Number(word) : Number.NaN
  })
  if (entry.recess.active)
    return failed(`export ${entry.name} is released: it can be drawn again after 'candor ctl resume'`)
  const window = { from: from ?? 0, to: to ?? entry.size, cells: cells ?? MAP_CELLS_DEFAULT }
  const fault = windowFault(window, entry.size)
  if (fault !== undefined) return failed(fault)
  const sources = {
    name: entry.name,
    size: entry.size,
    extents: (offset: number, length: number, limit: number) => entry.backend.extents(offset, length, limit),
    suspect: entry.durability.suspect,
    failures: entry.failures,
    held: heldRanges(entry),
  }
  return { ok: true, result: await drawMap(sources, window) }
}

/** The latest failures, newest last. */
async function errors(entry: Export): Promise<ControlReply> {
  return { ok: true, result: [...entry.failures] }
}

function set(log: Log, policy: Partial<ExportPolicy> = {}): Act {
  return async (entry) => {
    entry.set(policy)
    const { reserve, canReserve } = entry.room
    if (reserve > 0 && !canReserve) log.warn({ export: entry.name }, RESERVE_WITHOUT_EFFECT)
    return { ok: true, result: summary(entry) }
  }
}

type Act = (entry: Export, words: readonly string[]) => Promise<ControlReply>

function actions(log: Log): Readonly<Record<string, Act>> {
  return {
    release: release(log),
    resume: resume(log),
    forget,
    map,
    errors,
    inject: inject(log),
    'hold-release': hold('release'),
    'hold-fail': hold('fail'),
  }
}

/** Answers a question to the exports of one thread. */
export async function actOn(
  registry: ExportRegistry<Export>,
  log: Log,
  { command, name, words = [], policy }: ControlRequest,
): Promise<ControlReply> {
  if (command === 'exports') return { ok: true, result: [...registry].map(summary) }
  const all = actions(log)
  const own = Object.hasOwn(all, command) ? all[command] : undefined
  const act = command === 'set' ? set(log, policy) : own
  if (act === undefined) return failed(`this server knows no command '${command}'`)
  const entry = name === undefined ? undefined : registry.find(name)
  return entry === undefined
    ? failed(`there is no export '${name}': 'candor ctl exports' lists them`)
    : act(entry, words)
}
