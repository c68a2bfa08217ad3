// Where a failed sync is stored when storing is hard: no state directory, a full one, a broken one, a damaged record.
// Law: what cannot be remembered is said, and what has to be remembered has its place from the start.
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { NBD_EIO } from 'nbd-protocol'
import { type RunningCandor, temporaryFolder } from '../support/candor.js'
import {
  attach,
  exportState,
  KIB,
  lastFirst,
  logged,
  MIB,
  refused,
  type Scope,
  serve,
  stamped,
} from '../support/faults.js'
import { mountLoopDisk, sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'
import {
  errorOf,
  evictFile,
  mountThinStack,
  readBack,
  suspectBytes,
  THIN_STACK_NEEDS,
  type ThinStack,
  writeBack,
  writeStamped,
} from '../support/thin-stack.js'

const skip = needsRoot(...THIN_STACK_NEEDS)
const NAME = 'disk.img'
const SIZE = 32 * MIB
const SAFE = 8 * MIB
const LOST = 8 * MIB

function scratch(scope: Scope): string {
  const folder = temporaryFolder()
  scope.after(() => folder.remove())
  return folder.path
}

/** What is written after SAFE bytes is lost, and FLUSH has said so. */
async function lose(candor: RunningCandor, stack: ThinStack): Promise<void> {
  const client = await attach(candor)
  await writeStamped(client, 0, SAFE)
  await client.flush()
  stack.exhaust()
  await writeStamped(client, SAFE, SAFE + LOST)
  await errorOf(client.flush())
}

async function assertLost(candor: RunningCandor, image: string): Promise<void> {
  evictFile(image)
  const client = await attach(candor)
  const { right, refused: lost, wrong } = await readBack(client, 0, SAFE + LOST)
  assert.deepEqual([right.length * MIB, lost.length * MIB, wrong], [SAFE, LOST, []])
  assert.equal(await suspectBytes(candor, NAME), LOST)
  assert.equal(await exportState(candor, NAME), 'degraded')
  await errorOf(client.flush())
}

function recordIn(folder: string): string {
  const [name, ...others] = readdirSync(folder).filter((entry) => /^image-[\w-]+$/.test(entry))
  assert.ok(name !== undefined && others.length === 0, `${readdirSync(folder)}`)
  return join(folder, name)
}

test('without a state directory the log says what is lost by it, and the truth holds as long as the server lives', {
  skip,
}, async (t) => {
  const scope = lastFirst(t)
  const stack = mountThinStack(scope)
  const image = sparseFile(join(stack.folder, NAME), SIZE)
  const candor = await serve(scope, [image, '--state-dir', 'none'])
  assert.equal(logged(candor, /without a state directory, .*suspect is forgotten at the end/).length, 1)
  await lose(candor, stack)
  await assertLost(candor, image)
  assert.equal((await candor.stop()).code, 2)
})

test('a failed sync is stored in a state directory that is full, and a server that is killed then is followed by one that knows', {
  skip,
}, async (t) => {
  const scope = lastFirst(t)
  const stack = mountThinStack(scope)
  const image = sparseFile(join(stack.folder, NAME), SIZE)
  const { folder, freeBytes } = mountLoopDisk(scope, { type: 'ext4', sizeMiB: 16 })
  const state = join(folder, 'state')
  const candor = await serve(scope, [image, '--state-dir', state])
  fill(join(folder, 'filler'))
  assert.equal(freeBytes(), 0)
  await lose(candor, stack)
  await assertLost(candor, image)
  candor.kill('SIGKILL')
  await candor.ended
  // Whoever syncs the file system takes the kernel's own memory of the failure away: then only the record tells.
  writeBack(stack)
  await assertLost(await serve(scope, [image, '--state-dir', state]), image)
})

function fill(path: string): void {
  for (;;) {
    try {
      writeFileSync(path, Buffer.alloc(4 * KIB), { flag: 'a' })
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC')
      return
    }
  }
}

test('when the record cannot be stored any more, every command of the export is answered with EIO, and the others go on', {
  skip,
}, async (t) => {
  const scope = lastFirst(t)
  const broken = mountThinStack(scope)
  const folder = scratch(scope)
  const [image, other] = [sparseFile(join(folder, NAME), SIZE), sparseFile(join(folder, 'other'), SIZE)]
  const candor = await serve(scope, [image, other, '--state-dir', join(broken.folder, 'state')])
  const client = await attach(candor)
  await writeStamped(client, 0, SIZE)
  await client.flush()
  broken.breakDown()
  truncateSync(image, SIZE - MIB)
  await refused(client.flush(), NBD_EIO)
  await refused(client.read(0, MIB), NBD_EIO)
  await refused(client.write(0, stamped(0, MIB)), NBD_EIO)
  await refused(client.trim(0, MIB), NBD_EIO)
  await refused(client.writeZeroes(0, MIB), NBD_EIO)
  await refused(client.flush(), NBD_EIO)
  assert.equal((await candor.metrics()).get(`candor_export_record_failed{export="${NAME}"}`), 1)
  const otherClient = await attach(candor.uris[1] ?? '')
  await otherClient.write(0, stamped(0, MIB))
  await otherClient.flush()
  assert.equal((await candor.stop()).code, 2)
})

test('a damaged record is set aside with a warning, and the image is taken for one that was not closed', {
  skip,
}, async (t) => {
  const scope = lastFirst(t)
  const state = scratch(scope)
  const image = sparseFile(join(scratch(scope), NAME), SIZE)
  const first = await serve(scope, [image, '--state-dir', state])
  const client = await attach(first)
  await writeStamped(client, 0, SAFE)
  assert.equal((await first.stop()).code, 0)
  const record = recordIn(state)
  damage(record)

  const candor = await serve(scope, [image, '--state-dir', state])
  assert.equal(logged(candor, /record of this image is damaged/).length, 1, candor.stderr())
  assert.equal(logged(candor, /^unclean end of export disk\.img/).length, 1, candor.stderr())
  assert.ok(existsSync(`${record}.damaged`))
  assert.equal((await candor.metrics()).get(`candor_export_unclean_end{export="${NAME}"}`), 1)
  assert.equal(await exportState(candor, NAME), 'ok')
  assert.equal((await readBack(await attach(candor), 0, SAFE)).right.length, SAFE / MIB)
  assert.equal((await candor.stop()).code, 0)
  const last = await serve(scope, [image, '--state-dir', state])
  assert.deepEqual(logged(last, /damaged|unclean/), [])
})

/** Overwrites what is written in text, and leaves the shadow. */
function damage(record: string): void {
  const bytes = readFileSync(record)
  for (let at = bytes.indexOf('{'); at !== -1; at = bytes.indexOf('{', at + 100)) bytes.fill('!', at, at + 100)
  writeFileSync(record, bytes)
}

test('a record that is damaged after a failed sync loses nothing of what may be lost', { skip }, async (t) => {
  const scope = lastFirst(t)
  const stack = mountThinStack(scope)
  const state = scratch(scope)
  const image = sparseFile(join(stack.folder, NAME), SIZE)
  const first = await serve(scope, [image, '--state-dir', state])
  await lose(first, stack)
  assert.equal((await first.stop()).code, 2)
  damage(recordIn(state))
  await assertLost(await serve(scope, [image, '--state-dir', state]), image)
})
