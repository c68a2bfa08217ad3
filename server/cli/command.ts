// What a command of `candor` is: its words, its flags, and what it does. It returns the exit code.
import type { Argv } from 'yargs'

export interface Command<Flags> {
  /** As yargs takes it: the command and its positionals. */
  readonly words: string
  readonly describe: string
  readonly flags: (yargs: Argv) => Argv
  readonly run: (flags: Flags) => Promise<number>
}
