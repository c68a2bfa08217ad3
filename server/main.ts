#!/usr/bin/env node
// The start of everything: words to a command, a command to an exit code. The only process.exit.
import yargs, { type Argv } from 'yargs'
import { hideBin } from 'yargs/helpers'
import { OpenError } from '../backends/index.js'
import type { Command } from './cli/command.js'
import { COMMANDS } from './cli/commands.js'
import { completions } from './cli/completion.js'
import { UsageError } from './values.js'
import { VERSION } from './version.js'

const EXIT_MISTAKE = 1
/** Flags and positionals that may be given several times; `_` holds yargs's own rest. */
const REPEATABLE: ReadonlySet<string> = new Set([
  '_',
  'images',
  'words',
  'listen',
  'dir',
  'inject',
  'http-name',
  'reserve',
  'read-only-export',
  'create',
  'on-enospc',
  'suspect-reads',
  'detect-zeroes',
  'writers',
  'allow-clients',
  'allow-subjects',
])

/** Flags that are there or not. */
const BOOLEANS: ReadonlySet<string> = new Set([
  'read-only',
  'check',
  'force',
  'print-capabilities',
  'tls-verify-client',
  'json',
  'map',
  'list',
  'size',
  'help',
  'version',
])

let exitCode = 0

function add<Flags>(parser: Argv, { words, describe, flags, run }: Command<Flags>): Argv {
  return parser.command(words, describe, flags, async (argv) => {
    refuseRepeated(argv)
    exitCode = await run(argv as unknown as Flags)
  })
}

/** yargs makes an array of an option that was given twice, which only those that may be repeated expect. */
function refuseRepeated(argv: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(argv)) {
    if (!Array.isArray(value) || REPEATABLE.has(name)) continue
    throw new UsageError(`--${name} is given more than once: give it once, or start a second server`)
  }
}

/** yargs takes `--read-only=maybe` for false, and would serve writable what was meant to be read only. */
function refuseOddBooleans(args: readonly string[]): void {
  for (const arg of args) {
    const [, name, value] = /^--(?:no-)?([a-z-]+)=(.*)$/.exec(arg) ?? []
    if (name === undefined || !BOOLEANS.has(name) || value === 'true' || value === 'false') continue
    throw new UsageError(`--${name} is '${value}': write --${name} alone, or leave it out`)
  }
}

function fail(message: string | undefined, error: Error | undefined): never {
  if (error !== undefined && error.name !== 'YError') throw error
  throw new UsageError(
    `${plain(error?.message ?? message ?? 'the command line is not understood')}: see 'candor --help'`,
  )
}

/** yargs's own words for the commonest mistakes, said so that they name the thing. */
function plain(message: string): string {
  const [, unknown] = /^Unknown (?:argument|command)s?: (.*)$/.exec(message) ?? []
  if (unknown !== undefined) return `there is no option, command or argument '${unknown}'`
  const [, got, needed] = /^Not enough non-option arguments: got (\d+), need at least (\d+)/.exec(message) ?? []
  return got === undefined ? message : `${needed} arguments are needed, and ${got} given`
}

function parser(): Argv {
  const all = yargs(hideBin(process.argv))
    .scriptName('candor')
    .usage('$0 <command>\n\nAn NBD server for sparse disk images that tells the guest the truth.')
    .version(VERSION)
    .strict()
    .demandCommand(1, 'no command is given')
    .recommendCommands()
    .parserConfiguration({ 'camel-case-expansion': false })
    .completion('completion', 'print what bash or zsh needs to complete these words')
    .wrap(Math.min(120, process.stdout.columns ?? 120))
    .exitProcess(false)
    .fail(fail)
  return COMMANDS.reduce<Argv>(add, all)
}

try {
  const words = hideBin(process.argv)
  const completed = await completions(words)
  if (completed === undefined) {
    refuseOddBooleans(words)
    await parser().parseAsync()
  } else process.stdout.write(completed.map((word) => `${word}\n`).join(''))
} catch (error) {
  if (!(error instanceof OpenError || error instanceof UsageError)) throw error
  process.stderr.write(`candor: ${error.message.replace(/\s*\n\s*/g, ' ')}\n`)
  exitCode = EXIT_MISTAKE
}
process.exit(exitCode)
