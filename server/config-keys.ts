// Every key of the configuration file: where it may stand, what its words look like, what it is good for. The words are
// those of the command line; docs/configuration.md is held to this table.
import {
  parseDetectZeroes,
  parseNetworkWord,
  parseReserve,
  parseSpacePolicy,
  parseSuspectReads,
} from './config-exports.js'
import { formatLimit, LIMITS, OF_EXPORT } from './limits.js'
import {
  parseCount,
  parseHostName,
  parseHttp,
  parseListen,
  parseRule,
  parseSize,
  parseTime,
  UsageError,
} from './values.js'

export interface KeyRule {
  /** `server`: at the top; `export`: under one export; `both`: at the top it is for all that say nothing else. */
  readonly place: 'server' | 'export' | 'both'
  readonly kind: 'word' | 'words' | 'boolean'
  /** Of `both`: on the command line it is for all exports alone. */
  readonly apart?: true
  /** As it would be written. */
  readonly example: string
  readonly describe: string
  /** @throws UsageError that names `what`, or the flag of the same name */
  readonly check: (word: string, what: string) => unknown
}

function oneOf(...words: readonly string[]): KeyRule['check'] {
  return (word, what) => {
    if (!words.includes(word)) throw new UsageError(`${what} is '${word}': write ${words.join(', ')}`)
  }
}

const anything: KeyRule['check'] = (word, what) => {
  if (word === '') throw new UsageError(`${what} is empty`)
}

const workers: KeyRule['check'] = (word, what) => (word === 'auto' ? word : parseCount(word, what))

const OWN: Readonly<Record<string, KeyRule>> = {
  listen: {
    place: 'server',
    kind: 'words',
    example: '[tcp:127.0.0.1:10809, unix:/run/candor.sock]',
    describe: 'where clients connect; `vhost-user:[EXPORT@]PATH` for guests',
    check: parseListen,
  },
  http: {
    place: 'server',
    kind: 'word',
    example: '127.0.0.1:9809',
    describe: 'metrics, health, status page; off for none',
    check: parseHttp,
  },
  'http-name': {
    place: 'server',
    kind: 'words',
    example: '[storage.example]',
    describe: 'names by which HTTP may be asked for',
    check: parseHostName,
  },
  dir: {
    place: 'server',
    kind: 'words',
    example: '[/srv/images]',
    describe: 'folders of which every image is served, as they come and go',
    check: anything,
  },
  'state-dir': {
    place: 'server',
    kind: 'word',
    example: '/var/lib/candor',
    describe: 'what must outlive the server; none does without',
    check: anything,
  },
  'log-level': {
    place: 'server',
    kind: 'word',
    example: 'info',
    describe: 'the least that is logged',
    check: oneOf('debug', 'info', 'warn', 'error'),
  },
  'io-engine': {
    place: 'server',
    kind: 'word',
    example: 'auto',
    describe: 'how I/O that waits is done',
    check: oneOf('auto', 'uring', 'pool'),
  },
  workers: { place: 'server', kind: 'word', example: 'auto', describe: 'I/O threads at most', check: workers },
  tls: {
    place: 'both',
    apart: true,
    kind: 'word',
    example: 'require',
    describe: 'whether clients may, or must, ask for TLS',
    check: oneOf('off', 'allow', 'require'),
  },
  'tls-dir': { place: 'server', kind: 'word', example: '/etc/candor/tls', describe: 'certificates', check: anything },
  'tls-psk': {
    place: 'server',
    kind: 'word',
    example: '/etc/candor/keys',
    describe: 'pre-shared keys',
    check: anything,
  },
  'tls-verify-client': {
    place: 'server',
    kind: 'boolean',
    example: 'true',
    describe: 'clients need a certificate',
    check: anything,
  },
  image: {
    place: 'export',
    kind: 'word',
    example: '/srv/disk1.img',
    describe: 'the image or block device',
    check: anything,
  },
  create: {
    place: 'both',
    kind: 'word',
    example: '10G',
    describe: 'make it, sparse, if it is missing',
    check: parseSize,
  },
  'read-only': {
    place: 'both',
    kind: 'boolean',
    example: 'true',
    describe: 'refuse everything that writes',
    check: anything,
  },
  'on-enospc': {
    place: 'both',
    kind: 'word',
    example: 'hold=10m',
    describe: 'a full host: report it, or hold the write',
    check: parseSpacePolicy,
  },
  reserve: { place: 'both', kind: 'word', example: '10G', describe: 'free space to keep', check: parseReserve },
  'suspect-reads': {
    place: 'both',
    kind: 'word',
    example: 'refuse',
    describe: 'bytes that a failed sync may have lost: EIO, or whatever is there',
    check: parseSuspectReads,
  },
  'detect-zeroes': {
    place: 'both',
    kind: 'word',
    example: 'on',
    describe: 'make holes of written zeroes',
    check: parseDetectZeroes,
  },
  'allow-clients': {
    place: 'both',
    kind: 'words',
    example: '[10.0.0.0/8]',
    describe: 'networks that may see it',
    check: parseNetworkWord,
  },
  'allow-subjects': {
    place: 'both',
    kind: 'words',
    example: "['CN=guest,O=us']",
    describe: 'certificate subjects that may',
    check: anything,
  },
  writers: {
    place: 'both',
    kind: 'word',
    example: '1',
    describe: 'sessions at once while it is writable; one more is refused',
    check: parseCount,
  },
  inject: {
    place: 'both',
    kind: 'words',
    example: "['write:ENOSPC@1G-2G']",
    describe: 'fail requests on purpose',
    check: parseRule,
  },
}

const PARSERS = { count: parseCount, bytes: parseSize, time: parseTime }

const limits = Object.entries(LIMITS).map(([flag, rule]): [string, KeyRule] => [
  flag,
  {
    ...(OF_EXPORT.has(flag) ? ({ place: 'both', apart: true } as const) : { place: 'server' }),
    kind: 'word',
    example: formatLimit(rule),
    describe: rule.describe,
    check: PARSERS[rule.unit],
  },
])

export const KEYS: Readonly<Record<string, KeyRule>> = { ...OWN, ...Object.fromEntries(limits) }

/** Keys that may stand at the top, or under an export. */
export function keysFor(place: 'server' | 'export'): string[] {
  return Object.keys(KEYS).filter((key) => KEYS[key]?.place === place || KEYS[key]?.place === 'both')
}
