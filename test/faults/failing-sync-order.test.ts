// The kernel tells a failed write-back once for each open file description, to whichever sync asks first. Law: what that
// one heard goes for all that ran beside it, in whatever order their answers arrive.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NBD_CMD_FLAG_FUA } from 'nbd-protocol'
import { attach, exportState, KIB, lastFirst, MIB, serve, stamped } from '../support/faults.js'
import { needsRoot } from '../support/requirements.js'
import {
  errorOf,
  evictFile,
  mountThinStack,
  readBack,
  THIN_STACK_NEEDS,
  writeBack,
  writeStamped,
} from '../support/thin-stack.js'

const NAME = 'disk.img'
const SAFE = 16 * MIB
const LOST = 4 * MIB

/** A durable write is told late what it heard early, and an fdatasync that came after it asks before it is told. */
const DELAYS = ['-e', 'inject=pwritev2:delay_exit=900000', '-e', 'inject=fdatasync:delay_enter=300000']
const DELAYED = ['strace', '-D', '-f', '--seccomp-bpf', '-qq', '-o', '/dev/null', '-e', 'trace=pwritev2,fdatasync']

test('a FLUSH is not answered with success when the FUA write beside it was told of the error', {
  skip: needsRoot('strace', ...THIN_STACK_NEEDS),
}, async (t) => {
  const scope = lastFirst(t)
  const stack = mountThinStack(scope)
  const image = stack.provision(NAME, 32 * MIB)
  const candor = await serve(scope, [image], { wrapper: [...DELAYED, ...DELAYS] })
  const [client, other] = [await attach(candor), await attach(candor)]
  await writeStamped(client, 0, SAFE)
  await client.flush()
  stack.exhaust()
  await writeStamped(client, SAFE, SAFE + LOST)
  writeBack(stack)
  const write = errorOf(client.write(0, stamped(0, 4 * KIB), NBD_CMD_FLAG_FUA))
  await errorOf(other.flush())
  await write
  assert.equal(await exportState(candor, NAME), 'degraded')
  evictFile(image)
  assert.deepEqual((await readBack(client, SAFE, SAFE + LOST)).wrong, [], 'lost bytes were read as good')
})
