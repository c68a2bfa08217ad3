// The same loss as other programs see it: copy tools that read from candor, and what other servers answer in its place.
// Law: a copy of an image that lost data fails; it is never a good-looking copy with zeroes in it.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Client } from 'nbd-protocol'
import { errorName, RequestError } from 'nbd-protocol'
import { temporaryFolder } from '../support/candor.js'
import { attach, lastFirst, MIB, type Scope, serve } from '../support/faults.js'
import { startNbdkit, startQemuNbd } from '../support/faults-peers.js'
import { sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'
import { errorOf, evictFile, mountThinStack, readBack, THIN_STACK_NEEDS, writeStamped } from '../support/thin-stack.js'

const SIZE = 192 * MIB
const SAFE = 16 * MIB
const LOST = 8 * MIB
const WRITTEN = SAFE + 150 * MIB

const COPIERS: readonly { readonly program: string; args(uri: string, copy: string): string[] }[] = [
  { program: 'nbdcopy', args: (uri, copy) => [uri, copy] },
  { program: 'qemu-img', args: (uri, copy) => ['convert', '-f', 'raw', '-O', 'raw', uri, copy] },
]

test('nbdcopy and qemu-img convert fail on an export with suspect bytes, rather than copy holes that are none', {
  skip: needsRoot('nbdcopy', 'qemu-img', ...THIN_STACK_NEEDS),
}, async (t) => {
  const scope = lastFirst(t)
  const stack = mountThinStack(scope)
  const image = sparseFile(join(stack.folder, 'disk.img'), SIZE)
  const folder = temporaryFolder()
  scope.after(() => folder.remove())
  const candor = await serve(scope, [image])
  const client = await attach(candor)
  const copy = () =>
    COPIERS.map(({ program, args }) => {
      const words = args(candor.uris[0] ?? '', join(folder.path, `${program}.raw`))
      const { status, stderr } = spawnSync(program, words, { encoding: 'utf8' })
      return { program, status, stderr }
    })
  await writeStamped(client, 0, SAFE)
  await client.flush()
  for (const { program, status, stderr } of copy())
    assert.equal(status, 0, `${program} copies what is sound: ${stderr}`)

  // None of it lands: the file system says of all of it that there is nothing, and a copy tool would not even read it.
  stack.exhaust()
  await writeStamped(client, SAFE, SAFE + LOST)
  await errorOf(client.flush())
  evictFile(image)
  for (const { program, status, stderr } of copy()) {
    assert.notEqual(status, 0, `${program} made a copy of what is lost`)
    assert.match(stderr, /Input\/output error/)
  }
})

interface Server {
  readonly name: string
  /** Serves `image` on a Unix socket, is ready when it resolves, and ends with the scope. Returns a URI. */
  start(scope: Scope, image: string, folder: string): string | Promise<string>
}

const SERVERS: readonly Server[] = [
  {
    name: 'candor',
    start: async (scope, image, folder) => (await serve(scope, [image, '--listen', `unix:${folder}/c`])).uris[0] ?? '',
  },
  { name: 'nbdkit', start: startNbdkit },
  { name: 'qemu-nbd', start: (scope, image, folder) => startQemuNbd(scope, image, folder, 'writeback') },
]

interface Row {
  readonly server: string
  readonly flushes: string
  readonly right: number
  readonly refused: number
  readonly wrong: number
}

async function flushed(client: Client): Promise<string> {
  return client.flush().then(
    () => 'success',
    (error: unknown) => {
      if (error instanceof RequestError) return errorName(error.error)
      throw error
    },
  )
}

async function tryServer(scope: Scope, { name, start }: Server): Promise<Row> {
  const stack = mountThinStack(scope)
  const image = sparseFile(join(stack.folder, 'disk.img'), SIZE)
  const folder = temporaryFolder()
  scope.after(() => folder.remove())
  const client = await attach(await start(scope, image, folder.path))
  await writeStamped(client, 0, SAFE)
  await client.flush()
  await writeStamped(client, SAFE, WRITTEN)
  const flushes = [await flushed(client), await flushed(client), await flushed(client)].join(', ')
  evictFile(image)
  const { right, refused, wrong } = await readBack(client, 0, WRITTEN)
  await client.abandon()
  return { server: name, flushes, right: right.length, refused: refused.length, wrong: wrong.length }
}

test('of candor, nbdkit and qemu-nbd, candor reads no lost byte as good, and does not take a failed FLUSH back', {
  skip: needsRoot('nbdkit', 'qemu-nbd', ...THIN_STACK_NEEDS),
}, async (t) => {
  const scope = lastFirst(t)
  const rows: Row[] = []
  for (const server of SERVERS) rows.push(await tryServer(scope, server))
  t.diagnostic('server: three FLUSHes; MiB that read right, refused, wrong')
  for (const { server, flushes, right, refused, wrong } of rows) {
    t.diagnostic(`${server}: ${flushes}; ${right}, ${refused}, ${wrong}`)
  }
  const [candor, ...peers] = rows
  assert.equal(candor?.wrong, 0)
  assert.ok(!candor.flushes.includes('success'), candor.flushes)
  // What makes this suite worth its time: where every server told the truth, the storage did not fail as it should.
  for (const { server, wrong } of peers) assert.ok(wrong > 0, `${server} read nothing wrong: did the storage fail?`)
})
