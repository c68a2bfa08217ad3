// `candor ctl`: asks a running server, through the socket in its state directory.
import { resolve } from 'node:path'
import { defaultStateDirectory } from '../config.js'
import { EXPORT_FLAGS } from '../config-added.js'
import type { ControlRequest } from '../control/export-actions.js'
import { parseImage, UsageError } from '../values.js'
import { askServer } from './ask-server.js'
import type { Command } from './command.js'
import { inWords } from './ctl-table.js'
import { SERVE_OPTIONS } from './serve-options.js'

interface CtlFlags {
  readonly action: string
  readonly name?: string
  readonly words?: readonly string[]
  readonly json?: boolean
  readonly 'state-dir'?: string
}

/** What can be asked; what has to be named for it, and which words of `candor serve` it takes besides. */
interface Action {
  readonly needs?: 'the name of an export' | '[NAME=]IMAGE' | 'the ID of a session' | 'a level'
  readonly takes?: readonly string[]
}

const OF_EXPORT: Action = { needs: 'the name of an export' }
export const ACTIONS: Readonly<Record<string, Action>> = {
  exports: {},
  add: { needs: '[NAME=]IMAGE', takes: EXPORT_FLAGS },
  remove: { ...OF_EXPORT, takes: ['force'] },
  resize: { ...OF_EXPORT, takes: ['force'] },
  set: { ...OF_EXPORT, takes: ['on-enospc', 'reserve', 'suspect-reads'] },
  reload: {},
  sessions: {},
  disconnect: { needs: 'the ID of a session' },
  'log-level': { needs: 'a level' },
  release: OF_EXPORT,
  resume: OF_EXPORT,
  forget: OF_EXPORT,
  inject: OF_EXPORT,
  'hold-release': OF_EXPORT,
  'hold-fail': OF_EXPORT,
  upgrade: { takes: ['force'] },
}

const ASIDE: ReadonlySet<string> = new Set(['action', 'name', 'words', 'json', 'state-dir', '_', '$0'])

/** The options that were given; those that the action does not take are refused. */
function flagsFor(action: string, { takes = [] }: Action, given: CtlFlags): Readonly<Record<string, unknown>> {
  const flags = Object.entries(given).filter(([key, value]) => !ASIDE.has(key) && value !== undefined)
  for (const [key] of flags) {
    if (!takes.includes(key)) throw new UsageError(`ctl ${action} takes no --${key}`)
  }
  return Object.fromEntries(flags)
}

/** The server may have another working directory. */
function fromHere(image: string): string {
  const { name, path } = parseImage(image)
  return `${name}=${resolve(path)}`
}

function requestOf(given: CtlFlags): ControlRequest {
  const { action, name, words } = given
  const rule = ACTIONS[action]
  if (rule === undefined) throw new UsageError(`ctl knows no '${action}': it knows ${Object.keys(ACTIONS).join(', ')}`)
  if (rule.needs !== undefined && name === undefined) throw new UsageError(`ctl ${action} needs ${rule.needs}`)
  const flags = flagsFor(action, rule, given)
  const whom = name !== undefined && action === 'add' ? fromHere(name) : name
  return { command: action, flags, ...(whom !== undefined && { name: whom }), ...(words !== undefined && { words }) }
}

async function run(given: CtlFlags): Promise<number> {
  const { action, json } = given
  const request = requestOf(given)
  const stateDirectory = given['state-dir'] ?? defaultStateDirectory()
  const reply = await askServer(stateDirectory, request)
  if (reply === undefined) {
    throw new UsageError(`no candor answers in ${stateDirectory}: is it running, and with this --state-dir?`)
  }
  if (!reply.ok) throw new UsageError(reply.error)
  process.stdout.write(`${json ? JSON.stringify(reply.result, undefined, 2) : inWords(action, reply.result)}\n`)
  return 0
}

/** As `candor serve` describes them; here they are of one export. */
const exportOptions = Object.fromEntries(
  EXPORT_FLAGS.map((flag) => [flag, { ...SERVE_OPTIONS[flag], group: 'Of an export (add, set):' }]),
)

export const ctl: Command<CtlFlags> = {
  words: 'ctl <action> [name] [words..]',
  describe:
    'ask a running server: exports, sessions, reload, upgrade; add [NAME=]IMAGE; remove, set, resize, release, resume, forget, inject, hold-release, hold-fail NAME; disconnect ID; log-level LEVEL',
  flags: (yargs) =>
    yargs
      .positional('action', { describe: Object.keys(ACTIONS).join(', '), type: 'string' })
      .positional('name', { describe: 'an export; or an image, a session, a level', type: 'string' })
      .positional('words', { describe: 'injection rules, or off; a size', type: 'string', array: true })
      .options({
        ...exportOptions,
        force: {
          type: 'boolean',
          describe: 'remove, resize: end its connections first; upgrade: let guests go, who come again',
        },
        json: { type: 'boolean', describe: 'for programs' },
        'state-dir': {
          type: 'string',
          requiresArg: true,
          describe: "the server's",
          defaultDescription: defaultStateDirectory(),
        },
      })
      .example('$0 ctl exports', 'every export and its state')
      .example('$0 ctl add b=b.img --reserve 1G', 'one more export, while the server runs')
      .example('$0 ctl remove b', 'answer what is in flight, sync, and give the image back')
      .example('$0 ctl release disk.img', 'let go of the image, to unmount its file system; requests wait until resume')
      .example('$0 ctl resume disk.img', 'storage is good again: sync, and believe it if that succeeds')
      .example('$0 ctl inject disk.img write:ENOSPC@1G-2G', 'fail writes on purpose; off ends it')
      .example('$0 ctl forget disk.img', 'the image was restored from a backup: nothing of it is suspect'),
  run,
}
