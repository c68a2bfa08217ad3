// From words on the command line to one frozen Config. Law: whatever is wrong with them is said here, in one sentence
// that names the thing and the remedy, before anything is opened.
import { homedir } from 'node:os'
import { basename, join } from 'node:path'
import { NBD_MAX_STRING } from 'nbd-protocol'
import type { ListenAddress } from './nbd/listen.js'
import type { NbdLimits } from './nbd/server.js'
import type { HttpAddress } from './observe/http.js'
import type { LogLevel } from './observe/log.js'

/** The operator's mistake: one plain sentence. */
export class UsageError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'UsageError'
  }
}

export interface ExportConfig {
  readonly name: string
  readonly path: string
  readonly readOnly: boolean
  /** Bytes of a new image where there is none; undefined: it must exist. */
  readonly create: number | undefined
}

export interface Config {
  readonly exports: readonly ExportConfig[]
  readonly listen: readonly ListenAddress[]
  readonly http: HttpAddress | undefined
  /** undefined: none is kept. */
  readonly stateDirectory: string | undefined
  readonly logLevel: LogLevel
  readonly limits: NbdLimits
  /** How long a stop waits for requests in flight. */
  readonly shutdownTimeoutMs: number
}

/** The flags of `candor serve` as they were given, names as on the command line. */
export interface ServeFlags {
  readonly images: readonly string[]
  readonly create?: string | undefined
  readonly 'read-only'?: boolean | undefined
  readonly listen?: readonly string[] | undefined
  readonly http?: string | undefined
  readonly 'state-dir'?: string | undefined
  readonly 'log-level'?: LogLevel | undefined
  readonly 'shutdown-timeout'?: string | undefined
  readonly 'handshake-timeout'?: string | undefined
  readonly 'connections-max'?: number | undefined
  readonly 'in-flight-max'?: number | undefined
  readonly 'in-flight-bytes-max'?: string | undefined
}

export const DEFAULT_LISTEN = 'tcp:127.0.0.1:10809'
export const DEFAULT_HTTP = '127.0.0.1:9809'
const DEFAULT_NBD_PORT = 10809

/** The defaults of every limit; docs/operations.md tells what each is good for. */
export const DEFAULT_LIMITS: NbdLimits & { readonly shutdownTimeoutMs: number } = {
  connectionsMax: 1024,
  handshakeTimeoutMs: 10_000,
  optionLengthMax: 64 << 10,
  optionsMax: 256,
  slowRequestsMax: 256,
  slowBytesMax: 64 << 20,
  replyBacklogMax: 8 << 20,
  oversizeBytesMax: 128 << 20,
  shutdownTimeoutMs: 10_000,
}

const UNITS: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 }

/** 512, 64K, 10M, 1G, 2T in bytes. @throws UsageError naming `what` */
export function parseSize(text: string, what: string): number {
  const match = /^(\d+)([KMGT]?)$/i.exec(text)
  const bytes = match === null ? Number.NaN : Number(match[1]) * (UNITS[(match[2] ?? '').toUpperCase()] ?? Number.NaN)
  if (Number.isSafeInteger(bytes)) return bytes
  throw new UsageError(`${what} is '${text}', which is no size: write a number of bytes, or 64K, 10M, 1G, 2T`)
}

/** 500ms, 10s, 5m or plain seconds, in milliseconds. @throws UsageError naming `what` */
export function parseTime(text: string, what: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m)?$/.exec(text)
  const unit = { ms: 1, s: 1000, m: 60_000 }[match?.[2] ?? 's'] ?? Number.NaN
  const milliseconds = match === null ? Number.NaN : Number(match[1]) * unit
  if (milliseconds <= 2 ** 31 - 1) return milliseconds
  throw new UsageError(`${what} is '${text}', which is no time: write 10s, 500ms or 5m`)
}

function parsePort(text: string, whole: string, what: string): number {
  const port = /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (port <= 65535) return port
  throw new UsageError(`${what} is '${whole}', whose port is none: write a number from 0 to 65535`)
}

function splitHostPort(text: string, whole: string, what: string, defaultPort: number | undefined): HttpAddress {
  const match = /^(\[[^\]]+\]|[^:[\]]*)(?::(.*))?$/.exec(text)
  const host = match?.[1]?.replace(/^\[|\]$/g, '') ?? ''
  const port = match?.[2]
  if (host === '' || (port === undefined && defaultPort === undefined)) {
    throw new UsageError(`${what} is '${whole}': write HOST:PORT, such as 127.0.0.1:${defaultPort ?? 9809}`)
  }
  return { host, port: port === undefined ? (defaultPort ?? 0) : parsePort(port, whole, what) }
}

/** sun_path of unix(7), its closing NUL left off. */
const UNIX_PATH_BYTES_MAX = 107

/** tcp:HOST:PORT or unix:PATH. @throws UsageError */
export function parseListen(text: string): ListenAddress {
  const [, kind, rest = ''] = /^(tcp|unix):(.*)$/s.exec(text) ?? []
  if (kind === 'tcp') return { kind, ...splitHostPort(rest, text, '--listen', DEFAULT_NBD_PORT) }
  if (kind !== 'unix' || rest === '') {
    throw new UsageError(`--listen is '${text}': write tcp:HOST:PORT or unix:PATH`)
  }
  if (Buffer.byteLength(rest) > UNIX_PATH_BYTES_MAX) {
    throw new UsageError(
      `--listen's path has more than ${UNIX_PATH_BYTES_MAX} bytes, which no Unix socket can: ${rest}`,
    )
  }
  return { kind, path: rest }
}

function parseHttp(text: string): HttpAddress | undefined {
  return text === 'off' ? undefined : splitHostPort(text, text, '--http', undefined)
}

/** [NAME=]IMAGE; what stands before the first '=' is a name unless it holds a '/'. @throws UsageError */
export function parseImage(text: string): { readonly name: string; readonly path: string } {
  const at = text.indexOf('=')
  const named = at !== -1 && !text.slice(0, at).includes('/')
  const path = named ? text.slice(at + 1) : text
  if (path === '') throw new UsageError(`'${text}' names no image: write IMAGE or NAME=IMAGE`)
  const name = named ? text.slice(0, at) : basename(path)
  if (Buffer.byteLength(name) > NBD_MAX_STRING) {
    throw new UsageError(
      `an export name has more than ${NBD_MAX_STRING} bytes: give the image a shorter one, NAME=IMAGE`,
    )
  }
  return { name, path }
}

function parseExports(flags: ServeFlags): ExportConfig[] {
  const create = flags.create === undefined ? undefined : parseSize(flags.create, '--create')
  const readOnly = flags['read-only'] ?? false
  if (create !== undefined && readOnly) {
    throw new UsageError('--create and --read-only exclude each other: a new image that nobody may write is of no use')
  }
  const exports = flags.images.map((image) => ({ ...parseImage(image), readOnly, create }))
  const names = new Set<string>()
  for (const { name, path } of exports) {
    if (names.has(name)) {
      throw new UsageError(`two images are named '${name}': give ${path} a name of its own, such as other=${path}`)
    }
    names.add(name)
  }
  return exports
}

/** The service's own directory: one for the machine's, one for each user's. */
export function defaultStateDirectory(): string {
  if (process.getuid?.() === 0) return '/var/lib/candor'
  const { XDG_STATE_HOME } = process.env
  return join(XDG_STATE_HOME?.startsWith('/') ? XDG_STATE_HOME : join(homedir(), '.local/state'), 'candor')
}

function parseCount(value: number | undefined, what: string, fallback: number): number {
  if (value === undefined) return fallback
  if (Number.isSafeInteger(value) && value >= 1) return value
  throw new UsageError(`${what} has to be a whole number from 1 on`)
}

function optional<T>(text: string | undefined, what: string, parse: (text: string, what: string) => T, fallback: T): T {
  return text === undefined ? fallback : parse(text, what)
}

/** @throws UsageError */
export function configOf(flags: ServeFlags): Config {
  if (flags.images.length === 0) throw new UsageError("no image is given: candor serve IMAGE, or 'candor serve --help'")
  const stateDirectory = flags['state-dir'] ?? defaultStateDirectory()
  const defaults = DEFAULT_LIMITS
  return Object.freeze({
    exports: parseExports(flags),
    listen: (flags.listen ?? [DEFAULT_LISTEN]).map(parseListen),
    http: parseHttp(flags.http ?? DEFAULT_HTTP),
    stateDirectory: stateDirectory === 'none' ? undefined : stateDirectory,
    logLevel: flags['log-level'] ?? 'info',
    limits: {
      ...defaults,
      connectionsMax: parseCount(flags['connections-max'], '--connections-max', defaults.connectionsMax),
      handshakeTimeoutMs: optional(
        flags['handshake-timeout'],
        '--handshake-timeout',
        parseTime,
        defaults.handshakeTimeoutMs,
      ),
      slowRequestsMax: parseCount(flags['in-flight-max'], '--in-flight-max', defaults.slowRequestsMax),
      slowBytesMax: optional(flags['in-flight-bytes-max'], '--in-flight-bytes-max', parseSize, defaults.slowBytesMax),
    },
    shutdownTimeoutMs: optional(flags['shutdown-timeout'], '--shutdown-timeout', parseTime, defaults.shutdownTimeoutMs),
  })
}
