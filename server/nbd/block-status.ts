// Answers to NBD_CMD_BLOCK_STATUS: one chunk for each metadata context, from a registry that grows by a row.
// Law: suspect bytes are plain data here, for a copy tool would otherwise take them for zeroes without reading.

import {
  BASE_ALLOCATION,
  chunkHeaderBytes,
  encodeChunk,
  getUint64,
  type MetaContext,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
  NBD_STATE_HOLE,
  NBD_STATE_ZERO,
  QEMU_ALLOCATION_DEPTH,
  type ReplyStyle,
  type Request,
  setUint64,
  viewOf,
} from 'nbd-protocol'
import { type Extent, errnoOf, type Outcome } from '../../backends/index.js'
import type { Export } from '../exports/export.js'
import type { Range } from '../exports/range-set.js'

/** Runs that one request may be told of: bounded work and a bounded reply, whatever the image looks like. */
export const BLOCK_STATUS_RUNS_MAX = 4096

/** The registry: a context's flags for a run of the image. */
const CONTEXTS: Readonly<Record<string, (extent: Extent) => number>> = {
  [BASE_ALLOCATION]: ({ hole, zero }) => (hole ? NBD_STATE_HOLE : 0) | (zero ? NBD_STATE_ZERO : 0),
  [QEMU_ALLOCATION_DEPTH]: ({ hole }) => (hole ? 0 : 1),
}

/** Names of the contexts that an export offers. */
export const CONTEXT_NAMES: readonly string[] = Object.keys(CONTEXTS)

/** What a filtered request asks for (extension EXTENDED_HEADERS, "NBD_CMD_BLOCK_STATUS"). */
interface Question {
  readonly length: number
  readonly contexts: readonly MetaContext[]
}

export class BlockStatus {
  readonly style: ReplyStyle
  readonly #export: Export
  readonly #contexts: readonly MetaContext[]

  constructor(served: Export, style: ReplyStyle, contexts: readonly MetaContext[]) {
    this.#export = served
    this.style = style
    this.#contexts = contexts
  }

  /** What the request asks for; undefined when its filter is malformed, names foreign ids or leaves the export. */
  question(request: Request, payload: Uint8Array): Question | undefined {
    if (payload.length === 0) return { length: request.length, contexts: this.#contexts }
    if (payload.length < 12 || payload.length % 4 !== 0) return undefined
    const view = viewOf(payload)
    const length = getUint64(view, 0)
    const { size } = this.#export
    if (length === 0 || request.offset > size || length > size - request.offset) return undefined
    const contexts: MetaContext[] = []
    for (let at = 8; at < payload.length; at += 4) {
      const context = this.#contexts.find(({ id }) => id === view.getUint32(at))
      if (context === undefined || contexts.includes(context)) return undefined
      contexts.push(context)
    }
    return { length, contexts }
  }

  /** The whole reply, or the outcome of a failure. The caller has asked `question` before. */
  async answer(request: Request, payload: Uint8Array): Promise<Uint8Array | Outcome> {
    const question = this.question(request, payload)
    if (question === undefined) throw new TypeError('a malformed filter was let through')
    const limit = (request.flags & NBD_CMD_FLAG_REQ_ONE) === 0 ? BLOCK_STATUS_RUNS_MAX : 1
    const found = await this.#extents(request.offset, question.length, limit)
    if (typeof found === 'number') return errnoOf(found)
    return this.#encode(request, question.contexts, found.slice(0, limit))
  }

  /**
   * What was lost looks like a hole: only a look that no failure came in between of is believed. What was suspect when
   * it began is data, though it was written again meanwhile: the look may have met the hole before.
   */
  async #extents(offset: number, length: number, limit: number): Promise<readonly Extent[] | Outcome> {
    const { durability } = this.#export
    for (;;) {
      this.#export.inspect()
      const { epoch } = durability
      const before = [...durability.suspect.within(offset, offset + length)]
      const found = await this.#export.backend.extents(offset, length, limit)
      this.#export.inspect()
      durability.probe()
      if (typeof found === 'number') return found
      if (durability.epoch !== epoch) continue
      const now = [...durability.suspect.within(offset, offset + length)]
      return withoutSuspects(offset, withoutSuspects(offset, found, before), now)
    }
  }

  #encode(request: Request, contexts: readonly MetaContext[], runs: readonly Extent[]): Uint8Array {
    const wide = this.style === 'extended'
    const header = chunkHeaderBytes(this.style)
    const chunk = header + (wide ? 8 + 16 * runs.length : 4 + 8 * runs.length)
    const bytes = new Uint8Array(chunk * contexts.length)
    const view = viewOf(bytes)
    const type = wide ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT : NBD_REPLY_TYPE_BLOCK_STATUS
    contexts.forEach(({ id, name }, index) => {
      const flags = index === contexts.length - 1 ? NBD_REPLY_FLAG_DONE : 0
      const at = chunk * index
      const start = encodeChunk(view, at, this.style, request, request.offset, flags, type, chunk - header)
      encodeRuns(view, start, wide, id, runs, CONTEXTS[name] ?? (() => 0))
    })
    return bytes
  }
}

function withoutSuspects(offset: number, extents: readonly Extent[], suspects: readonly Range[]): readonly Extent[] {
  if (suspects.length === 0) return extents
  const runs: Extent[] = []
  let at = offset
  for (const extent of extents) {
    for (const part of split(extent, at, suspects)) runs.push(part)
    at += extent.length
  }
  return runs
}

function* split(extent: Extent, start: number, suspects: readonly Range[]): IterableIterator<Extent> {
  const end = start + extent.length
  let at = start
  for (const range of suspects) {
    const from = Math.max(at, range.start)
    const to = Math.min(end, range.end)
    if (from >= to) continue
    if (from > at) yield { ...extent, length: from - at }
    yield { length: to - from, hole: false, zero: false }
    at = to
  }
  if (at < end) yield { ...extent, length: end - at }
}

function encodeRuns(
  view: DataView,
  at: number,
  wide: boolean,
  id: number,
  runs: readonly Extent[],
  flagsOf: (extent: Extent) => number,
): void {
  view.setUint32(at, id)
  if (wide) view.setUint32(at + 4, runs.length)
  let next = at + (wide ? 8 : 4)
  for (const run of runs) {
    if (wide) {
      setUint64(view, next, run.length)
      setUint64(view, next + 8, flagsOf(run))
    } else {
      view.setUint32(next, run.length)
      view.setUint32(next + 4, flagsOf(run))
    }
    next += wide ? 16 : 8
  }
}
