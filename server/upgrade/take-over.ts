// A service that begins where another process stopped. Law: what can go wrong does so before anybody waits, and is told to
// the process that then goes on.
import { resolve } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { OpenError, UnusableDescriptor } from '../../backends/index.js'
import type { Config, ExportConfig } from '../config.js'
import type { ImageFolders } from '../control/image-folders.js'
import type { ExportPolicy } from '../exports/export-options.js'
import type { MovedExport } from '../exports/open-export.js'
import type { FrontEnds } from '../front-ends.js'
import type { ExportDirectory } from '../io/directory.js'
import type { ExportDesk } from '../io/export-desk.js'
import type { IoHost } from '../io/io-host.js'
import type { ListenAddress } from '../nbd/listen.js'
import type { MovedConnection } from '../nbd/moved.js'
import type { NbdServer } from '../nbd/server.js'
import { addSections, PULSE_SECTIONS, SERVER_SECTIONS } from '../observe/counter-sections.js'
import type { Counters } from '../observe/counters.js'
import type { Log } from '../observe/log.js'
import { Channel } from './channel.js'
import type { LateGuest, MovedServer, ToPredecessor, ToSuccessor } from './messages.js'
import type { Predecessor } from './predecessor.js'

/** What an export that is taken over is served as: by our configuration, if that does not speak of another image. */
export function configFor(
  { config: before, image, known: { policy } }: MovedExport,
  { exports }: Config,
): ExportConfig {
  const own = exports.find(({ name }) => name === before.name)
  if (own === undefined) return { ...before, ...policy }
  if (resolve(own.path) !== image.path) {
    throw new OpenError(
      `export ${own.name} is ${image.path}, and ${own.path} by the configuration: clients cannot change disks, so restart instead`,
    )
  }
  if (own.readOnly !== before.readOnly) {
    const [was, is] = before.readOnly ? ['read-only', 'writable'] : ['writable', 'read-only']
    throw new OpenError(`export ${own.name} is ${was}, and ${is} by the configuration: restart instead`)
  }
  // What an operator has set meanwhile holds until the configuration says something new.
  const said = (key: keyof ExportPolicy) => !isDeepStrictEqual(own[key], before[key])
  return {
    ...own,
    onSpace: said('onSpace') ? own.onSpace : policy.onSpace,
    reserve: said('reserve') ? own.reserve : policy.reserve,
    readsSuspects: said('readsSuspects') ? own.readsSuspects : policy.readsSuspects,
    limits: said('limits') ? own.limits : policy.limits,
  }
}

/** The same state directory, or nothing that is stored there could be gone on with. @throws OpenError */
export function checkStateDirectory(moved: MovedServer, { stateDirectory }: Config): void {
  const own = stateDirectory === undefined ? undefined : resolve(stateDirectory)
  if (own === moved.stateDirectory) return
  const words = (path: string | undefined) => path ?? 'none'
  throw new OpenError(
    `the state directory is ${words(moved.stateDirectory)}, and ${words(own)} by the configuration: restart instead`,
  )
}

/** What a service goes on with. */
export interface TakerUp {
  readonly config: Config
  readonly desk: ExportDesk
  readonly directory: ExportDirectory
  readonly frontEnds: FrontEnds
  readonly log: Log
  readonly counters: Counters
  readonly pulse: Counters
}

export interface FurtherImages extends Pick<TakerUp, 'config' | 'desk' | 'directory'> {
  readonly folders: ImageFolders
}

/** Takes all exports and clients up, which are served when it resolves. @throws OpenError when the other process goes on */
export async function takeUp(predecessor: Predecessor, own: TakerUp): Promise<MovedServer> {
  const { config, desk, log } = own
  const served = await predecessor.introduce()
  const hosts = new Map(served.map(({ name, device }) => [name, desk.place(name, device)]))
  // Nobody is to wait for threads that start.
  await Promise.all([...hosts.values()].map((host) => host.ask({ command: 'exports' })))
  const moved = await predecessor.receive()
  checkStateDirectory(moved, config)
  const moving = new Map(moved.exports.map((each) => [each.config.name, each]))
  // In the order in which they were served, which decides what a client gets that asks for no name.
  const placed = [...hosts].flatMap(([name, host]) => {
    const each = moving.get(name)
    return each === undefined ? [] : [[host, configFor(each, config), each] as const]
  })
  if (placed.length < moving.size) throw new TypeError('exports were handed over of which nobody spoke before')
  await desk.takeOver(placed)
  addSections(SERVER_SECTIONS, moved.counters, own.counters)
  addSections(PULSE_SECTIONS, moved.pulse, own.pulse)
  const letGo = await predecessor.mayServe()
  serveClients(moved, own)
  if (!letGo) log.warn({}, 'the process that was to be taken over ended after it had handed everything over')
  return moved
}

/**
 * Exports of the configuration that the other process did not serve, and folders; one that cannot be opened is listed as
 * failed. They come when that process has left: until then they are not for this one to open, nor is anything to be kept
 * for it. @throws OpenError when a folder cannot be read, or the server stops
 */
export async function openFurther({ config, desk, directory, folders }: FurtherImages): Promise<void> {
  await desk.alone(async () => {
    for (const each of config.exports) {
      if (directory.holds(each.name)) continue
      try {
        await desk.add(each)
      } catch (error) {
        if (!(error instanceof OpenError)) throw error
        desk.fail(each, error.message)
      }
    }
  })
  await folders.open()
}

function serveClients(moved: MovedServer, { frontEnds, desk, directory }: TakerUp): void {
  frontEnds.nbd.goOn(moved)
  const connectionsOf = new Map<IoHost | undefined, MovedConnection[]>(desk.hosts.map((host) => [host, []]))
  for (const connection of moved.connections) {
    connectionsOf.get(directory.find(connection.exportName)?.host)?.push(connection)
  }
  for (const [host, connections] of connectionsOf) void host?.goOn(connections)
}

/** Listens where the other process did, and on further addresses of the configuration. Returns where. */
export async function listenOnward(
  moved: MovedServer,
  config: Config,
  frontEnds: FrontEnds,
  log: Log,
): Promise<ListenAddress[]> {
  const addresses: ListenAddress[] = []
  const listen = (opening: Promise<ListenAddress>) => toldUnless(log, async () => void addresses.push(await opening))
  for (const { fd, wanted } of moved.listeners) await listen(frontEnds.listenOnMoved(fd, wanted))
  for (const address of furtherAddresses(moved, config)) await listen(frontEnds.listen(address))
  return addresses
}

/** Does what the server can be without, and logs why where it cannot be done. */
export async function toldUnless(log: Log, act: () => Promise<void>): Promise<void> {
  try {
    await act()
  } catch (error) {
    if (!(error instanceof OpenError)) throw error
    log.error({ error: error.message }, error.message)
  }
}

/** Addresses of the configuration on which nobody listens yet. */
function furtherAddresses(moved: MovedServer, { listen, listensByDefault }: Config): ListenAddress[] {
  if (listensByDefault && moved.listeners.some(({ wanted }) => wanted.kind === 'inherited')) return []
  const known = moved.listeners.map(({ wanted }) => wanted)
  return listen.filter((address) => !known.some((wanted) => isDeepStrictEqual(wanted, address)))
}

/** The way to a process that stays, as it was handed over; undefined where there is none, or it leads nowhere. */
export function stubOf({ stubFd }: MovedServer, log: Log): Channel<ToSuccessor, ToPredecessor> | undefined {
  if (stubFd === undefined) return undefined
  try {
    const stub: Channel<ToSuccessor, ToPredecessor> = new Channel(stubFd)
    stub.onEnd = () => stub.close()
    return stub
  } catch (error) {
    if (!(error instanceof UnusableDescriptor)) throw error
    log.warn({ error: error.message }, 'the process that waits for the end of the service cannot be told who serves')
    return undefined
  }
}

/** A client whose handshake ended with the other process. */
export function welcome(nbd: NbdServer, { peer, since, established, leftover, fd }: LateGuest): void {
  nbd.welcome({ peer, since }, { established, leftover, fd })
}
