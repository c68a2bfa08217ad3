// `candor serve`: exports images until a signal says stop.
import type { Argv } from 'yargs'
import { configOf, type ServeFlags } from '../config.js'
import { type ListenAddress, uriOf } from '../nbd/listen.js'
import { type RunningService, startService } from '../service.js'
import { VERSION } from '../version.js'
import type { Command } from './command.js'
import { formatBytes } from './format.js'
import { SERVE_OPTIONS } from './serve-options.js'

export const EXIT_CLEAN = 0
export const EXIT_SYNC_FAILED = 2

function flags(yargs: Argv): Argv {
  return yargs
    .positional('images', {
      describe: 'disk images or block devices, each with an export name if you like',
      type: 'string',
      array: true,
    })
    .options(SERVE_OPTIONS)
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
