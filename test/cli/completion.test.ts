// Completion in a real bash, at a terminal, with the Tab key.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { CANDOR_MAIN, temporaryFolder } from '../support/candor.js'
import { serve } from '../support/faults.js'
import { needs } from '../support/requirements.js'

const TAB = '\t'

/** What is typed, and the line that bash makes of it. */
const CASES: readonly (readonly [typed: string, line: string])[] = [
  [`candor cre${TAB}`, 'candor create'],
  [`candor serve disk.img --detect-z${TAB}`, 'candor serve disk.img --detect-zeroes'],
  [`candor serve disk.img --tls-ver${TAB}`, 'candor serve disk.img --tls-verify-client'],
  [`candor serve only-one-${TAB}`, 'candor serve only-one-image.img'],
  [`candor ctl disc${TAB}`, 'candor ctl disconnect'],
  [`candor ctl --state-dir state resume my-${TAB}`, 'candor ctl --state-dir state resume my-export'],
  [`candor map --state-dir state my-${TAB}`, 'candor map --state-dir state my-export'],
  [`candor info --js${TAB}`, 'candor info --json'],
]

test('Tab completes commands, options, files, the actions of ctl, and the exports of a running server', {
  skip: needs('bash', 'script'),
}, async (t) => {
  const { path, remove } = temporaryFolder()
  t.after(remove)
  writeFileSync(join(path, 'only-one-image.img'), '')
  const wrapper = `#!/bin/sh\necho asked >/dev/tty\nexec ${process.execPath} ${CANDOR_MAIN} "$@"\n`
  writeFileSync(join(path, 'candor'), wrapper, { mode: 0o755 })
  writeFileSync(join(path, 'rc'), 'PS1="> "\nbind "set enable-bracketed-paste off"\nsource <(candor completion)\n')
  const state = ['--state-dir', join(path, 'state')]
  await serve(t, [`my-export=${path}/d.img`, '--create', '1M', '--listen', `unix:${path}/nbd`, ...state])
  assert.deepEqual(
    await atTerminal(path),
    CASES.map(([, line]) => line),
  )
})

/** Types each case, waits until the shell has asked candor, and has the line printed in place of being run. */
async function atTerminal(cwd: string): Promise<string[]> {
  const env = { ...process.env, PATH: `${cwd}:${process.env['PATH']}`, SHELL: '/bin/bash', TERM: 'dumb' }
  const shell = spawn('script', ['-qec', 'bash --noprofile --rcfile rc -i', '/dev/null'], { cwd, env, stdio: 'pipe' })
  let output = ''
  shell.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
  })
  const until = async (pattern: RegExp, times: number) => {
    while ((output.match(pattern) ?? []).length < times) await once(shell.stdout, 'data')
  }
  // The first question is that of the start.
  await until(/^> /gm, 1)
  for (const [at, [typed]] of CASES.entries()) {
    shell.stdin.write(typed)
    await until(/asked\r/g, at + 2)
    shell.stdin.write('\x01echo "<\x05>"\n')
    await until(/^<.*>\r$/gm, at + 1)
  }
  shell.stdin.write('exit\n')
  await once(shell, 'close')
  return [...output.matchAll(/^<(.*?) ?>\r?$/gm)].map((match) => match[1] ?? '')
}
