// `candor serve`: exports images until a signal says stop.
import { writeSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import type { Argv } from 'yargs'
import { endAtOnce } from '../../backends/index.js'
import { type Config, configOf, type ServeFlags } from '../config.js'
import { withConfigFile } from '../config-file.js'
import { FdStore, isStored } from '../fd-store.js'
import { type ListenAddress, uriOf } from '../nbd/listen.js'
import type { RunningService, ServiceSurroundings } from '../running-service.js'
import { startService } from '../service.js'
import { ServiceManager, takeActivatedSockets } from '../service-manager.js'
import { succeededBy } from '../upgrade/afterlife.js'
import { Predecessor } from '../upgrade/predecessor.js'
import { VERSION } from '../version.js'
import type { VhostUserAddress } from '../vhost-user/server.js'
import type { Command } from './command.js'
import { formatBytes } from './format.js'
import { SERVE_OPTIONS } from './serve-options.js'

export const EXIT_CLEAN = 0
export const EXIT_SYNC_FAILED = 2
const STDERR = 2
/** A signal to all processes of a service reaches one twice that another one passes it on to. */
const SAME_SIGNAL_MS = 1000

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

/** nbd-client's words for the credentials that a server which requires TLS asks for. */
function tlsWords({ mode, directory }: Config['tls']): string {
  if (mode !== 'require') return ''
  return directory === undefined ? ' (nbd-client knows no pre-shared keys)' : ' -cacertfile ca-cert.pem'
}

/** nbd-client's words for an address. */
function whereFor(address: Exclude<ListenAddress, VhostUserAddress>): string {
  if (address.kind === 'inherited') throw new TypeError('a socket that is not listened on yet is nowhere')
  return address.kind === 'unix' ? `-unix ${address.path}` : `${address.host} ${address.port}`
}

/** QEMU's words for a vhost-user socket. */
function guestLines({ path }: VhostUserAddress): string[] {
  return [
    `  vhost-user-blk at ${path}`,
    '    qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=mem,size=1G,share=on -machine memory-backend=mem \\',
    `      -chardev socket,id=disk,path=${path},reconnect=1 -device vhost-user-blk-pci,chardev=disk`,
  ]
}

function attachLines(address: Exclude<ListenAddress, VhostUserAddress>, name: string, tls: Config['tls']): string[] {
  const uri = uriOf(address, name, tls.mode === 'require')
  const where = whereFor(address)
  const qemu = tls.mode === 'require' ? `nbdinfo '${uri}'` : `qemu-img info '${uri}'`
  return [`  ${uri}`, `    nbd-client ${where} -N '${name}' /dev/nbd0${tlsWords(tls)}`, `    ${qemu}`]
}

/** The lines a person can act on. */
function banner({ exports, addresses, http, outgrowing }: RunningService, config: Config): string {
  const lines: string[] = []
  let isFirst = true
  const paths = new Map(config.exports.map(({ name, path }) => [name, path]))
  for (const { name, face, config: own } of exports) {
    const { size, readOnly } = face
    const what = `${formatBytes(size)}${readOnly ? ', read-only' : ''}, ${paths.get(name)}`
    lines.push(`candor ${VERSION} serves '${name}': ${what}`)
    const tls = { ...config.tls, mode: own?.tls ?? config.tls.mode }
    for (const address of addresses) {
      if (address.kind !== 'vhost-user') lines.push(...attachLines(address, name, tls))
      else if (address.exportName === name || (address.exportName === '' && isFirst)) lines.push(...guestLines(address))
    }
    isFirst = false
  }
  for (const { mount, exports: names, mayTake, free } of outgrowing) {
    lines.push(
      `note: ${mount} has ${formatBytes(free)} free; ${names.join(', ')} may still take ${formatBytes(mayTake)}`,
    )
  }
  if (http !== undefined) lines.push(`metrics: http://${http.host}:${http.port}/metrics`)
  lines.push('ready; Ctrl-C syncs everything and stops')
  return `${lines.join('\n')}\n`
}

function statusOf({ exports }: RunningService): string {
  return `serving ${[...exports].map(({ name }) => name).join(', ')}`
}

function nextSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => resolve(signal))
  })
}

/** What a signal asks for, which may come before it can be done. */
class Errand {
  #wanted = false
  #act = () => {
    this.#wanted = true
  }

  constructor(signal: NodeJS.Signals) {
    process.on(signal, () => this.#act())
  }

  /** From here on it is done whenever it is asked for, and at once if it was before. */
  run(act: () => void): void {
    this.#act = act
    if (this.#wanted) act()
  }
}

/** Starts, or takes over from the process that started this one; what keeps it from that, that one is told. */
async function start(config: () => Config, around: ServiceSurroundings): Promise<RunningService> {
  try {
    return await startService(config(), around)
  } catch (error) {
    around.predecessor?.refuse((error as Error).message)
    throw error
  }
}

async function run(flagsGiven: ServeFlags): Promise<number> {
  const handedOver = takeActivatedSockets()
  const activated = handedOver.filter((each) => !isStored(each))
  const manager = new ServiceManager()
  const predecessor = Predecessor.ofEnvironment()
  const read = () => configOf(withConfigFile(flagsGiven), activated)
  if (flagsGiven.check) {
    process.stdout.write(`${flagsGiven.config ?? 'the command line'} is sound: ${read().exports.length} exports\n`)
    return EXIT_CLEAN
  }
  // A signal that nobody hears would end the process; one that comes before its time is minded later.
  const [upgrades, reloads] = [new Errand('SIGUSR2'), new Errand('SIGHUP')]
  // Until a new server serves, its end is nobody's loss; one that takes over may serve before it has got this far.
  const early = predecessor === undefined ? undefined : nextSignal()
  const reloading = () => {
    manager.reloading()
    return () => manager.reloaded(statusOf(service))
  }
  const config = predecessor === undefined ? read() : undefined
  const store = new FdStore(handedOver.filter(isStored))
  if (predecessor === undefined) manager.starting()
  const service = await start(() => config ?? read(), { read, reloading, manager, store, predecessor })
  upgrades.run(() => void service.upgrading.ask())
  reloads.run(() => void service.reload())
  const stopping = early ?? nextSignal()
  // Whoever hands sockets over knows where they are, and stdout may be a pipe of his own (nbdinfo [ candor serve … ]).
  if (activated.length === 0 && config !== undefined) process.stdout.write(banner(service, config))
  manager.ready(statusOf(service))
  const told = await Promise.race([stopping, service.upgrading.succeeded])
  if (typeof told !== 'string') return succeededBy(told, service.upgrading)
  return (await service.upgrading.stop())
    ? succeededBy(await service.upgrading.succeeded, service.upgrading, told)
    : stop(service, manager, predecessor === undefined ? 0 : SAME_SIGNAL_MS)
}

/** A second signal ends it at once; one within `sameMs` is the first one. */
async function stop(service: RunningService, manager: ServiceManager, sameMs: number): Promise<number> {
  manager.stopping()
  // Not by way of process.exit: it waits for threads, and one that storage holds would never come.
  const another = sameMs === 0 ? nextSignal() : pause(sameMs, undefined, { ref: false }).then(nextSignal)
  const second = another.then((): never => {
    writeSync(STDERR, 'candor was told twice to stop: it ends at once, without the final sync\n')
    return endAtOnce(EXIT_SYNC_FAILED)
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
