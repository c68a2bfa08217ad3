// Which sectors were hit, by whom and why: one JSON line for each run of failed requests, kept on disk by export. Law: it
// never blocks I/O and is never fatal; what cannot be written is counted.
import { closeSync, existsSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs'
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
/** Runs that are kept in memory as well, for the map and the status page; older ones are in the file alone. */
const RECENT_MAX = 4096
/** Bytes of an earlier server's file that are read at start. */
const TAIL_BYTES_MAX = 512 << 10

export function ledgerPath(stateDirectory: string, exportName: string): string {
  return join(stateDirectory, `errors-${encodeURIComponent(exportName)}.jsonl`)
}

export class Ledger {
  readonly #path: string
  readonly #onLost: (entries: number) => void
  #waiting: LedgerEntry[] = []
  #recent: LedgerEntry[]
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()

  /** `onLost` is told how many lines could not be written. */
  constructor(path: string, onLost: (entries: number) => void) {
    this.#path = path
    this.#onLost = onLost
    this.#recent = parseLedger(tailOf(path)).entries.slice(-RECENT_MAX)
  }

  /** The latest runs, oldest first: also what could not be written, and what earlier servers wrote. */
  *recent(): Iterable<LedgerEntry> {
    yield* this.#recent
    yield* this.#waiting
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
    this.#recent = this.#recent.concat(entries).slice(-RECENT_MAX)
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

/** The end of a file, from the first whole line on; nothing where there is none to read. */
function tailOf(path: string): string {
  try {
    const fd = openSync(path, 'r')
    try {
      const { size } = fstatSync(fd)
      const bytes = Buffer.alloc(Math.min(size, TAIL_BYTES_MAX))
      const read = readSync(fd, bytes, 0, bytes.length, size - bytes.length)
      const text = bytes.toString('utf8', 0, read)
      return size > bytes.length ? text.slice(text.indexOf('\n') + 1) : text
    } finally {
      closeSync(fd)
    }
  } catch {
    return ''
  }
}

/** The entries of a ledger's text; lines that are damaged are left out, and counted. */
export function parseLedger(text: string): { entries: LedgerEntry[]; damaged: number } {
  const entries: LedgerEntry[] = []
  let damaged = 0
  for (const line of text.split('\n')) {
    if (line === '') continue
    try {
      const value: unknown = JSON.parse(line)
      if (isEntry(value)) entries.push(value)
      else damaged += 1
    } catch {
      damaged += 1
    }
  }
  return { entries, damaged }
}

/** A ledger from its file and the one before it. */
export function readLedger(path: string): { entries: LedgerEntry[]; damaged: number } {
  const files = [`${path}.1`, path].filter((file) => existsSync(file))
  return parseLedger(files.map((file) => readFileSync(file, 'utf8')).join(''))
}

/** A line that somebody else wrote, or a half of one, may be JSON and no entry all the same. */
function isEntry(value: unknown): value is LedgerEntry {
  if (typeof value !== 'object' || value === null) return false
  const { time, command, errno, offset, length } = value as Partial<LedgerEntry>
  const words = [time, command, errno].every((word) => typeof word === 'string')
  return words && Number.isSafeInteger(offset) && Number.isSafeInteger(length)
}
