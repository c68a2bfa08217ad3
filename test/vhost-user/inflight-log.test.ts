// The in-flight log's memory file, without a session. Law under test: what cannot be had is a sentence.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { test } from 'node:test'
import { InflightLog } from '../../server/vhost-user/inflight-log.js'
import { needs } from '../support/requirements.js'

/** Soft limit of open files for this process. */
const FILES_MAX = 256

/** Every descriptor that this process may have, but for none. */
function openAll(): number[] {
  const opened: number[] = []
  try {
    for (;;) opened.push(openSync('/dev/null', 'r'))
  } catch (error) {
    assert.match(String(error), /EMFILE/)
  }
  return opened
}

test('a log for which there is no descriptor left cannot be made, and says so', { skip: needs('prlimit') }, () => {
  const { status } = spawnSync('prlimit', ['--pid', String(process.pid), `--nofile=${FILES_MAX}:`])
  assert.equal(status, 0)
  const opened = openAll()
  const log = InflightLog.make(1, 128, false)
  for (const descriptor of opened) closeSync(descriptor)
  assert.match(String(log), /^an in-flight log of 1 rings cannot be made: no more files can be opened \(EMFILE\)/)
})
