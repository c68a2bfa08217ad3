// `candor ctl`: asks a running server, through the socket in its state directory.
import { defaultStateDirectory } from '../config.js'
import type { ExportSummary } from '../control/export-actions.js'
import { UsageError } from '../values.js'
import { askServer } from './ask-server.js'
import type { Command } from './command.js'
import { formatBytes } from './format.js'

interface CtlFlags {
  readonly action: string
  readonly name?: string
  readonly words?: readonly string[]
  readonly json?: boolean
  readonly 'state-dir'?: string
}

/** What can be asked, and what it takes. */
const ACTIONS: Readonly<Record<string, { readonly takesName: boolean }>> = {
  exports: { takesName: false },
  release: { takesName: true },
  resume: { takesName: true },
  forget: { takesName: true },
  inject: { takesName: true },
  'hold-release': { takesName: true },
  'hold-fail': { takesName: true },
}

function line({ name, size, readOnly, state, ...more }: ExportSummary): string {
  const { suspectBytes, suspectRanges, allocated, reserve, held, heldSince, releasedSince } = more
  const access = readOnly ? 'read-only' : 'writable'
  const suspect = suspectBytes === 0 ? '' : `, ${formatBytes(suspectBytes)} suspect in ${suspectRanges} ranges`
  const waiting = held === 0 ? '' : `, ${held} writes held for want of space since ${heldSince}`
  const space = `, ${formatBytes(allocated)} allocated${reserve === 0 ? '' : `, ${formatBytes(reserve)} in reserve`}`
  const released =
    releasedSince === undefined ? '' : `, released since ${releasedSince}: 'candor ctl resume ${name}' ends it`
  return `${name}: ${state}, ${formatBytes(size)}, ${access}${space}${suspect}${waiting}${released}`
}

async function run({ action, name, words, json, 'state-dir': given }: CtlFlags): Promise<number> {
  const rule = ACTIONS[action]
  if (rule === undefined) throw new UsageError(`ctl knows no '${action}': it knows ${Object.keys(ACTIONS).join(', ')}`)
  if (rule.takesName && name === undefined) throw new UsageError(`ctl ${action} needs the name of an export`)
  const request = { command: action, ...(name !== undefined && { name }), ...(words !== undefined && { words }) }
  const stateDirectory = given ?? defaultStateDirectory()
  const reply = await askServer(stateDirectory, request)
  if (reply === undefined) {
    throw new UsageError(`no candor answers in ${stateDirectory}: is it running, and with this --state-dir?`)
  }
  if (!reply.ok) throw new UsageError(reply.error)
  const exports = [reply.result].flat() as ExportSummary[]
  process.stdout.write(json ? `${JSON.stringify(reply.result, undefined, 2)}\n` : `${exports.map(line).join('\n')}\n`)
  return 0
}

export const ctl: Command<CtlFlags> = {
  words: 'ctl <action> [name] [words..]',
  describe: 'ask a running server: exports; release, resume, forget, inject, hold-release, hold-fail NAME',
  flags: (yargs) =>
    yargs
      .positional('action', { describe: Object.keys(ACTIONS).join(', '), type: 'string' })
      .positional('name', { describe: 'an export', type: 'string' })
      .positional('words', { describe: 'injection rules, or off', type: 'string', array: true })
      .options({
        json: { type: 'boolean', describe: 'for programs' },
        'state-dir': {
          type: 'string',
          requiresArg: true,
          describe: "the server's",
          defaultDescription: defaultStateDirectory(),
        },
      })
      .example('$0 ctl exports', 'every export and its state')
      .example('$0 ctl release disk.img', 'let go of the image, to unmount its file system; requests wait until resume')
      .example('$0 ctl resume disk.img', 'storage is good again: sync, and believe it if that succeeds')
      .example('$0 ctl inject disk.img write:ENOSPC@1G-2G', 'fail writes on purpose; off ends it')
      .example('$0 ctl forget disk.img', 'the image was restored from a backup: nothing of it is suspect'),
  run,
}
