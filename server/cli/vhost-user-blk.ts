// `candor vhost-user-blk`: one image for one guest, started by whoever runs the guest, in the words of vhost-user's "Backend
// program conventions". Law: it ends with SIGTERM, or with the guest whose connection it was given.
import { createHash } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { basename, join, resolve } from 'node:path'
import type { Argv, Options } from 'yargs'
import { type Config, configOf, defaultStateDirectory, type ServeFlags } from '../config.js'
import { startService } from '../service.js'
import { parseCount, socketPath, UsageError } from '../values.js'
import { listens } from '../vhost-user/inherited-socket.js'
import type { Command } from './command.js'
import { EXIT_CLEAN, EXIT_SYNC_FAILED } from './serve.js'
import { SERVE_OPTIONS } from './serve-options.js'

export interface BackEndFlags extends Omit<ServeFlags, 'images' | 'listen'> {
  readonly 'socket-path'?: string
  readonly fd?: string
  readonly 'blk-file'?: string
  readonly 'print-capabilities'?: boolean
}

/** VHostUserBackendCapabilities of QEMU's vhost-user.json. */
const CAPABILITIES = { type: 'block', features: ['read-only', 'blk-file'] }
const PRINT = '--print-capabilities'

/** Words of `candor serve` that mean the same here. */
const SHARED = ['state-dir', 'on-enospc', 'reserve', 'suspect-reads', 'http', 'io-engine', 'log-level'] as const

/** Where the default is another one. */
const DEFAULTS: Readonly<Record<string, Options>> = {
  http: { defaultDescription: 'off' },
  'state-dir': { defaultDescription: `a folder for the image in ${join(defaultStateDirectory(), 'vhost-user-blk')}` },
}

const word = { type: 'string', requiresArg: true } as const

function flags(yargs: Argv): Argv {
  // "Other options and arguments should be ignored."
  if (process.argv.includes(PRINT)) yargs.strict(false)
  return yargs
    .options({
      'socket-path': { ...word, describe: 'the Unix socket on which the guest is waited for' },
      fd: { ...word, describe: 'the same as a descriptor that was handed over, which listens or is connected' },
      'blk-file': { ...word, describe: 'the image or block device' },
      'read-only': { type: 'boolean', describe: 'refuse everything that writes' },
      'print-capabilities': { type: 'boolean', describe: 'print what this program can, as JSON, and end' },
    })
    .options(Object.fromEntries(SHARED.map((name) => [name, { ...SERVE_OPTIONS[name], ...DEFAULTS[name] }])))
    .example('$0 vhost-user-blk --socket-path /run/vm/disk.sock --blk-file disk.img', 'a disk for one guest')
}

interface Door {
  readonly path: string
  readonly fd?: number
}

/** The kernel's and libuv's own descriptors come before those that are handed over. */
function descriptor(text: string): number {
  const fd = parseCount(text, '--fd')
  if (fd > 2) return fd
  throw new UsageError(`--fd is '${text}': 0, 1 and 2 are input, output and errors; hand the socket over as another`)
}

function doorOf(flagsGiven: BackEndFlags): Door {
  const { 'socket-path': path, fd } = flagsGiven
  if (path !== undefined && fd !== undefined)
    throw new UsageError('--socket-path and --fd say the same: give one of them')
  if (fd !== undefined) return { path: `descriptor ${fd}`, fd: descriptor(fd) }
  if (path === undefined) throw new UsageError('no socket is given: --socket-path PATH, or --fd NUMBER')
  return { path: socketPath(path, '--socket-path') }
}

/** Several of these programs run beside each other, and beside a `candor serve`: each has a state directory of its own. */
function stateDirectoryOf(image: string): string {
  const name = createHash('sha256').update(resolve(image)).digest('hex').slice(0, 16)
  return join(defaultStateDirectory(), 'vhost-user-blk', name)
}

function configFor(flagsGiven: BackEndFlags, door: Door): Config {
  const image = flagsGiven['blk-file']
  if (image === undefined) throw new UsageError('no image is given: --blk-file PATH')
  const name = basename(image).replaceAll('=', '_')
  const { 'state-dir': stateDirectory = stateDirectoryOf(image), http = 'off' } = flagsGiven
  const serve = { ...flagsGiven, images: [`${name}=${image}`], listen: [], http, 'state-dir': stateDirectory }
  return { ...configOf(serve), listen: [{ kind: 'vhost-user', exportName: '', ...door }] }
}

async function run(flagsGiven: BackEndFlags): Promise<number> {
  if (flagsGiven['print-capabilities'] === true) {
    process.stdout.write(`${JSON.stringify(CAPABILITIES, undefined, 2)}\n`)
    return EXIT_CLEAN
  }
  const door = doorOf(flagsGiven)
  const isConnected = door.fd !== undefined && !listens(door.fd)
  const over = new EventEmitter()
  const ended = once(over, 'over')
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => over.emit('over'))
  const guestLeft = () => {
    if (isConnected) over.emit('over')
  }
  const service = await startService(configFor(flagsGiven, door), { guestLeft })
  await ended
  const { synced } = await service.stop()
  return synced ? EXIT_CLEAN : EXIT_SYNC_FAILED
}

export const vhostUserBlk: Command<BackEndFlags> = {
  words: 'vhost-user-blk',
  describe: "serve one image as a guest's disk, by the conventions of vhost-user back-ends",
  flags,
  run,
}
