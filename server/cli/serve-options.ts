// The options of `candor serve` as --help shows them; config.ts reads what they bring.
import type { Options } from 'yargs'
import { IO_ENGINES } from '../../backends/index.js'
import { DEFAULT_HTTP, DEFAULT_LISTEN, defaultStateDirectory } from '../config.js'
import { formatLimit, LIMITS } from '../limits.js'
import { TLS_MODES } from '../nbd/tls.js'

const word: Options = { type: 'string', requiresArg: true }
const words: Options = { ...word, array: true, nargs: 1 }

const limitOptions = Object.entries(LIMITS).map(([flag, rule]): [string, Options] => [
  flag,
  { ...word, group: 'Limits:', describe: rule.describe, defaultDescription: formatLimit(rule) },
])

export const SERVE_OPTIONS: Readonly<Record<string, Options>> = {
  config: { ...word, describe: 'a YAML file with the same words; those of the command line go before it' },
  check: { type: 'boolean', describe: 'only say whether the words and the file are sound' },
  dir: { ...words, describe: 'serve every image in this folder, as they come and go; may be given again' },
  create: { ...words, describe: 'make images that are missing, sparse, of this size: 10G, or EXPORT=10G' },
  'read-only': { type: 'boolean', describe: 'refuse everything that writes' },
  'read-only-export': { ...words, describe: 'the same for this export alone; may be given again' },
  listen: {
    ...words,
    describe:
      'where clients connect: tcp:HOST:PORT, unix:PATH, or vhost-user:[EXPORT@]PATH for guests; may be given again',
    defaultDescription: DEFAULT_LISTEN,
  },
  http: {
    ...word,
    describe: 'where the status page, /metrics and /api are served: HOST:PORT, or off',
    defaultDescription: DEFAULT_HTTP,
  },
  'http-name': {
    ...words,
    describe: 'a name by which HTTP may be asked for, besides addresses and localhost; may be given again',
  },
  'state-dir': {
    ...word,
    describe: 'where candor keeps what must outlive it; none does without',
    defaultDescription: defaultStateDirectory(),
  },
  'on-enospc': {
    ...words,
    describe:
      'a full host: report it at once, or hold the write until there is space, hold=10m at the most; EXPORT=hold for one',
    defaultDescription: 'report',
  },
  reserve: {
    ...words,
    describe:
      'keep so much of the file system free: 10G, or EXPORT=10G; writes that need more space are refused, or held; may be given again',
    defaultDescription: '0',
  },
  inject: {
    ...words,
    describe: 'fail requests on purpose: write:ENOSPC@1G-2G, read:EIO,rate=0.01, flush:EIO,count=1, write:delay=2s',
  },
  'suspect-reads': {
    ...words,
    describe: 'reads of bytes that a failed sync may have lost: refuse (EIO), or allow; EXPORT=allow for one',
    defaultDescription: 'refuse',
  },
  'detect-zeroes': {
    ...words,
    describe: 'make holes of written zeroes, for guests that cannot send them as such: on, off, or EXPORT=on for one',
    defaultDescription: 'off',
  },
  workers: {
    ...word,
    describe: 'I/O threads at most; auto is one for each device, more where one device has several exports',
    defaultDescription: 'auto',
  },
  'io-engine': {
    choices: ['auto', ...IO_ENGINES],
    describe:
      'how reads wait for storage: io_uring, or threads; auto takes io_uring where kernel and container allow it',
    defaultDescription: 'auto',
  },
  'log-level': {
    choices: ['debug', 'info', 'warn', 'error'],
    describe: 'the least that is logged',
    defaultDescription: 'info',
  },
  writers: {
    ...words,
    group: 'Access:',
    describe: 'sessions at once on a writable export: 1, or EXPORT=1; one more is refused, and none may share it then',
    defaultDescription: 'any number',
  },
  'allow-clients': {
    ...words,
    group: 'Access:',
    describe: 'networks that may see the exports: 10.0.0.0/8, or EXPORT=10.0.0.0/8; may be given again',
  },
  'allow-subjects': {
    ...words,
    group: 'Access:',
    describe: 'certificate subjects that may: CN=guest,O=us, or EXPORT=CN=guest,O=us; may be given again',
  },
  tls: {
    choices: [...TLS_MODES],
    group: 'Access:',
    describe: 'whether clients may, or must, ask for TLS',
    defaultDescription: 'require with --tls-dir or --tls-psk, else off',
  },
  'tls-dir': { ...word, group: 'Access:', describe: 'folder of server-cert.pem, server-key.pem, ca-cert.pem' },
  'tls-verify-client': { type: 'boolean', group: 'Access:', describe: 'clients need a certificate of ca-cert.pem' },
  'tls-psk': { ...word, group: 'Access:', describe: 'file of pre-shared keys, as psktool writes it' },
  ...Object.fromEntries(limitOptions),
}
