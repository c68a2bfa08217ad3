// What a shell offers behind the words that stand there already. yargs knows commands and options; here is what it cannot
// know: the actions of ctl, the exports of the running server, and that an image is a file, which the shell completes itself.
import { defaultStateDirectory } from '../config.js'
import { askServer } from './ask-server.js'
import { ACTIONS } from './ctl.js'

/** How the script that yargs prints for the shell asks. */
const REQUEST = '--get-yargs-completions'
/** Commands whose next word is an export. */
const ABOUT_EXPORTS: ReadonlySet<string> = new Set(['errors', 'map'])

async function exportNames(stateDirectory: string): Promise<string[]> {
  const reply = await askServer(stateDirectory, { command: 'exports' }).catch(() => undefined)
  if (reply === undefined || !reply.ok || !Array.isArray(reply.result)) return []
  return reply.result.map(({ name }: { name: string }) => name)
}

/** For a process that a shell has asked: its answers, or undefined for those that yargs knows. */
export async function completions([request, , ...line]: readonly string[]): Promise<string[] | undefined> {
  const current = line.at(-1) ?? ''
  if (request !== REQUEST || current.startsWith('-')) return undefined
  const at = line.indexOf('--state-dir')
  const stateDirectory = at === -1 ? defaultStateDirectory() : (line.splice(at, 2)[1] ?? '')
  const [command = '', ...rest] = line.filter((word) => !word.startsWith('-'))
  if (rest.length === 0) return undefined
  if (ABOUT_EXPORTS.has(command)) return exportNames(stateDirectory)
  if (command !== 'ctl') return []
  if (rest.length === 1) return Object.keys(ACTIONS)
  return ACTIONS[rest[0] ?? '']?.needs === 'the name of an export' ? exportNames(stateDirectory) : []
}
