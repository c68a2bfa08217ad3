// The exports of the server as the main thread knows them: a face, who may see it, and the host where it lives. What is
// asked of one goes to its host. Law: a host that waits for its storage keeps nobody else from an answer.

import type { ExportConfig } from '../config.js'
import { type ControlReply, type ControlRequest, failed } from '../control/export-actions.js'
import { type ExportSummary, failedSummary, stalledSummary } from '../control/export-summary.js'
import type { Access } from '../exports/access.js'
import { ExportRegistry } from '../exports/registry.js'
import type { Counters } from '../observe/counters.js'
import type { ExportFace, IoHost } from './io-host.js'

/** A host whose pulse was not felt for this long is waiting for storage in its own thread. */
export const STALLED_MS = 3000
const STALL_POLL_MS = 250

export interface DirectoryEntry {
  readonly name: string
  readonly face: ExportFace
  readonly access: Access
  readonly host: IoHost
  /** What it was opened with; absent where a program brings storage of its own. */
  readonly config?: ExportConfig
  /** Its removal has begun: nobody is let in any more. */
  readonly leaving?: true
}

/** An export that is wanted, and whose image cannot be served. */
export interface FailedExport {
  readonly name: string
  readonly config: ExportConfig
  /** A sentence for the operator. */
  readonly reason: string
  /** They say no more than that it failed, and since when. */
  readonly counters: Counters
}

export class ExportDirectory extends ExportRegistry<DirectoryEntry> {
  /** Exports that are wanted and not served, by name. */
  readonly failed = new Map<string, FailedExport>()

  get hosts(): ReadonlySet<IoHost> {
    return new Set([...this].map(({ host }) => host))
  }

  /** Answers one question of the operator. */
  async ask(request: ControlRequest): Promise<ControlReply> {
    const { command, name } = request
    if (command === 'exports') {
      const summaries = await this.#summaries({ command })
      return { ok: true, result: name === undefined ? summaries : summaries.filter((each) => each.name === name) }
    }
    const entry = name === undefined ? undefined : this.find(name)
    if (entry === undefined) return failed(this.absence(name ?? ''))
    const answer = await answerOf(entry.host, { ...request, name: entry.name })
    return answer ?? failed(stalledSentence(entry.name))
  }

  /** Those who come from now on are told another size. */
  resized(name: string, size: number): void {
    const entry = this.holds(name) ? this.find(name) : undefined
    if (entry !== undefined) this.replace({ ...entry, face: { ...entry.face, size } })
  }

  /** Names of exports that take no new requests. */
  get leaving(): string[] {
    return [...this].flatMap(({ name, leaving }) => (leaving ? [name] : []))
  }

  /** Why nothing can be asked of an export. */
  absence(name: string): string {
    const reason = this.failed.get(name)?.reason
    if (reason === undefined) return `there is no export '${name}': 'candor ctl exports' lists them`
    return `export ${name} is not served: ${reason}`
  }

  /** Requests that connections wait for, by the connection's number; those of a stalled host are left out. */
  async inFlight(): Promise<ReadonlyMap<number, number>> {
    const answers = await Promise.all([...this.hosts].map((host) => answerOf(host, { command: 'sessions' })))
    return new Map(answers.flatMap((answer) => (answer?.ok === true ? (answer.result as [number, number][]) : [])))
  }

  async #summaries(request: ControlRequest): Promise<ExportSummary[]> {
    const answers = await Promise.all([...this.hosts].map((host) => answerOf(host, request)))
    const known = new Map<string, ExportSummary>()
    for (const answer of answers) {
      if (answer?.ok !== true) continue
      for (const summary of answer.result as ExportSummary[]) known.set(summary.name, summary)
    }
    const served = [...this].map(({ name, face, leaving }) => {
      const told = known.get(name) ?? stalledSummary(face)
      return leaving ? { ...told, state: 'leaving' } : told
    })
    return [...served, ...[...this.failed.values()].map(failedSummary)]
  }
}

export function stalledSentence(name: string): string {
  return `export ${name} does not answer: its thread waits for its storage; see to that first`
}

/** How long ago a host's pulse was felt, in ms. */
export function pulseAge(host: IoHost): number {
  return Date.now() - (host.pulse[0] ?? 0)
}

/** undefined when the host stands still. */
export function answerOf(host: IoHost, request: ControlRequest): Promise<ControlReply | undefined> {
  return unlessStalled(host, host.ask(request))
}

/** What `promise` of a host brings; undefined as soon as its thread is found to stand still. */
export async function unlessStalled<Value>(host: IoHost, promise: Promise<Value>): Promise<Value | undefined> {
  let timer: NodeJS.Timeout | undefined
  const stalled = new Promise<undefined>((resolve) => {
    timer = setInterval(() => {
      if (pulseAge(host) > STALLED_MS) resolve(undefined)
    }, STALL_POLL_MS)
  })
  try {
    return await Promise.race([promise, stalled])
  } finally {
    clearInterval(timer)
  }
}
