// Write-back that fails before anybody asked for a sync. Law: the export finds out by itself, and in the time before it
// has, no read tells the old data either.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { type Client, NBD_EIO, NBD_ENOSPC } from 'nbd-protocol'
import type { RunningCandor } from '../support/candor.js'
import { attach, exportState, lastFirst, logged, MIB, type Scope, serve } from '../support/faults.js'
import { sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'
import {
  errorOf,
  evictFile,
  fillCache,
  mountThinStack,
  readBack,
  suspectBytes,
  THIN_STACK_NEEDS,
  type ThinStack,
  writeBack,
  writeStamped,
} from '../support/thin-stack.js'
import { hurryWriteBack } from '../support/write-back-pace.js'

const skip = needsRoot(...THIN_STACK_NEEDS)
const NAME = 'disk.img'
const SIZE = 64 * MIB
const SAFE = 16 * MIB
const MUCH = 32 * MIB
/** Lost, and read, well within the second after which the server asks by itself. */
const LITTLE = 4 * MIB
/** The kernel's own pace is 30 s; the hurried one a fraction of a second. */
const WRITE_BACK_TIMEOUT_MS = 40_000

/** The two ways in which lost data is missing: a hole of the file, and blocks that hold what was there before. */
const IMAGES: readonly { readonly what: string; make(stack: ThinStack): string }[] = [
  { what: 'a sparse image', make: (stack) => sparseFile(join(stack.folder, NAME), SIZE) },
  { what: 'an image on blocks that were given out before', make: (stack) => stack.provision(NAME, SIZE) },
]

interface Thin {
  readonly stack: ThinStack
  readonly image: string
  readonly candor: RunningCandor
  readonly client: Client
}

/** The first SAFE bytes are durable; `length` more are acknowledged and nothing else, and there is no room for them. */
async function overfill(scope: Scope, make: (stack: ThinStack) => string, length: number): Promise<Thin> {
  const stack = mountThinStack(scope)
  const image = make(stack)
  const candor = await serve(scope, [image])
  const client = await attach(candor)
  await writeStamped(client, 0, SAFE)
  await client.flush()
  stack.exhaust()
  await writeStamped(client, SAFE, SAFE + length)
  return { stack, image, candor, client }
}

async function untilDegraded(candor: RunningCandor): Promise<void> {
  const deadline = performance.now() + WRITE_BACK_TIMEOUT_MS
  while ((await exportState(candor, NAME)) !== 'degraded') {
    assert.ok(performance.now() < deadline, 'write-back did not fail, or nobody noticed')
    await pause(50)
  }
}

for (const { what, make } of IMAGES) {
  test(`${what}: when the kernel's own write-back fails, the export degrades before any FLUSH, and reads are EIO, never old data`, {
    skip,
  }, async (t) => {
    const scope = lastFirst(t)
    const { image, candor, client } = await overfill(scope, make, MUCH)
    hurryWriteBack()
    await untilDegraded(candor)
    evictFile(image)
    const { right, refused, wrong } = await readBack(client, 0, SAFE + MUCH)
    assert.deepEqual(wrong, [], 'lost bytes were read as good')
    assert.deepEqual([right.length * MIB, refused.length * MIB], [SAFE, MUCH])
    assert.equal(await suspectBytes(candor, NAME), MUCH)
    assert.ok([NBD_EIO, NBD_ENOSPC].includes(await errorOf(client.flush())))
    assert.equal((await candor.stop()).code, 2)
    assert.equal(logged(candor, /is degraded: write-back failed/).length, 1, candor.stderr())
  })

  test(`${what}: reads right after write-back failed, from a cache that is empty, are EIO, never old data`, {
    skip,
  }, async (t) => {
    const { stack, image, candor, client } = await overfill(lastFirst(t), make, LITTLE)
    writeBack(stack)
    evictFile(image)
    const { right, refused, wrong } = await readBack(client, SAFE, SAFE + LITTLE)
    assert.deepEqual(wrong, [], 'lost bytes were read as good')
    assert.deepEqual([right.length, refused.length], [0, LITTLE / MIB])
    assert.equal(await exportState(candor, NAME), 'degraded')
  })

  test(`${what}: nor are they when somebody else's reads have filled the cache with the old data again`, {
    skip,
  }, async (t) => {
    const { stack, image, client } = await overfill(lastFirst(t), make, LITTLE)
    writeBack(stack)
    evictFile(image)
    fillCache(image)
    assert.deepEqual((await readBack(client, SAFE, SAFE + LITTLE)).wrong, [], 'lost bytes were read as good')
  })
}
