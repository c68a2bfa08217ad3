// The manual page: what --help tells, no more and no less, in a form that man takes without a warning.
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { COMMANDS } from '../../server/cli/commands.js'
import { manualPage } from '../../server/cli/manual.js'
import { runCandor, temporaryFolder } from '../support/candor.js'
import { needs } from '../support/requirements.js'

/** Of every command, and of all of them alike: these have no entries of their own. */
const EVERYWHERE = new Set(['--help', '--version'])

function flagsIn(text: string, pattern: RegExp): string[] {
  return [...new Set([...text.matchAll(pattern)].map((match) => match[1] ?? ''))].filter(
    (flag) => !EVERYWHERE.has(flag),
  )
}

test('the page has every command with every option that its --help shows, and no others', async () => {
  const sections = manualPage()
    .replaceAll('\\-', '-')
    .split(/^\.S[SH] /m)
  const { stdout: all } = await runCandor(['--help'])
  const commands = [...all.matchAll(/^ {2}candor ([\w-]+)/gm)].map((match) => match[1])
  assert.deepEqual(commands.sort(), [...COMMANDS.map(({ words }) => words.split(' ')[0]), 'completion'].sort())
  for (const { words } of COMMANDS) {
    const [name = ''] = words.split(' ')
    const section = sections.find((text) => text.startsWith(`candor \\fB${name}\\fP`)) ?? ''
    const { stdout } = await runCandor([name, '--help'])
    const shown = flagsIn(stdout, /^ +(--[a-z-]+)/gm)
    assert.ok(shown.length > 0 || name === 'create', name)
    assert.deepEqual(flagsIn(section, /^\\fB(--[a-z-]+)\\fP/gm).sort(), shown.sort(), name)
  }
})

test('man shows it without a warning, and with what roff might take for its own', {
  skip: needs('man', 'groff'),
}, (t) => {
  const { path, remove } = temporaryFolder()
  t.after(remove)
  const page = join(path, 'candor.1')
  writeFileSync(page, manualPage())
  const linted = spawnSync('groff', ['-man', '-Tutf8', '-ww', '-z', page], { encoding: 'utf8' })
  assert.deepEqual([linted.status, linted.stdout, linted.stderr], [0, '', ''])
  const env = { ...process.env, MANWIDTH: '1000', MAN_KEEP_FORMATTING: '', LC_ALL: 'C.UTF-8' }
  const shown = execFileSync('man', ['--warnings', '-l', page], {
    encoding: 'utf8',
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  for (const words of ['candor ctl resume disk.img', "The server's.", 'write:ENOSPC@1G-2G', 'EXIT STATUS']) {
    assert.ok(shown.includes(words), words)
  }
})
