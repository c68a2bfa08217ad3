// What the words of the command line and of the configuration file say of each export. Law: a word is for all exports, or
// as NAME=WORD for one, and the word for one goes before the word for all.
import type { InjectionRule, IoEngineWish } from '../backends/index.js'
import type { ServeFlags } from './config.js'
import { type AccessRules, parseNetwork } from './exports/access.js'
import type { SpacePolicy } from './exports/space-hold.js'
import { limitsAmong } from './limits.js'
import type { NbdLimits } from './nbd/nbd-options.js'
import type { TlsMode } from './nbd/tls.js'
import { parseCount, parseImage, parseRule, parseSize, parseTime, UsageError } from './values.js'

export interface ExportConfig {
  readonly name: string
  readonly path: string
  readonly readOnly: boolean
  /** Bytes of a new image where there is none; undefined: it must exist. */
  readonly create: number | undefined
  readonly access: AccessRules
  readonly onSpace: SpacePolicy
  /** Bytes of the file system that the export leaves free. */
  readonly reserve: number
  readonly inject: readonly InjectionRule[]
  /** Bytes that may be lost are read as if they were not. */
  readonly readsSuspects: boolean
  /** Written zeroes become holes. */
  readonly detectsZeroes: boolean
  readonly ioEngine: IoEngineWish
  /** What its clients may, or must, ask for; `off` and `allow` differ only where no export has TLS. */
  readonly tls: TlsMode
  /** Sessions at once while it is writable; undefined: as many as the limits allow. */
  readonly writers: number | undefined
  /** In the place of the server's. */
  readonly limits: ExportLimits
  /** It came with a folder, whose words hold for it; absent where somebody has named it. */
  readonly isOfFolder?: true
}

/** Limits that an export may have for itself. */
export type ExportLimits = Partial<Pick<NbdLimits, 'connectionsPerExportMax' | 'slowRequestsMax' | 'slowBytesMax'>>

/** Words of the form `NAME=WORD`, for one export, or `WORD`, for all; NAME has to be one of `names`. */
function scoped(words: readonly string[], names: ReadonlySet<string>): { name: string | undefined; word: string }[] {
  return words.map((text) => {
    const at = text.indexOf('=')
    const name = text.slice(0, Math.max(0, at))
    return at !== -1 && names.has(name) ? { name, word: text.slice(at + 1) } : { name: undefined, word: text }
  })
}

/** Of a word that may be given once for all and once for each: the one for the export, else the one for all. */
function wordFor<Value>(
  flag: 'create' | 'detect-zeroes' | 'on-enospc' | 'reserve' | 'suspect-reads' | 'writers',
  flags: ServeFlags,
  names: ReadonlySet<string>,
  parse: (word: string, what: string) => Value,
): (name: string) => Value | undefined {
  const values = new Map<string | undefined, Value>()
  for (const { name, word } of scoped(flags[flag] ?? [], names)) {
    if (values.has(name)) {
      const whom = name === undefined ? 'all exports' : `export ${name}`
      throw new UsageError(`--${flag} is given more than once for ${whom}: give it once, or as EXPORT=${word}`)
    }
    values.set(name, parse(word, `--${flag}`))
  }
  return (name) => values.get(name) ?? values.get(undefined)
}

/** A network in CIDR notation. @throws UsageError naming `what` */
export function parseNetworkWord(word: string, what: string): string {
  if (parseNetwork(word) !== undefined) return word
  throw new UsageError(`${what} is '${word}': write a network such as 10.0.0.0/8, or EXPORT=10.0.0.0/8`)
}

function accessOf(flags: ServeFlags, names: ReadonlySet<string>): (name: string) => AccessRules {
  const networks = scoped(flags['allow-clients'] ?? [], names)
  const subjects = scoped(flags['allow-subjects'] ?? [], names)
  for (const { word } of networks) parseNetworkWord(word, '--allow-clients')
  const wordsFor = (words: typeof networks, name: string) =>
    words.filter((entry) => entry.name === undefined || entry.name === name).map(({ word }) => word)
  return (name) => ({ networks: wordsFor(networks, name), subjects: wordsFor(subjects, name) })
}

const HOLD_TIMEOUT = '10m'

/** `report`, `hold` or `hold=TIME`. @throws UsageError naming `what` */
export function parseSpacePolicy(text: string, what: string): SpacePolicy {
  const [, time = HOLD_TIMEOUT] = /^hold(?:=(.*))?$/.exec(text) ?? []
  if (text === 'report') return { kind: 'report' }
  if (text.startsWith('hold')) return { kind: 'hold', timeoutMs: parseTime(time, `${what}'s time`) }
  throw new UsageError(`${what} is '${text}': write report, hold or hold=10m`)
}

/** A size to keep free. @throws UsageError naming `what` */
export function parseReserve(word: string, what: string): number {
  if (word.includes('=')) throw new UsageError(`${what} is '${word}', which names no export: write SIZE or EXPORT=SIZE`)
  return parseSize(word, what)
}

/** Whether suspect bytes are read. @throws UsageError naming `what` */
export function parseSuspectReads(word: string, what: string): boolean {
  if (word === 'refuse' || word === 'allow') return word === 'allow'
  throw new UsageError(`${what} is '${word}': write refuse or allow`)
}

/** Whether written zeroes become holes. @throws UsageError naming `what` */
export function parseDetectZeroes(word: string, what: string): boolean {
  if (word === 'on' || word === 'off') return word === 'on'
  throw new UsageError(`${what} is '${word}': write on, which makes holes of written zeroes, or off`)
}

function uniqueNames(images: readonly { readonly name: string; readonly path: string }[]): ReadonlySet<string> {
  const names = new Set<string>()
  for (const { name, path } of images) {
    if (names.has(name)) {
      throw new UsageError(`two images are named '${name}': give ${path} a name of its own, such as other=${path}`)
    }
    names.add(name)
  }
  return names
}

/** With credentials and no word about them, TLS is required: nobody makes certificates to be talked to in the clear. */
export function tlsModeOf(flags: ServeFlags, exportName?: string): TlsMode {
  const own = exportName === undefined ? undefined : flags.exportWords?.[exportName]?.['tls']
  const hasCredentials = flags['tls-dir'] !== undefined || flags['tls-psk'] !== undefined
  return (own as TlsMode | undefined) ?? flags.tls ?? (hasCredentials ? 'require' : 'off')
}

/** @throws UsageError where new images are asked for, and nobody may write to them */
export function refuseUselessImages(create: readonly string[] = [], isReadOnly: boolean | undefined): void {
  if (isReadOnly !== true || create.length === 0) return
  throw new UsageError('--create and --read-only exclude each other: a new image that nobody may write is of no use')
}

/** @throws UsageError */
export function exportsOf(flags: ServeFlags): ExportConfig[] {
  const images = flags.images.map(parseImage)
  const names = uniqueNames(images)
  const create = wordFor('create', flags, names, parseSize)
  const readOnly = new Set(flags['read-only-export'] ?? [])
  for (const name of readOnly) {
    if (!names.has(name)) throw new UsageError(`--read-only-export is '${name}', which no image is named`)
  }
  const writable = new Set(flags.writable ?? [])
  const isReadOnly = (name: string) => (flags['read-only'] === true && !writable.has(name)) || readOnly.has(name)
  const access = accessOf(flags, names)
  const rules = scoped(flags.inject ?? [], names).map(({ name, word }) => ({ name, rule: parseRule(word) }))
  const onSpace = wordFor('on-enospc', flags, names, parseSpacePolicy)
  const reserve = wordFor('reserve', flags, names, parseReserve)
  const writers = wordFor('writers', flags, names, parseCount)
  const suspects = wordFor('suspect-reads', flags, names, parseSuspectReads)
  const zeroes = wordFor('detect-zeroes', flags, names, parseDetectZeroes)
  return images.map(({ name, path }) => ({
    name,
    path,
    readOnly: isReadOnly(name),
    create: isReadOnly(name) ? undefined : create(name),
    access: access(name),
    onSpace: onSpace(name) ?? { kind: 'report' },
    reserve: reserve(name) ?? 0,
    inject: rules.filter((entry) => entry.name === undefined || entry.name === name).map(({ rule }) => rule),
    readsSuspects: suspects(name) ?? false,
    detectsZeroes: zeroes(name) ?? false,
    ioEngine: flags['io-engine'] ?? 'auto',
    tls: tlsModeOf(flags, name),
    writers: writers(name),
    limits: limitsAmong(flags.exportWords?.[name] ?? {}),
  }))
}
