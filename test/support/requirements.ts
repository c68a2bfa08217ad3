// What a test needs of the machine. Law: without it the test is skipped aloud; where CI is set a skip is a failure.
import { spawnSync } from 'node:child_process'

/** Whether this is `./test/run --all`, in which the long suites run and the others run longer. */
export const UNDER_ALL = process.env['CANDOR_TEST_ALL'] === '1'

function missing(program: string): boolean {
  return spawnSync('sh', ['-c', 'command -v "$1"', 'sh', program], { stdio: 'ignore' }).status !== 0
}

/** For `test(title, { skip }, …)`: false when everything is there, else why not. @throws where CI is set */
export function needs(...programs: readonly string[]): string | false {
  return because(programs.filter(missing).map((program) => `${program} is not installed`))
}

/** The same, and root: for mounts, quotas and devices. */
export function needsRoot(...programs: readonly string[]): string | false {
  const reasons = programs.filter(missing).map((program) => `${program} is not installed`)
  return because(process.getuid?.() === 0 ? reasons : ['needs root', ...reasons])
}

/** False under `./test/run --all`, else where the test is run: what takes long is no part of other runs, CI's included. */
export function onlyUnderAll(): string | false {
  return UNDER_ALL ? false : 'takes long, so that only ./test/run --all runs it'
}

/** False where CANDOR_TRIXIE names a folder with Debian 13, which `./test/run --all` makes where it is root. */
export function needsDebian13(): string | false {
  if (process.env['CANDOR_TRIXIE'] !== undefined) return false
  const reason = 'needs a folder with Debian 13, which ./test/run --all makes as root'
  return UNDER_ALL ? because([reason]) : reason
}

function because(reasons: readonly string[]): string | false {
  if (reasons.length === 0) return false
  const reason = reasons.join(', ')
  if (process.env['CI'] === 'true') throw new Error(`CI may not skip: ${reason}`)
  return reason
}
