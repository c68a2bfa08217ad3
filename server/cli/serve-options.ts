// The options of `candor serve` as --help shows them; config.ts reads what they bring.
import type { Options } from 'yargs'
import { DEFAULT_HTTP, DEFAULT_LIMITS, DEFAULT_LISTEN, defaultStateDirectory } from '../config.js'

export const SERVE_OPTIONS: Readonly<Record<string, Options>> = {
  create: {
    type: 'string',
    requiresArg: true,
    describe: 'make images that are missing, sparse, of this size (10G)',
  },
  'read-only': { type: 'boolean', describe: 'refuse everything that writes' },
  listen: {
    type: 'string',
    array: true,
    nargs: 1,
    requiresArg: true,
    describe: 'where clients connect: tcp:HOST:PORT or unix:PATH; may be given again',
    defaultDescription: DEFAULT_LISTEN,
  },
  http: {
    type: 'string',
    requiresArg: true,
    describe: 'where /metrics and /healthz are served: HOST:PORT, or off',
    defaultDescription: DEFAULT_HTTP,
  },
  'state-dir': {
    type: 'string',
    requiresArg: true,
    describe: 'where candor keeps what must outlive it; none does without',
    defaultDescription: defaultStateDirectory(),
  },
  'log-level': { choices: ['debug', 'info', 'warn', 'error'] as const, describe: 'the least that is logged' },
  'shutdown-timeout': {
    type: 'string',
    requiresArg: true,
    describe: 'how long a stop waits for requests in flight',
    defaultDescription: `${DEFAULT_LIMITS.shutdownTimeoutMs / 1000}s`,
  },
  'handshake-timeout': {
    type: 'string',
    requiresArg: true,
    describe: 'how long a client may take to attach',
    defaultDescription: `${DEFAULT_LIMITS.handshakeTimeoutMs / 1000}s`,
  },
  'connections-max': {
    type: 'number',
    requiresArg: true,
    describe: 'connections at once; one more is closed',
    defaultDescription: String(DEFAULT_LIMITS.connectionsMax),
  },
  'in-flight-max': {
    type: 'number',
    requiresArg: true,
    describe: 'requests of one connection waiting for storage; more are not read',
    defaultDescription: String(DEFAULT_LIMITS.slowRequestsMax),
  },
  'in-flight-bytes-max': {
    type: 'string',
    requiresArg: true,
    describe: 'bytes that these may hold',
    defaultDescription: '64M',
  },
}
