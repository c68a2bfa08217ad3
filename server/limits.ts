// Every limit of a server as one table: its flag, what it is counted in, its default, and what it is good for.
import type { NbdLimits } from './nbd/nbd-options.js'
import { formatSize, formatTime, parseCount, parseSize, parseTime } from './values.js'

export interface Limits extends NbdLimits {
  /** HTTP connections at once; one more is closed. */
  readonly httpConnectionsMax: number
  /** Status pages that are kept up to date at once; one more gets 503. */
  readonly httpWatchersMax: number
  /** Images that are served of each folder. */
  readonly folderImagesMax: number
  /** How long a stop waits for requests in flight. */
  readonly shutdownTimeoutMs: number
  /** How long the new process of an upgrade may take until it is ready to be handed everything. */
  readonly upgradeTimeoutMs: number
  /** How long clients may wait in an upgrade. */
  readonly upgradePauseMs: number
}

export interface LimitRule {
  readonly key: keyof Limits
  readonly unit: 'count' | 'bytes' | 'time'
  readonly byDefault: number
  readonly describe: string
}

/** By flag, without the dashes. */
export const LIMITS: Readonly<Record<string, LimitRule>> = {
  'connections-max': {
    key: 'connectionsMax',
    unit: 'count',
    byDefault: 1024,
    describe: 'connections at once; one more is closed',
  },
  'connections-per-address-max': {
    key: 'connectionsPerAddressMax',
    unit: 'count',
    byDefault: 256,
    describe: 'the same for each client address; Unix sockets have none',
  },
  'connections-per-export-max': {
    key: 'connectionsPerExportMax',
    unit: 'count',
    byDefault: 1024,
    describe: 'the same for each export; one more is refused',
  },
  'handshake-timeout': {
    key: 'handshakeTimeoutMs',
    unit: 'time',
    byDefault: 10_000,
    describe: 'how long a client may take to attach',
  },
  'options-max': {
    key: 'optionsMax',
    unit: 'count',
    byDefault: 256,
    describe: 'options in one handshake; one more ends it',
  },
  'option-length-max': {
    key: 'optionLengthMax',
    unit: 'bytes',
    byDefault: 64 << 10,
    describe: "an option's data; more is skipped and refused",
  },
  'in-flight-max': {
    key: 'slowRequestsMax',
    unit: 'count',
    byDefault: 256,
    describe: 'requests of one connection waiting for storage; more are not read',
  },
  'in-flight-bytes-max': {
    key: 'slowBytesMax',
    unit: 'bytes',
    byDefault: 64 << 20,
    describe: 'bytes that these may hold',
  },
  'reply-backlog-max': {
    key: 'replyBacklogMax',
    unit: 'bytes',
    byDefault: 1 << 20,
    describe: 'replies that a client has not taken; past them nothing more of it is served',
  },
  'payload-bytes-max': {
    key: 'payloadBytesMax',
    unit: 'bytes',
    byDefault: 64 << 20,
    describe: 'bytes of requests and replies that all NBD connections hold together; large requests wait for room',
  },
  'payload-timeout': {
    key: 'payloadTimeoutMs',
    unit: 'time',
    byDefault: 10_000,
    describe: 'how long a client may take for 256K of a WRITE above 1M that others wait for',
  },
  'look-ahead-max': {
    key: 'lookAheadBytesMax',
    unit: 'bytes',
    byDefault: 16 << 20,
    describe: 'bytes read of a client whose writes are held, to learn whether it is still there',
  },
  'oversize-max': {
    key: 'oversizeBytesMax',
    unit: 'bytes',
    byDefault: 128 << 20,
    describe: 'a WRITE above 32M up to this size is refused, a longer one ends the connection',
  },
  'http-connections-max': {
    key: 'httpConnectionsMax',
    unit: 'count',
    byDefault: 256,
    describe: 'HTTP connections at once; one more is closed',
  },
  'http-watchers-max': {
    key: 'httpWatchersMax',
    unit: 'count',
    byDefault: 32,
    describe: 'status pages kept up to date at once; one more gets 503',
  },
  'dir-images-max': {
    key: 'folderImagesMax',
    unit: 'count',
    byDefault: 1000,
    describe: 'images of each --dir that are served; more are left out',
  },
  'shutdown-timeout': {
    key: 'shutdownTimeoutMs',
    unit: 'time',
    byDefault: 10_000,
    describe: 'how long a stop waits for requests in flight',
  },
  'upgrade-timeout': {
    key: 'upgradeTimeoutMs',
    unit: 'time',
    byDefault: 30_000,
    describe: "how long an upgrade's new process may take to start; past it the old one goes on",
  },
  'upgrade-pause': {
    key: 'upgradePauseMs',
    unit: 'time',
    byDefault: 5_000,
    describe: 'how long clients may wait in an upgrade; past it the old process goes on',
  },
}

/** A limit's default as it would be written on the command line. */
export function formatLimit({ unit, byDefault }: LimitRule): string {
  if (unit === 'count') return String(byDefault)
  return unit === 'bytes' ? formatSize(byDefault) : formatTime(byDefault)
}

function parseLimit(flag: string, { unit }: LimitRule, text: string): number {
  const what = `--${flag}`
  if (unit === 'count') return parseCount(text, what)
  return unit === 'bytes' ? parseSize(text, what) : parseTime(text, what)
}

/** Limits that an export may have for itself, beside those of the server. */
export const OF_EXPORT: ReadonlySet<string> = new Set([
  'connections-per-export-max',
  'in-flight-max',
  'in-flight-bytes-max',
])

/** The limits that are among these words. @throws UsageError */
export function limitsAmong(words: Readonly<Record<string, string>>): Partial<Limits> {
  const given = Object.entries(LIMITS).flatMap(([flag, rule]) => {
    const text = words[flag]
    return text === undefined ? [] : [[rule.key, parseLimit(flag, rule, text)]]
  })
  return Object.fromEntries(given) as Partial<Limits>
}

/** All limits, with what the flags say in the place of the defaults. @throws UsageError */
export function limitsOf(flags: Readonly<Record<string, unknown>>): Limits {
  const entries = Object.entries(LIMITS).map(([flag, rule]) => {
    const given = flags[flag]
    return [rule.key, typeof given === 'string' ? parseLimit(flag, rule, given) : rule.byDefault]
  })
  return Object.freeze(Object.fromEntries(entries)) as Limits
}

export const DEFAULT_LIMITS: Limits = limitsOf({})
