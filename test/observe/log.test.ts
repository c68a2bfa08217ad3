// The lines of the log at the end of a process. Law: what was logged before the end is there, if anybody reads.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'

const LOG = new URL('../../server/observe/log.js', import.meta.url).href
/** The one thread that writes the log is busy when the last line comes, and when the log is closed. */
const ENDING = `
  import { pbkdf2 } from 'node:crypto'
  import { LogOutput } from '${LOG}'
  const output = new LogOutput('info')
  pbkdf2('', '', 500_000, 64, 'sha512', () => {})
  output.write({ level: 'info', details: {}, message: 'first' })
  output.write({ level: 'error', details: {}, message: 'last' })
  await Promise.all([output.close(), output.close()])
  output.level = 'debug'
  output.write({ level: 'info', details: {}, message: 'too late' })
  process.exit()
`

test('the last lines are written before the process ends, and a line that comes later harms nobody', () => {
  const env = { ...process.env, UV_THREADPOOL_SIZE: '1' }
  const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', ENDING], {
    env,
    encoding: 'utf8',
  })
  assert.equal(status, 0, stderr)
  const messages = stderr
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { readonly msg: string }).msg)
  assert.deepEqual(messages, ['first', 'last'])
})
