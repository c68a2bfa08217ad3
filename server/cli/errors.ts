// `candor errors`: what failed on an export, and where, from the ledger in the state directory.
import { defaultStateDirectory } from '../config.js'
import { type LedgerEntry, ledgerPath, readLedger } from '../state/ledger.js'
import { UsageError } from '../values.js'
import { askServer } from './ask-server.js'
import type { Command } from './command.js'
import { formatBytes, formatSectors } from './format.js'

interface ErrorsFlags {
  readonly name: string
  readonly json?: boolean
  readonly 'state-dir'?: string
}

function line({ time, client, command, offset, length, errno, count }: LedgerEntry): string {
  const where = length === 0 ? '' : ` at ${offset}, ${formatBytes(length)} (${formatSectors(offset, length)})`
  return `${time}  ${command}${where}: ${errno}, ${count} request${count === 1 ? '' : 's'} of ${client}`
}

function read(path: string): ReturnType<typeof readLedger> {
  try {
    return readLedger(path)
  } catch (error) {
    throw new UsageError(`${path} cannot be read (${(error as Error).message}): mend it, or move it away`)
  }
}

/** What a running server knows of and has not written yet, which takes it up to a second. */
async function unwritten(
  stateDirectory: string,
  name: string,
  written: readonly LedgerEntry[],
): Promise<LedgerEntry[]> {
  const reply = await askServer(stateDirectory, { command: 'errors', name }).catch(() => undefined)
  if (reply === undefined || !reply.ok) return []
  const known = new Set(written.map((entry) => JSON.stringify(entry)))
  return (reply.result as LedgerEntry[]).filter((entry) => !known.has(JSON.stringify(entry)))
}

async function run({ name, json, 'state-dir': given }: ErrorsFlags): Promise<number> {
  const stateDirectory = given ?? defaultStateDirectory()
  const path = ledgerPath(stateDirectory, name)
  const { entries: written, damaged } = read(path)
  const entries = [...written, ...(await unwritten(stateDirectory, name, written))]
  if (damaged > 0) process.stderr.write(`candor: ${damaged} damaged lines of ${path} are left out\n`)
  if (json) process.stdout.write(`${JSON.stringify(entries, undefined, 2)}\n`)
  else if (entries.length === 0) process.stdout.write(`no request failed on '${name}', as far as ${path} knows\n`)
  else process.stdout.write(`${entries.map(line).join('\n')}\n`)
  return 0
}

export const errors: Command<ErrorsFlags> = {
  words: 'errors <name>',
  describe: 'show which requests failed on an export, and where',
  flags: (yargs) =>
    yargs.positional('name', { describe: 'an export', type: 'string' }).options({
      json: { type: 'boolean', describe: 'for programs' },
      'state-dir': {
        type: 'string',
        requiresArg: true,
        describe: "the server's",
        defaultDescription: defaultStateDirectory(),
      },
    }),
  run,
}
