// Which sectors were hit, by whom and why: one JSON line for each run of failed requests, kept on disk by export. Law: it
// never blocks I/O and is never fatal; what cannot be written is counted.
import { appendFile, rename, stat } from 'node:fs/promises'
import { join } from 'node:path'

/** One run of failures of a kind, next to each other on the disk. */
export interface LedgerEntry {
  /** ISO 8601, of the first failure. */
  readonly time: string
  /** The peer that asked: address and port, or 'unix'. */
  readonly client: string
  readonly command: string
  /** Bytes of the export. */
  offset: number
  length: number
  /** The host's own word. */
  readonly errno: string
  /** Requests that make up the run. */
  count: number
}

/** How long failures gather, so that neighbours become one line. */
const GATHER_MS = 1000
/** Runs that wait to be written; past them neighbours are no longer told apart, only counted. */
const WAITING_MAX = 10_000
/** A file that grew past this is kept as `.1`, and a new one begun: twice this is all that an export's ledger takes. */
const FILE_BYTES_MAX = 8 << 20

export function ledgerPath(stateDirectory: string, exportName: string): string {
  return join(stateDirectory, `errors-${encodeURIComponent(exportName)}.jsonl`)
}

export class Ledger {
  readonly #path: string
  readonly #onLost: (entries: number) => void
  #waiting: LedgerEntry[] = []
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()

  /** `onLost` is told how many lines could not be written. */
  constructor(path: string, onLost: (entries: number) => void) {
    this.#path = path
    this.#onLost = onLost
  }

  note(client: string, command: string, errno: string, offset: number, length: number): void {
    if (!this.#merge(client, command, errno, offset, length)) {
      if (this.#waiting.length >= WAITING_MAX) return this.#onLost(1)
      this.#waiting.push({ time: new Date().toISOString(), client, command, offset, length, errno, count: 1 })
    }
    this.#timer ??= setTimeout(() => void this.flush(), GATHER_MS)
  }

  /** Sequential writers fail at neighbours, and with requests in flight a little out of order: the last few runs are tried. */
  #merge(client: string, command: string, errno: string, offset: number, length: number): boolean {
    for (const entry of this.#waiting.slice(-MERGE_TRIES)) {
      if (entry.client !== client || entry.command !== command || entry.errno !== errno) continue
      const end = entry.offset + entry.length
      if (offset > end || offset + length < entry.offset) continue
      const start = Math.min(offset, entry.offset)
      entry.length = Math.max(end, offset + length) - start
      entry.offset = start
      entry.count += 1
      return true
    }
    return false
  }

  /** Writes what waits; resolves when it is written or lost. */
  flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const entries = this.#waiting
    this.#waiting = []
    if (entries.length === 0) return this.#writing
    const lines = entries.map((entry) => `${JSON.stringify(entry)}\n`).join('')
    this.#writing = this.#writing.then(() => this.#append(lines)).catch(() => this.#onLost(entries.length))
    return this.#writing
  }

  async #append(lines: string): Promise<void> {
    const size = await stat(this.#path).then(
      (status) => status.size,
      () => 0,
    )
    if (size > FILE_BYTES_MAX) await rename(this.#path, `${this.#path}.1`)
    await appendFile(this.#path, lines, { mode: 0o600 })
  }
}

const MERGE_TRIES = 16

/** The entries of a ledger's text; lines that are damaged are left out, and counted. */
export function parseLedger(text: string): { entries: LedgerEntry[]; damaged: number } {
  const entries: LedgerEntry[] = []
  let damaged = 0
  for (const line of text.split('\n')) {
    if (line === '') continue
    try {
      entries.push(JSON.parse(line) as LedgerEntry)
    } catch {
      damaged += 1
    }
  }
  return { entries, damaged }
}
