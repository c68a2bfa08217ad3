// Single words of the command line to values: sizes, times, addresses, names. Law: a word that is none is refused in
// one sentence that names it and says what would be right.
import { basename } from 'node:path'
import { NBD_MAX_STRING } from 'nbd-protocol'
import { type InjectionRule, parseInjection } from '../backends/index.js'
import type { ListenAddress } from './nbd/listen.js'
import type { HttpAddress } from './observe/http.js'

/** The operator's mistake: one plain sentence. */
export class UsageError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'UsageError'
  }
}

const DEFAULT_NBD_PORT = 10809

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

/** tcp:HOST:PORT, unix:PATH or vhost-user:[EXPORT@]PATH. @throws UsageError */
export function parseListen(text: string): ListenAddress {
  const [, kind, rest = ''] = /^(tcp|unix|vhost-user):(.*)$/s.exec(text) ?? []
  if (kind === 'tcp') return { kind, ...splitHostPort(rest, text, '--listen', DEFAULT_NBD_PORT) }
  const [, exportName = '', path = ''] =
    (kind === 'vhost-user' ? /^(?:([^/@]*)@)?(.*)$/s : /^()(.*)$/s).exec(rest) ?? []
  if (kind === undefined || path === '') {
    throw new UsageError(`--listen is '${text}': write tcp:HOST:PORT, unix:PATH or vhost-user:PATH`)
  }
  return kind === 'vhost-user' ? { kind, path: socketPath(path), exportName } : { kind: 'unix', path: socketPath(path) }
}

/** @throws UsageError */
export function socketPath(path: string, what = '--listen'): string {
  if (Buffer.byteLength(path) <= UNIX_PATH_BYTES_MAX) return path
  throw new UsageError(`${what}'s path has more than ${UNIX_PATH_BYTES_MAX} bytes, which no Unix socket can: ${path}`)
}

/** HOST:PORT, or undefined for `off`. @throws UsageError */
export function parseHttp(text: string): HttpAddress | undefined {
  return text === 'off' ? undefined : splitHostPort(text, text, '--http', undefined)
}

/** A name as it stands in a URL, without port. @throws UsageError */
export function parseHostName(text: string): string {
  if (/^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$/i.test(text)) return text
  throw new UsageError(`--http-name is '${text}': write a host's name without port, such as storage.example`)
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

/** A fault injection rule. @throws UsageError naming the rule */
export function parseRule(text: string): InjectionRule {
  try {
    return parseInjection(text, { size: parseSize, time: parseTime })
  } catch (error) {
    throw error instanceof UsageError ? error : new UsageError((error as Error).message)
  }
}

/** A whole number from 1 on. @throws UsageError naming `what` */
export function parseCount(text: string, what: string): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (Number.isSafeInteger(value) && value >= 1) return value
  throw new UsageError(`${what} is '${text}': write a whole number from 1 on`)
}

/** 64M for 67108864: the largest unit that divides it. */
export function formatSize(bytes: number): string {
  const [unit = '', factor = 1] = Object.entries(UNITS).findLast(([, size]) => bytes % size === 0 && bytes > 0) ?? []
  return `${bytes / factor}${unit}`
}

export function formatTime(milliseconds: number): string {
  return milliseconds % 1000 === 0 ? `${milliseconds / 1000}s` : `${milliseconds}ms`
}
