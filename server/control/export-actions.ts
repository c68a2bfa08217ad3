// What an operator may ask of an export, and what is answered. Each action gets the export and the words behind its name.
import { commandName } from 'nbd-protocol'
import { DONE, errnoName, errnoOf } from '../../backends/index.js'
import { drawMap, MAP_CELLS_DEFAULT, type MapRange, windowFault } from '../exports/disk-map.js'
import type { Export } from '../exports/export.js'
import type { ExportRegistry } from '../exports/registry.js'
import type { ExportFace } from '../io/io-host.js'
import { ALLOCATED_AT, HELD_AT, RESERVE_AT, SUSPECT_BYTES_AT } from '../observe/counters.js'
import type { Log } from '../observe/log.js'
import { parseRule } from '../values.js'

export interface ControlRequest {
  readonly command: string
  readonly name?: string
  /** Further arguments, such as injection rules. */
  readonly words?: readonly string[]
}

/** `error` is a sentence for the operator. */
export type ControlReply =
  | { readonly ok: true; readonly result: unknown }
  | { readonly ok: false; readonly error: string }

/** What `candor ctl exports` shows of one. */
export interface ExportSummary {
  readonly name: string
  readonly size: number
  readonly readOnly: boolean
  readonly state: string
  readonly suspectBytes: number
  readonly suspectRanges: number
  /** Bytes of the file system that the image takes, and that the export leaves free; both 0 where nobody can say. */
  readonly allocated: number
  readonly reserve: number
  /** Requests that wait for space, and since when. */
  readonly held: number
  readonly heldSince: string | undefined
}

function summary(entry: Export): ExportSummary {
  const { suspect, state } = entry.durability
  const { name, size, readOnly } = entry
  const { held, since } = entry.space
  const heldSince = since === undefined ? undefined : new Date(since).toISOString()
  const lost = { suspectBytes: suspect.bytes, suspectRanges: suspect.count }
  const taken = { allocated: entry.counters[ALLOCATED_AT] ?? 0, reserve: entry.room.reserve }
  return { name, size, readOnly, state, ...lost, ...taken, held, heldSince }
}

/** The same of an export whose thread is waiting for its storage, from what is known without it. */
export function stalledSummary({ name, size, readOnly, counters }: ExportFace): ExportSummary {
  const [suspectBytes = 0, held = 0] = [counters[SUSPECT_BYTES_AT], counters[HELD_AT]]
  const [allocated = 0, reserve = 0] = [counters[ALLOCATED_AT], counters[RESERVE_AT]]
  const lost = { suspectBytes, suspectRanges: 0 }
  return { name, size, readOnly, state: 'stalled', ...lost, allocated, reserve, held, heldSince: undefined }
}

export function failed(error: string): ControlReply {
  return { ok: false, error }
}

async function resume(entry: Export): Promise<ControlReply> {
  entry.inspect()
  const outcome = await entry.durability.resume()
  if (outcome === DONE) return { ok: true, result: summary(entry) }
  const errno = errnoName(errnoOf(outcome))
  return failed(`export ${entry.name} is still ${entry.state}: its sync fails with ${errno}; mend the storage first`)
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

type Act = (entry: Export, words: readonly string[]) => Promise<ControlReply>

function actions(log: Log): Readonly<Record<string, Act>> {
  return {
    resume,
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
  { command, name, words = [] }: ControlRequest,
): Promise<ControlReply> {
  if (command === 'exports') return { ok: true, result: [...registry].map(summary) }
  const act = actions(log)[command]
  if (act === undefined) return failed(`this server knows no command '${command}'`)
  const entry = name === undefined ? undefined : registry.find(name)
  return entry === undefined
    ? failed(`there is no export '${name}': 'candor ctl exports' lists them`)
    : act(entry, words)
}
