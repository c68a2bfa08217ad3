// The image that somebody truncates, removes or replaces while it is served. Law: nobody is told that all is well.
import assert from 'node:assert/strict'
import { linkSync, renameSync, rmSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type Client, NBD_CMD_FLAG_FUA, NBD_CMD_FLAG_NO_HOLE, NBD_EIO } from 'nbd-protocol'
import { type RunningCandor, temporaryFolder } from '../support/candor.js'
import {
  assertHolds,
  attach,
  errorsCounted,
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
import { sparseFile } from '../support/loop-disk.js'
import { needs } from '../support/requirements.js'

const skip = needs('setpriv')
const NAME = 'disk.img'
const SIZE = 16 * MIB

interface Feet {
  readonly image: string
  readonly folder: string
  readonly candor: RunningCandor
  readonly client: Client
}

/** Serves an image that is full of known data, all of it durable. */
async function standOn(scope: Scope): Promise<Feet> {
  const folder = temporaryFolder()
  scope.after(() => folder.remove())
  const image = sparseFile(join(folder.path, NAME), SIZE)
  const candor = await serve(scope, [image])
  const client = await attach(candor)
  await client.write(0, stamped(0, SIZE))
  await client.flush()
  return { image, folder: folder.path, candor, client }
}

async function suspectBytes(candor: RunningCandor): Promise<number | undefined> {
  return (await candor.metrics()).get(`candor_export_suspect_bytes{export="${NAME}"}`)
}

test('reads of what a truncation took away are errors, never zeroes, and what is left is read', { skip }, async (t) => {
  const { image, candor, client } = await standOn(lastFirst(t))
  const end = 8 * MIB + 5000
  truncateSync(image, end)
  await refused(client.read(12 * MIB, 4 * KIB), NBD_EIO)
  await refused(client.read(SIZE - 1, 1), NBD_EIO)
  await refused(client.read(end, 1), NBD_EIO)
  await refused(client.read(end - 1, 2), NBD_EIO)
  await refused(client.read(8 * MIB, MIB), NBD_EIO)
  await assertHolds(client, 0, 8 * MIB)
  assert.equal(Buffer.compare(await client.read(8 * MIB, 5000), stamped(8 * MIB, 8192).subarray(0, 5000)), 0)
  assert.equal(await errorsCounted(candor, { export: NAME, command: 'read', errno: 'EIO' }), 5)
})

test('after a truncation no FLUSH and no FUA succeeds on any connection, and the state says degraded, once', {
  skip,
}, async (t) => {
  const { image, candor, client } = await standOn(lastFirst(t))
  const other = await attach(candor)
  truncateSync(image, 8 * MIB)
  for (const each of [client, other, client, await attach(candor)]) {
    await refused(each.flush(), NBD_EIO)
    await refused(each.write(0, stamped(0, MIB, 1), NBD_CMD_FLAG_FUA), NBD_EIO)
    await refused(each.trim(0, MIB, NBD_CMD_FLAG_FUA), NBD_EIO)
    await refused(each.writeZeroes(0, MIB, NBD_CMD_FLAG_FUA), NBD_EIO)
  }
  await client.write(0, stamped(0, MIB, 2))
  await assertHolds(client, 0, MIB, 2)
  assert.equal(await exportState(candor, NAME), 'degraded')
  assert.equal(await suspectBytes(candor), 8 * MIB)
  assert.deepEqual(logged(candor, /is degraded/).length, 1, candor.stderr())
  assert.equal((await candor.stop()).code, 2)
})

test('a write past the end of a truncated image does not bring the rest back as zeroes; only what is rewritten reads again', {
  skip,
}, async (t) => {
  const { image, candor, client } = await standOn(lastFirst(t))
  truncateSync(image, 8 * MIB)
  await client.write(12 * MIB, stamped(12 * MIB, MIB, 1))
  assert.equal(await exportState(candor, NAME), 'degraded')
  assert.equal(await suspectBytes(candor), 7 * MIB)
  await assertHolds(client, 12 * MIB, MIB, 1)
  const { offset } = await refused(client.read(10 * MIB, MIB), NBD_EIO)
  assert.equal(offset, 10 * MIB, 'a structured error names the byte')
  await refused(client.read(7 * MIB, 2 * MIB), NBD_EIO)
  await refused(client.read(12 * MIB - 1, 2), NBD_EIO)
  await refused(client.read(13 * MIB - 1, 2), NBD_EIO)
  await refused(client.read(15 * MIB, MIB), NBD_EIO)

  // Clearing is exact, to the byte.
  await client.write(8 * MIB + 100, stamped(0, 200, 1))
  assert.equal(Buffer.compare(await client.read(8 * MIB + 100, 200), stamped(0, 200, 1)), 0)
  await refused(client.read(8 * MIB + 99, 1), NBD_EIO)
  await refused(client.read(8 * MIB + 300, 1), NBD_EIO)
  assert.equal(await suspectBytes(candor), 7 * MIB - 200)

  await client.write(8 * MIB, stamped(8 * MIB, 4 * MIB, 2))
  await client.write(13 * MIB, stamped(13 * MIB, 3 * MIB, 2))
  assert.equal(await suspectBytes(candor), 0)
  await assertHolds(client, 0, 8 * MIB)
  await assertHolds(client, 8 * MIB, 4 * MIB, 2)
  await assertHolds(client, 13 * MIB, 3 * MIB, 2)
  await refused(client.flush(), NBD_EIO)
})

test('zeroing what a truncation took away makes it readable again, or fails', { skip }, async (t) => {
  const { image, candor, client } = await standOn(lastFirst(t))
  truncateSync(image, 8 * MIB)
  for (const flags of [0, NBD_CMD_FLAG_NO_HOLE]) {
    await client.writeZeroes(12 * MIB, MIB, flags)
    assert.deepEqual(Buffer.from(await client.read(12 * MIB, MIB)), Buffer.alloc(MIB))
    await refused(client.read(11 * MIB, MIB), NBD_EIO)
    await refused(client.read(13 * MIB, MIB), NBD_EIO)
  }
  assert.equal(await suspectBytes(candor), 7 * MIB)
})

test('trimming what a truncation took away does not make it readable', { skip }, async (t) => {
  const { image, candor, client } = await standOn(lastFirst(t))
  truncateSync(image, 8 * MIB)
  await client.trim(8 * MIB, 4 * MIB)
  await refused(client.read(8 * MIB, MIB), NBD_EIO)
  assert.equal(await suspectBytes(candor), 8 * MIB)
})

test('an image truncated twice adds up, and the second time is seen too', { skip }, async (t) => {
  const { image, candor, client } = await standOn(lastFirst(t))
  truncateSync(image, 12 * MIB)
  await client.write(12 * MIB, stamped(12 * MIB, MIB, 1))
  assert.equal(await suspectBytes(candor), 3 * MIB)
  truncateSync(image, 6 * MIB)
  await client.write(12 * MIB, stamped(12 * MIB, MIB, 2))
  assert.equal(await suspectBytes(candor), 9 * MIB)
  await assertHolds(client, 0, 6 * MIB)
  await assertHolds(client, 12 * MIB, MIB, 2)
  await refused(client.read(6 * MIB, 1), NBD_EIO)
  await refused(client.read(11 * MIB, MIB), NBD_EIO)
})

test('a truncation that takes away what was rewritten after the first one is seen', { skip }, async (t) => {
  const { image, candor, client } = await standOn(lastFirst(t))
  truncateSync(image, 8 * MIB)
  await client.write(12 * MIB, stamped(12 * MIB, MIB, 1))
  truncateSync(image, 8 * MIB)
  await client.write(15 * MIB, stamped(15 * MIB, MIB, 1))
  await refused(client.read(12 * MIB, MIB), NBD_EIO)
  assert.equal(await suspectBytes(candor), 7 * MIB)
})

/** What makes an image undiscoverable under its name, and what still holds afterwards. */
const DETACHMENTS: readonly { readonly what: string; detach(feet: Feet): void }[] = [
  { what: 'removed', detach: ({ image }) => rmSync(image) },
  {
    what: 'replaced by another file that is renamed over it',
    detach: ({ image, folder }) => renameSync(sparseFile(join(folder, 'other'), SIZE), image),
  },
  {
    what: 'moved away, with a new file in its place',
    detach: ({ image, folder }) => {
      renameSync(image, join(folder, 'moved'))
      sparseFile(image, SIZE)
    },
  },
  { what: 'moved away', detach: ({ image, folder }) => renameSync(image, join(folder, 'moved')) },
  {
    what: 'removed while another hard link keeps it alive',
    detach: ({ image, folder }) => {
      linkSync(image, join(folder, 'link'))
      rmSync(image)
    },
  },
]

for (const { what, detach } of DETACHMENTS) {
  test(
    `an image that is ${what}: FLUSH and then FUA fail, the state is detached, and the log says so once`,
    {
      skip,
    },
    (t) => assertDetached(t, detach),
  )
}

async function assertDetached(t: TestContext, detach: (feet: Feet) => void): Promise<void> {
  const feet = await standOn(lastFirst(t))
  const { candor, client } = feet
  detach(feet)
  for (let count = 0; count < 3; count++) {
    await refused(client.flush(), NBD_EIO)
    await refused((await attach(candor)).flush(), NBD_EIO)
    await refused(client.write(0, stamped(0, MIB, 1), NBD_CMD_FLAG_FUA), NBD_EIO)
  }
  assert.equal(await exportState(candor, NAME), 'detached')
  assert.equal(logged(candor, /is detached/).length, 1, candor.stderr())
  assert.equal(await suspectBytes(candor), 0)
  await client.write(MIB, stamped(MIB, MIB, 2))
  await assertHolds(client, MIB, MIB, 2)
  await assertHolds(client, 2 * MIB, SIZE - 2 * MIB)
  const { code, stderr } = await candor.stop()
  assert.equal(code, 2)
  assert.match(stderr, /the final sync of export disk\.img failed/)
}

test('a removed image is noticed by the next write, without any FLUSH', { skip }, async (t) => {
  const { image, candor, client } = await standOn(lastFirst(t))
  rmSync(image)
  await client.write(0, stamped(0, MIB, 1))
  assert.equal(await exportState(candor, NAME), 'detached')
  await refused(client.write(0, stamped(0, MIB, 1), NBD_CMD_FLAG_FUA), NBD_EIO)
})

test('a FUA write to an image that was moved away is refused, also before any FLUSH', { skip }, async (t) => {
  const { image, folder, candor, client } = await standOn(lastFirst(t))
  renameSync(image, join(folder, 'moved'))
  sparseFile(image, SIZE)
  await refused(client.write(0, stamped(0, MIB, 1), NBD_CMD_FLAG_FUA), NBD_EIO)
  assert.equal(await exportState(candor, NAME), 'detached')
})
