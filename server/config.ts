// From words on the command line to one frozen Config. Law: whatever is wrong with them is said here, in one sentence
// that names the thing and the remedy, before anything is opened.
import { homedir } from 'node:os'
import { join } from 'node:path'
import type { IoEngineWish } from '../backends/index.js'
import { type ExportConfig, exportsOf, refuseUselessImages, tlsModeOf } from './config-exports.js'
import { type Limits, limitsOf } from './limits.js'
import type { ListenAddress } from './nbd/listen.js'
import type { TlsConfig, TlsMode } from './nbd/tls.js'
import type { HttpAddress } from './observe/http.js'
import type { LogLevel } from './observe/log.js'
import type { ActivatedSocket } from './service-manager.js'
import { parseCount, parseHostName, parseHttp, parseListen, UsageError } from './values.js'

export interface Config {
  /** Folders whose images are all served. */
  readonly folders: readonly string[]
  /** The words that it was made of. */
  readonly flags: ServeFlags
  readonly exports: readonly ExportConfig[]
  readonly listen: readonly ListenAddress[]
  /** No word was said of `listen`. */
  readonly listensByDefault: boolean
  readonly http: HttpAddress | undefined
  /** Names by which HTTP may be asked for, besides addresses, localhost and the host of `http`. */
  readonly httpNames: readonly string[]
  /** undefined: none is kept. */
  readonly stateDirectory: string | undefined
  readonly logLevel: LogLevel
  readonly ioEngine: IoEngineWish
  readonly tls: TlsConfig
  readonly limits: Limits
  /** Most I/O threads. */
  readonly workersMax: number
}

/** The flags of `candor serve` as they were given, names as on the command line; those of limits.ts besides. */
export interface ServeFlags {
  readonly images: readonly string[]
  readonly dir?: readonly string[]
  readonly config?: string
  readonly check?: boolean
  readonly create?: readonly string[]
  readonly 'read-only'?: boolean
  readonly 'read-only-export'?: readonly string[]
  /** Exports that a configuration file makes writable beside a `read-only` for all. */
  readonly writable?: readonly string[]
  readonly listen?: readonly string[]
  readonly http?: string
  readonly 'http-name'?: readonly string[]
  readonly 'state-dir'?: string
  readonly 'log-level'?: LogLevel
  readonly 'on-enospc'?: readonly string[]
  readonly reserve?: readonly string[]
  readonly inject?: readonly string[]
  readonly 'io-engine'?: IoEngineWish
  readonly 'suspect-reads'?: readonly string[]
  readonly 'detect-zeroes'?: readonly string[]
  readonly 'allow-clients'?: readonly string[]
  readonly 'allow-subjects'?: readonly string[]
  readonly tls?: TlsMode
  readonly writers?: readonly string[]
  /** Words that a configuration file has under single exports, and the command line for all alone: by export, then by key. */
  readonly exportWords?: Readonly<Record<string, Readonly<Record<string, string>>>>
  readonly 'tls-dir'?: string
  readonly 'tls-verify-client'?: boolean
  readonly 'tls-psk'?: string
  readonly workers?: string
}

export const DEFAULT_LISTEN = 'tcp:127.0.0.1:10809'
export const DEFAULT_HTTP = '127.0.0.1:9809'

function tlsOf(flags: ServeFlags): TlsConfig {
  const own = Object.entries(flags.exportWords ?? {}).find(([, words]) => (words['tls'] ?? 'off') !== 'off')
  const directory = flags['tls-dir']
  const pskFile = flags['tls-psk']
  const hasCredentials = directory !== undefined || pskFile !== undefined
  const mode = tlsModeOf(flags)
  const verifyClient = flags['tls-verify-client'] ?? false
  if ((mode !== 'off' || own !== undefined) && !hasCredentials) {
    const whose = mode !== 'off' ? `--tls ${mode}` : `tls of export ${own?.[0]}`
    throw new UsageError(`${whose} needs certificates or keys: give --tls-dir DIR or --tls-psk FILE`)
  }
  if (verifyClient && directory === undefined) {
    throw new UsageError('--tls-verify-client needs the authority that signs clients: give --tls-dir DIR')
  }
  if ((flags['allow-subjects'] ?? []).length > 0 && !verifyClient) {
    throw new UsageError('--allow-subjects looks at client certificates: give --tls-verify-client too')
  }
  return { mode, offered: mode !== 'off' || own !== undefined, directory, verifyClient, pskFile }
}

/** Sockets that were handed over stand in for the default. */
function listenOf(flags: ServeFlags, activated: readonly ActivatedSocket[]): ListenAddress[] {
  const inherited = activated.map(({ fd }): ListenAddress => ({ kind: 'inherited', fd }))
  const words = flags.listen ?? (inherited.length > 0 ? [] : [DEFAULT_LISTEN])
  return [...inherited, ...words.map(parseListen)]
}

const WORKERS_AUTO = 16
const WORKERS_MAX = 256

/** `auto` is a thread for each device, and for each processor where one device has several exports. */
function parseWorkers(text: string): number {
  if (text === 'auto') return WORKERS_AUTO
  const workers = parseCount(text, '--workers')
  if (workers >= 1 && workers <= WORKERS_MAX) return workers
  throw new UsageError(`--workers is '${text}': write auto, or a number of threads from 1 to ${WORKERS_MAX}`)
}

/** The service's own directory: one for the machine's, one for each user's. */
export function defaultStateDirectory(): string {
  if (process.getuid?.() === 0) return '/var/lib/candor'
  const { XDG_STATE_HOME } = process.env
  return join(XDG_STATE_HOME?.startsWith('/') ? XDG_STATE_HOME : join(homedir(), '.local/state'), 'candor')
}

/** @throws UsageError */
export function configOf(flags: ServeFlags, activated: readonly ActivatedSocket[] = []): Config {
  const folders = flags.dir ?? []
  if (flags.images.length === 0 && folders.length === 0)
    throw new UsageError("no image is given: candor serve IMAGE, or 'candor serve --help'")
  refuseUselessImages(flags.create, flags['read-only'] && (flags.writable ?? []).length === 0)
  const stateDirectory = flags['state-dir'] ?? defaultStateDirectory()
  return Object.freeze({
    folders,
    flags,
    exports: exportsOf(flags),
    listen: listenOf(flags, activated),
    listensByDefault: flags.listen === undefined,
    http: parseHttp(flags.http ?? DEFAULT_HTTP),
    httpNames: (flags['http-name'] ?? []).map(parseHostName),
    stateDirectory: stateDirectory === 'none' ? undefined : stateDirectory,
    logLevel: flags['log-level'] ?? 'info',
    ioEngine: flags['io-engine'] ?? 'auto',
    tls: tlsOf(flags),
    workersMax: parseWorkers(flags.workers ?? 'auto'),
    limits: limitsOf(flags as unknown as Readonly<Record<string, unknown>>),
  })
}

export type { ExportConfig } from './config-exports.js'
