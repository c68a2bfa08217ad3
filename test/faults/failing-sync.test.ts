// Syncs that the kernel itself fails: 150 MiB written to storage that holds 64. Law: the first FLUSH that fails is not
// the last one, and no lost byte is ever read as good.
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Client, NBD_CMD_FLAG_FUA, NBD_EIO, NBD_ENOSPC } from 'nbd-protocol'
import type { RunningCandor } from '../support/candor.js'
import {
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
import { mountLoopDisk, sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'
import {
  errorOf,
  evict,
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
const SIZE = 256 * MIB
/** What the client flushes with success, before it writes more than there is room for. */
const SAFE = 16 * MIB
const WRITTEN = SAFE + 150 * MIB

interface Thin {
  readonly stack: ThinStack
  readonly image: string
  readonly candor: RunningCandor
  readonly client: Client
}

async function serveThin(scope: Scope): Promise<Thin> {
  const stack = mountThinStack(scope)
  const image = sparseFile(join(stack.folder, NAME), SIZE)
  const candor = await serve(scope, [image])
  return { stack, image, candor, client: await attach(candor, { contexts: ['base:allocation'] }) }
}

/** The first SAFE bytes are durable; what follows is written, and cannot be. */
async function overfill({ client }: Thin): Promise<void> {
  await writeStamped(client, 0, SAFE)
  await client.flush()
  await writeStamped(client, SAFE, WRITTEN)
}

test('the first FLUSH that storage fails fails, and so does every later one, and FUA on every command, on old and new connections', {
  skip,
}, async (t) => {
  const thin = await serveThin(lastFirst(t))
  const { candor, client } = thin
  const old = await attach(candor)
  await overfill(thin)
  const told = await errorOf(client.flush())
  assert.ok([NBD_EIO, NBD_ENOSPC].includes(told), `FLUSH was answered with ${told}`)
  for (const each of [client, old, await attach(candor), await attach(`${candor.uris[0]}`, { replyStyle: 'simple' })]) {
    assert.equal(await errorOf(each.flush()), told)
    assert.equal(await errorOf(each.write(0, stamped(0, 4 * KIB), NBD_CMD_FLAG_FUA)), told)
    assert.equal(await errorOf(each.trim(200 * MIB, MIB, NBD_CMD_FLAG_FUA)), told)
    assert.equal(await errorOf(each.writeZeroes(200 * MIB, MIB, NBD_CMD_FLAG_FUA)), told)
  }
  assert.equal(await exportState(candor, NAME), 'degraded')
  const errno = told === NBD_EIO ? 'EIO' : 'ENOSPC'
  for (const [command, times] of [
    ['flush', 5],
    ['write', 4],
    ['trim', 4],
    ['write_zeroes', 4],
  ] as const) {
    assert.equal(await errorsCounted(candor, { export: NAME, command, errno }), times, command)
  }
  assert.equal(logged(candor, /^export disk\.img is degraded/).length, 1, candor.stderr())
})

test('after a failed sync and without the page cache each MiB reads as EIO or as it was written, and metrics count the suspect ones', {
  skip,
}, async (t) => {
  const thin = await serveThin(lastFirst(t))
  const { candor, client, image } = thin
  await overfill(thin)
  await errorOf(client.flush())
  for (const reader of [client, await attach(candor, { replyStyle: 'simple' })]) {
    evict(image)
    const { right, refused: lost, wrong } = await readBack(reader, 0, WRITTEN)
    assert.deepEqual(wrong, [], 'lost bytes were read as good')
    assert.deepEqual(right.slice(0, SAFE / MIB), (await readBack(reader, 0, SAFE)).right)
    assert.ok(right.length >= SAFE / MIB, 'what was flushed before is read as before')
    assert.equal(lost.length * MIB, await suspectBytes(candor, NAME))
    assert.ok(lost.length * MIB >= WRITTEN - 64 * MIB, `${lost.length} MiB are refused, of 64 that the pool can hold`)
  }
  await assertUnwritten(client)
  await assertStatusIsData(client)
})

/** What nobody wrote is read as ever. */
async function assertUnwritten(client: Client): Promise<void> {
  const bytes = await client.read(WRITTEN, 4 * MIB)
  assert.equal(Buffer.alloc(bytes.length).compare(bytes), 0)
}

/** BLOCK_STATUS: data as far as was written, although the file system calls a part of it a hole. */
async function assertStatusIsData(client: Client): Promise<void> {
  const descriptors = (await client.blockStatus(0, SIZE)).get('base:allocation') ?? []
  let at = 0
  for (const { length, flags } of descriptors) {
    assert.equal(flags, at < WRITTEN ? 0 : 3, `at ${at}`)
    at += Number(length)
    if (at > WRITTEN) assert.equal(at, SIZE)
  }
  assert.equal(at, SIZE)
}

test('a FUA write whose sync fails is answered with an error, and what was acknowledged with FUA before it is there', {
  skip,
}, async (t) => {
  const thin = await serveThin(lastFirst(t))
  const { candor, client, image } = thin
  const durable: number[] = []
  let told = 0
  for (let offset = 0; offset < WRITTEN && told === 0; offset += MIB) {
    const write = client.write(offset, stamped(offset, MIB), NBD_CMD_FLAG_FUA)
    await write.then(
      () => durable.push(offset),
      async () => {
        told = await errorOf(write)
      },
    )
  }
  assert.ok([NBD_EIO, NBD_ENOSPC].includes(told), `FUA was answered with ${told}`)
  assert.ok(durable.length > 40 && durable.length < 64, `${durable.length} MiB were acknowledged`)
  assert.equal(await exportState(candor, NAME), 'degraded')
  const failed = durable.length * MIB
  await errorOf(client.flush())
  await errorOf(client.write(0, stamped(0, MIB), NBD_CMD_FLAG_FUA))
  evict(image)
  await refused(client.read(failed, MIB), NBD_EIO)
  assert.deepEqual((await readBack(client, 0, failed)).right, durable)
  assert.equal(await suspectBytes(candor, NAME), MIB)
})

test('a FUA write into a hole of a full disk is ENOSPC and loses nothing: the export stays as it was, and FLUSH succeeds', {
  skip,
}, async (t) => {
  const scope = lastFirst(t)
  const disk = mountLoopDisk(scope, { type: 'ext4', sizeMiB: 200 })
  const image = sparseFile(join(disk.folder, NAME), SIZE)
  const candor = await serve(scope, [image])
  const client = await attach(candor)
  await writeStamped(client, 0, 8 * MIB)
  await client.flush()
  writeFileSync(join(disk.folder, 'filler'), Buffer.alloc(disk.freeBytes() - 2 * MIB))
  await client.write(0, stamped(0, MIB, 1))
  for (let count = 0; count < 3; count++) {
    await refused(client.write(64 * MIB, stamped(64 * MIB, 4 * MIB), NBD_CMD_FLAG_FUA), NBD_ENOSPC)
  }
  assert.equal(await exportState(candor, NAME), 'ok')
  await client.flush()
  await client.write(MIB, stamped(MIB, MIB, 1), NBD_CMD_FLAG_FUA)
  evict(image)
  assert.deepEqual((await readBack(client, 0, 2 * MIB, 1)).right, [0, MIB])
  assert.deepEqual((await readBack(client, 2 * MIB, 8 * MIB)).wrong, [])
  assert.equal(await suspectBytes(candor, NAME), 0)
  assert.equal((await candor.stop()).code, 0)
})

test('what is rewritten while storage still fails is suspect again when its own write-back has failed', {
  skip,
}, async (t) => {
  const thin = await serveThin(lastFirst(t))
  const { stack, candor, client, image } = thin
  await overfill(thin)
  await errorOf(client.flush())
  await writeStamped(client, WRITTEN - 32 * MIB, WRITTEN, 1)
  assert.deepEqual((await readBack(client, WRITTEN - 32 * MIB, WRITTEN, 1)).refused, [])
  writeBack(stack)
  evict(image)
  const { right, refused: lost, wrong } = await readBack(client, WRITTEN - 32 * MIB, WRITTEN, 1)
  assert.deepEqual(wrong, [], 'lost bytes were read as good')
  assert.deepEqual([right.length, lost.length], [0, 32])
  assert.equal(await suspectBytes(candor, NAME), WRITTEN - SAFE)
})
