// `candor serve`: exports images until a signal says stop.
import type { Argv } from 'yargs'
import {
  configOf,
  DEFAULT_HTTP,
  DEFAULT_LIMITS,
  DEFAULT_LISTEN,
  defaultStateDirectory,
  type ServeFlags,
} from '../config.js'
import { type ListenAddress, uriOf } from '../nbd/listen.js'
import { type RunningService, startService } from '../service.js'
import { VERSION } from '../version.js'
import type { Command } from './command.js'
import { formatBytes } from './format.js'

export const EXIT_CLEAN = 0
export const EXIT_SYNC_FAILED = 2

function flags(yargs: Argv): Argv {
  return yargs
    .positional('images', {
      describe: 'disk images or block devices, each with an export name if you like',
      type: 'string',
      array: true,
    })
    .options({
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
    })
    .example('$0 serve disk.img', 'export an image on nbd://127.0.0.1:10809')
    .example('$0 serve disk.img --create 10G', 'make it first, sparse, if it is missing')
    .example('$0 serve a=a.img b=/dev/vg/b --listen unix:/run/candor.sock', 'two exports on a Unix socket')
    .example('$0 serve disk.img --listen tcp:0.0.0.0:10809', 'for other machines too')
}

function attachLines(address: ListenAddress, name: string): string[] {
  const uri = uriOf(address, name)
  const client =
    address.kind === 'unix'
      ? `nbd-client -unix ${address.path} -N '${name}' /dev/nbd0`
      : `nbd-client ${address.host} ${address.port} -N '${name}' /dev/nbd0`
  return [`  ${uri}`, `    ${client}`, `    qemu-img info '${uri}'`]
}

/** The lines a person can act on. */
function banner({ exports, addresses, http }: RunningService): string {
  const lines: string[] = []
  for (const { name, size, description, readOnly } of exports) {
    lines.push(
      `candor ${VERSION} serves '${name}': ${formatBytes(size)}${readOnly ? ', read-only' : ''}, ${description}`,
    )
    for (const address of addresses) lines.push(...attachLines(address, name))
  }
  if (http !== undefined) lines.push(`metrics: http://${http.host}:${http.port}/metrics`)
  lines.push('ready; Ctrl-C syncs everything and stops')
  return `${lines.join('\n')}\n`
}

function nextSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => resolve(signal))
  })
}

async function run(flagsGiven: ServeFlags): Promise<number> {
  const service = await startService(configOf(flagsGiven))
  const stopping = nextSignal()
  process.stdout.write(banner(service))
  await stopping
  const second = nextSignal().then(() => {
    process.stderr.write('candor was told twice to stop: it ends at once, without the final sync\n')
    return EXIT_SYNC_FAILED
  })
  const clean = service.stop().then(({ synced }) => (synced ? EXIT_CLEAN : EXIT_SYNC_FAILED))
  return Promise.race([clean, second])
}

export const serve: Command<ServeFlags> = {
  words: 'serve [images..]',
  describe: 'export disk images to NBD clients',
  flags,
  run,
}
