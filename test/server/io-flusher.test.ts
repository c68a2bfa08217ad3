// PR_SET_IO_FLUSHER, as the kernel shows it: the flags of each thread in /proc. A machine whose root has no CAP_SYS_RESOURCE
// shows only that candor serves all the same.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { temporaryFolder } from '../support/candor.js'
import { attach, serve } from '../support/faults.js'
import { needs } from '../support/requirements.js'

/** PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE, in the ninth field of stat (linux/sched.h). */
const FLUSHER = 0x0018_0000
const CAP_SYS_RESOURCE = 24n
const SAYS_SO = /"msg":"short memory makes no thread/

function flushersOf(pid: number): ReadonlyMap<string, boolean> {
  const flagsOf = (id: string) => {
    const stat = readFileSync(`/proc/${pid}/task/${id}/stat`, 'utf8')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[6])
  }
  return new Map(readdirSync(`/proc/${pid}/task`).map((id) => [id, (flagsOf(id) & FLUSHER) === FLUSHER]))
}

const capabilities = /^CapEff:\s+(\w+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]
const isAllowed = ((BigInt(`0x${capabilities}`) >> CAP_SYS_RESOURCE) & 1n) === 1n

test('the threads that do I/O stand out of the circle where that is allowed, and serve where it is not', {
  skip: needs('setpriv'),
}, async (t) => {
  const { path, remove } = temporaryFolder()
  t.after(remove)
  const candor = await serve(t, [`${path}/disk.img`, '--create', '64M', '--io-engine', 'pool'])
  const client = await attach(candor)
  await client.write(0, new Uint8Array(8 << 20).fill(1))
  await client.flush()
  const threads = flushersOf(candor.pid)
  assert.equal(threads.get(String(candor.pid)), isAllowed)
  // The main thread, the I/O thread, and its pool.
  const flushers = [...threads.values()].filter((isFlusher) => isFlusher).length
  assert.ok(isAllowed ? flushers >= 3 : flushers === 0, `${flushers} threads`)
  assert.equal(SAYS_SO.test(candor.stderr()), isAllowed)
})
