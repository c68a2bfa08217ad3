// The log: JSON lines on stderr through pino. Laws: a reader that does not read never blocks I/O; what can happen a
// thousand times a second is told once and then summed up, so that neither the disk nor the reader drowns. Each thread
// sums up its own; the main thread writes the lines of all.

import { commandName } from 'nbd-protocol'
import { type Logger, pino } from 'pino'
import { errnoName } from '../../backends/index.js'
import type { ExportWitness, Failure } from '../exports/export-options.js'
import type { Waiting } from '../exports/waiting.js'
import { type Counters, count, LOG_LOST_AT, pulseBlock, REPEATED_AT, serverCounters } from './counters.js'

/** How often repeated events are summed up. */
const SUMMARY_MS = 10_000
/** Kinds of repeated events that are told apart at once; more share one line. */
const KINDS_MAX = 256
const FURTHER_KINDS = 'events of further kinds'

/** Bytes of lines that wait for a slow reader of stderr; what comes when it is full is lost, not waited for. */
const BACKLOG_BYTES_MAX = 1 << 20
/** How long the last lines may take when the server ends. */
const LAST_LINES_MS = 1000

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const
export type LogLevel = (typeof LOG_LEVELS)[number] | 'silent'

interface Repeated {
  count: number
  readonly details: object
}

/** One line, on its way to the thread that writes. */
export interface LogLine {
  readonly level: 'info' | 'warn' | 'error'
  readonly details: object
  readonly message: string
}

/** Where lines go. */
export type LogSink = (line: LogLine) => void

/** The end of the line: stderr, written to without waiting. */
export class LogOutput {
  readonly #logger: Logger
  #closed: Promise<void> | undefined
  readonly #destination = pino.destination({ fd: 2, sync: false, maxLength: BACKLOG_BYTES_MAX })

  /** `counters` are those of the server, where lines that were lost are counted. */
  constructor(level: LogLevel, counters = serverCounters()) {
    this.#destination.on('drop', () => count(counters, LOG_LOST_AT))
    this.#logger = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, this.#destination)
    // A disk that is full under the log must not end the server: lines wait for space, up to the bound, and then are lost.
    this.#destination.on('error', () => {})
    // At the exit pino writes what is left without a bound in time, which a reader that does not read would make for ever.
    process.prependOnceListener('exit', () => this.#destination.destroy())
  }

  readonly write = ({ level, details, message }: LogLine): void => {
    this.#logger[level](details, message)
  }

  get level(): string {
    return this.#logger.level
  }

  /** Of no effect once it is closed: there is nowhere to write to any more. */
  set level(level: LogLevel) {
    if (this.#closed === undefined) this.#logger.level = level
  }

  /** Waits a moment for the last lines, before the process ends. What comes later is lost. */
  close(): Promise<void> {
    this.#closed ??= this.#end()
    return this.#closed
  }

  #end(): Promise<void> {
    this.#logger.level = 'silent'
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, LAST_LINES_MS)
      // Not `flush`, which waits for nothing where lines are written as they come.
      this.#destination.once('close', () => {
        clearTimeout(timer)
        resolve()
      })
      this.#destination.end()
    })
  }
}

export class Log implements ExportWitness {
  /** Writes a line that another thread has put together. */
  readonly write: LogSink
  readonly #repeated = new Map<string, Repeated>()
  readonly #timer: NodeJS.Timeout
  readonly #pulse: Counters

  /** `pulse` is that of its thread, where lines that were only summed up are counted. */
  constructor(sink: LogSink, pulse = pulseBlock()) {
    this.write = sink
    this.#pulse = pulse
    this.#timer = setInterval(() => this.summarize(), SUMMARY_MS)
    this.#timer.unref()
  }

  info(details: object, message: string): void {
    this.write({ level: 'info', details, message })
  }

  warn(details: object, message: string): void {
    this.write({ level: 'warn', details, message })
  }

  error(details: object, message: string): void {
    this.write({ level: 'error', details, message })
  }

  /** Tells the first of its kind at once, and the number of the others at the next summary. */
  limited(kind: string, details: object): void {
    const known = this.#repeated.get(kind)
    if (known !== undefined) {
      known.count += 1
      count(this.#pulse, REPEATED_AT)
    } else if (this.#repeated.size >= KINDS_MAX && kind !== FURTHER_KINDS) {
      this.limited(FURTHER_KINDS, {})
    } else {
      this.#repeated.set(kind, { count: 0, details })
      this.warn(details, kind)
    }
  }

  /** Writes one line for each kind that repeated since the last summary; a quiet kind is forgotten. */
  summarize(): void {
    for (const [kind, repeated] of this.#repeated) {
      if (repeated.count === 0) {
        this.#repeated.delete(kind)
        continue
      }
      this.warn({ repeated: repeated.count, first: repeated.details }, `${kind}: more of the same`)
      repeated.count = 0
    }
  }

  requestFailed(name: string, { client, command, errno, offset, length, byReserve }: Failure): void {
    const about = { export: name, client, command: commandName(command) }
    const place = { offset, length }
    if (byReserve) {
      const kind = `${about.command} refused on export ${name}: it would take space from the reserve`
      return this.limited(kind, { ...about, policy: 'reserve', ...place })
    }
    const kind = `${about.command} failed on export ${name}: ${errnoName(errno)}`
    this.limited(kind, { ...about, errno: errnoName(errno), ...place })
  }

  requestHangs(name: string, { command, since }: Waiting): void {
    const seconds = Math.round((Date.now() - since) / 1000)
    this.limited(`storage of export ${name} does not answer`, { export: name, command: commandName(command), seconds })
  }

  stateChanged(name: string, state: string, reason: string): void {
    this.error({ export: name, state, reason }, `export ${name} is ${state}: ${reason}`)
  }

  guestRefused(name: string, reason: string): void {
    this.limited(`refused to the front-end of a guest on export ${name}: ${reason}`, { export: name, reason })
  }

  requestsDropped(name: string, { client, command, offset, length }: Failure): void {
    const kind = `${commandName(command)} dropped on export ${name}: its connection was lost before it began`
    this.limited(kind, { export: name, client, command: commandName(command), offset, length })
  }

  ledgerFailed(name: string, entries: number): void {
    this.limited(`the ledger of export ${name} could not be written`, { export: name, entries })
  }

  /** The last summary. */
  close(): void {
    clearInterval(this.#timer)
    this.summarize()
  }
}
