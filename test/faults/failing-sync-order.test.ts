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

const TRACED = ['strace', '-D', '-f', '--seccomp-bpf', '-qq', '-o', '/dev/null', '-e', 'trace=pwritev2,fdatasync']

for (const [who, other, delays] of [
  // A durable write is told late what it heard early, and an fdatasync that came after it asks before it is told.
  ['a FLUSH', 'the FUA write', ['inject=pwritev2:delay_exit=900000', 'inject=fdatasync:delay_enter=300000']],
  // The other way round, and soon: once a second the export asks by itself whether write-back has failed.
  ['a FUA write', 'the FLUSH', ['inject=fdatasync:delay_exit=1500000', 'inject=pwritev2:delay_enter=100000']],
] as const) {
  test(`${who} is not answered with success, and clears nothing, when ${other} beside it was told of the error`, {
    skip: needsRoot('strace', ...THIN_STACK_NEEDS),
  }, async (t) => {
    const scope = lastFirst(t)
    const stack = mountThinStack(scope)
    const image = stack.provision(NAME, 32 * MIB)
    const candor = await serve(scope, [image], { wrapper: [...TRACED, ...delays.flatMap((delay) => ['-e', delay])] })
    const [client, flusher] = [await attach(candor), await attach(candor)]
    await writeStamped(client, 0, SAFE)
    await client.flush()
    stack.exhaust()
    await writeStamped(client, SAFE, SAFE + LOST)
    writeBack(stack)
    const write = errorOf(client.write(0, stamped(0, 4 * KIB, 1), NBD_CMD_FLAG_FUA))
    await Promise.all([write, errorOf(flusher.flush())])
    assert.equal(await exportState(candor, NAME), 'degraded')
    // Once a second the export asks by itself: when that told it of the failure first, the write was refused, and never made.
    const found = await client.read(0, 4 * KIB).catch(() => undefined)
    if (found !== undefined) assert.equal(stamped(0, 4 * KIB).compare(found), 0, 'a write that failed reads as good')
    evictFile(image)
    assert.deepEqual((await readBack(client, SAFE, SAFE + LOST)).wrong, [], 'lost bytes were read as good')
  })
}
