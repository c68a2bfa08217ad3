// The manual page candor(1) in the language of man(7), made of what --help shows, so that neither tells what the other
// does not.
import type { Argv, Options, PositionalOptions } from 'yargs'
import { defaultStateDirectory } from '../config.js'
import { VERSION } from '../version.js'
import type { Command } from './command.js'
import { COMMANDS } from './commands.js'

interface Described {
  readonly positionals: (readonly [string, PositionalOptions])[]
  readonly options: (readonly [string, Options])[]
  readonly examples: (readonly [string, string])[]
}

/** What a command tells yargs of itself. */
function described({ flags }: Command<never>): Described {
  const told: Described = { positionals: [], options: [], examples: [] }
  const recorder = {
    positional: (name: string, options: PositionalOptions) => add(told.positionals, [name, options]),
    option: (name: string, options: Options) => add(told.options, [name, options]),
    options: (all: Readonly<Record<string, Options>>) => add(told.options, ...Object.entries(all)),
    example: (words: string, what: string) => add(told.examples, [words, what]),
  }
  function add<Entry>(list: Entry[], ...entries: Entry[]): typeof recorder {
    list.push(...entries)
    return recorder
  }
  flags(recorder as unknown as Argv)
  return told
}

/** Text as roff takes it: a hyphen that is typed, no quotes that it would curl, no line that begins as a request. */
function text(words: string): string {
  const escaped = words.replaceAll('\\', '\\e').replaceAll('-', '\\-').replaceAll("'", '\\(aq').replaceAll('`', '\\(ga')
  return escaped.replace(/^\./gm, '\\&.')
}

const strong = (words: string): string => `\\fB${text(words)}\\fP`
const slanted = (words: string): string => `\\fI${text(words)}\\fP`

function sentence(words: string): string {
  const whole = words.charAt(0).toUpperCase() + words.slice(1)
  return text(whole.endsWith('.') ? whole : `${whole}.`)
}

/** `serve [images..]`: what is typed strong, what stands for something slanted. */
function synopsis(words: string): string {
  return words
    .split(' ')
    .map((word) => {
      const [, open = '', name = word, more = '', close = ''] = /^([<[])(\w+)(\.\.)?([>\]])$/.exec(word) ?? []
      if (open === '') return strong(word)
      const shown = slanted(name.toUpperCase()) + (more === '' ? '' : ' ...')
      return open === '<' ? shown : `${open}${shown}${close}`
    })
    .join(' ')
}

function defaultOf({ defaultDescription }: Options): string {
  if (defaultDescription === undefined) return ''
  const own = defaultDescription === defaultStateDirectory()
  return ` Default: ${own ? text('/var/lib/candor for root, else candor in $XDG_STATE_HOME') : text(defaultDescription)}.`
}

function option(name: string, options: Options): string[] {
  const isFlag = options.type === 'boolean'
  const argument = options.choices === undefined ? 'WORD' : options.choices.join('|')
  const tag = isFlag ? strong(`--${name}`) : `${strong(`--${name}`)} ${slanted(argument)}`
  return ['.TP', tag, `${sentence(options.describe ?? '')}${defaultOf(options)}`]
}

function section(command: Command<never>): string[] {
  const { positionals, options, examples } = described(command)
  const groups = new Map<string, [string, Options][]>()
  for (const [name, rule] of options) {
    const group = rule.group ?? ''
    groups.set(group, [...(groups.get(group) ?? []), [name, rule]])
  }
  return [
    `.SS candor ${synopsis(command.words)}`,
    sentence(command.describe),
    ...positionals.flatMap(([name, rule]) => ['.TP', slanted(name.toUpperCase()), sentence(rule.describe ?? '')]),
    ...[...groups].flatMap(([group, rules]) => [
      ...(group === '' ? [] : ['.PP', strong(group)]),
      ...rules.flatMap(([name, rule]) => option(name, rule)),
    ]),
    ...examples.flatMap(([words, what]) => [
      '.PP',
      sentence(what),
      '.PP',
      '.in +4n',
      '.nf',
      text(words.replace('$0', 'candor')),
      '.fi',
      '.in',
    ]),
  ]
}

const DESCRIPTION = [
  'candor exports disk images and block devices over the Network Block Device protocol. What the host refuses is answered',
  'with its errno, never with success; what a failed sync may have lost reads as an error until it is written again; every',
  'error is counted, located and logged.',
]

const AFTER: Readonly<Record<string, readonly (readonly [string, string])[]>> = {
  'EXIT STATUS': [
    ['0', 'all went well; a server synced all that it was given'],
    ['1', 'a mistake of whoever called, told in one sentence'],
    ['2', 'a final sync failed, or was not waited for'],
  ],
  SIGNALS: [
    [
      'SIGTERM, SIGINT',
      'answer what is in flight, sync every image, and end; the second one ends at once, without the sync',
    ],
    ['SIGHUP', 'read the configuration file again'],
    ['SIGUSR2', 'hand everything to a new process, as candor ctl upgrade does'],
  ],
  FILES: [
    [
      '/var/lib/candor',
      'what must outlive a server of root: a record and a ledger for each image, and the socket of candor ctl',
    ],
    ['$XDG_STATE_HOME/candor', 'the same for any other user; ~/.local/state/candor where the variable is not set'],
  ],
}

/** The whole page. Without a date, so that the same sources make the same page. */
export function manualPage(): string {
  const after = Object.entries(AFTER).flatMap(([title, entries]) => [
    `.SH ${title}`,
    ...entries.flatMap(([tag, what]) => ['.TP', strong(tag), sentence(what)]),
  ])
  const lines = [
    `.TH CANDOR 1 "" "candor ${VERSION}" "User Commands"`,
    '.SH NAME',
    text('candor - NBD server for sparse disk images that tells the guest the truth'),
    '.SH SYNOPSIS',
    ...COMMANDS.flatMap(({ words }) => [`${strong('candor')} ${synopsis(words)}`, '.br']).slice(0, -1),
    '.SH DESCRIPTION',
    ...DESCRIPTION.map(text),
    '.PP',
    text('Sizes are bytes, or 64K, 10M, 1G, 2T in powers of 1024; times are 500ms, 10s or 10m.'),
    '.SH COMMANDS',
    ...COMMANDS.flatMap(section),
    '.SS candor completion',
    text('Print what bash or zsh needs to complete these words: source <(candor completion).'),
    ...after,
    '.SH SEE ALSO',
    `${strong('nbd-client')}(8), ${strong('nbdinfo')}(1), ${strong('qemu-nbd')}(8)`,
  ]
  return `${lines.join('\n')}\n`
}
