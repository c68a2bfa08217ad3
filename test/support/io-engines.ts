// Which I/O engines there are to test. Law: the product says it, in `candor serve --help`; no list of the tests' own.
import { execFileSync } from 'node:child_process'
import { CANDOR_MAIN } from './candor.js'

/** The choices of `--io-engine` but for `auto`, which is one of the others; none where there is no such flag. */
export function enginesIn(help: string): readonly string[] {
  const told = /^ *--io-engine\b(?:(?!^ *--)[\s\S])*/m.exec(help)?.[0]
  if (told === undefined) return []
  const choices = /\[choices: ([^\]]*)\]/.exec(told)?.[1]
  const names = [...(choices ?? '').matchAll(/"([^"]+)"/g)].map((match) => match[1] ?? '')
  if (names.length === 0) throw new Error(`candor serve --help names no choices of --io-engine:\n${help}`)
  return names.filter((name) => name !== 'auto')
}

export function ioEngines(): readonly string[] {
  return enginesIn(execFileSync(process.execPath, [CANDOR_MAIN, 'serve', '--help'], { encoding: 'utf8' }))
}
