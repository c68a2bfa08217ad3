// fio's nbd engine across upgrades: somebody else's client writes at random, 32 at a time, and reads every block back with its
// check sum.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { imageAt, until } from '../support/controlled.js'
import { lastFirst, MIB } from '../support/faults.js'
import { startLineage } from '../support/lineage.js'
import { needs } from '../support/requirements.js'

const UPGRADES = 3
const SIZE_MIB = 64
/** Slow enough that the upgrades are over before it is. */
const RATE_IOPS = 1500

test('fio finds what it wrote at random while its server was replaced three times', {
  skip: needs('fio'),
}, async (t) => {
  const scope = lastFirst(t)
  const server = await startLineage(scope, (folder) => [`disk=${imageAt(join(folder, 'disk'), SIZE_MIB * MIB)}`])
  const words = [
    ...['--name=upgraded', '--ioengine=nbd', `--uri=${server.uri('disk')}`, '--thread', '--output-format=json'],
    ...['--rw=randwrite', '--bs=4k', '--iodepth=32', `--size=${SIZE_MIB}M`, `--rate_iops=${RATE_IOPS}`],
    ...['--verify=crc32c', '--verify_fatal=1', '--verify_dump=0', '--verify_state_save=0', '--verify_backlog=256'],
  ]
  const fio = spawn('fio', words, { stdio: ['ignore', 'pipe', 'pipe'] })
  scope.after(() => fio.kill('SIGKILL'))
  const [output, errors, ended] = [text(fio.stdout), text(fio.stderr), once(fio, 'close')]
  let [finished, during] = [false, 0]
  ended.then(() => {
    finished = true
  })
  const written = async () => (await server.candor.metrics()).get('candor_written_bytes_total{export="disk"}') ?? 0
  for (let upgrade = 0; upgrade < UPGRADES; upgrade++) {
    const before = await written()
    await until('writing', written, (bytes) => bytes > before || finished)
    await server.upgrade()
    if (!finished) during += 1
  }
  const [code] = await ended
  assert.equal(code, 0, await errors)
  const told = await output
  const { jobs } = JSON.parse(told.slice(told.indexOf('{'))) as {
    readonly jobs: readonly { readonly error: number; readonly write: { readonly io_bytes: number } }[]
  }
  assert.deepEqual([jobs[0]?.error, jobs[0]?.write.io_bytes], [0, SIZE_MIB * MIB])
  assert.ok(during > 0, 'fio was at work while the server was replaced')
  t.diagnostic(`${during} of ${UPGRADES} upgrades while fio worked`)
  assert.equal((await server.stop()).code, 0)
})
