// A failing sync on file systems that then fail themselves: ext4 that aborts its journal and becomes read-only, XFS that
// goes on, XFS that shuts down. Law: the operator's way back keeps every connection, and gives no lost byte back.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type Client, NBD_CMD_FLAG_FUA, NBD_EIO, NBD_ENOSPC } from 'nbd-protocol'
import { type RunningCandor, temporaryFolder } from '../support/candor.js'
import {
  attach,
  command,
  exportState,
  KIB,
  lastFirst,
  logged,
  MIB,
  type Scope,
  serve,
  stamped,
} from '../support/faults.js'
import { run, sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'
import {
  errorOf,
  evict,
  mountThinStack,
  readBack,
  type StackKind,
  suspectBytes,
  THIN_STACK_NEEDS,
  type ThinStack,
  writeBack,
  writeStamped,
} from '../support/thin-stack.js'

const skip = needsRoot('nbdcopy', 'qemu-img', 'mkfs.xfs', 'xfs_io', 'e2fsck', ...THIN_STACK_NEEDS)
const NAME = 'disk.img'
const SIZE = 48 * MIB
const SAFE = 8 * MIB
const LOST = 16 * MIB
const WRITTEN = SAFE + LOST

interface Kind {
  readonly what: string
  readonly kind: StackKind
  /** The file system does not outlive the failure, and has to be mounted anew. */
  readonly givesUp: boolean
}

const KINDS: readonly Kind[] = [
  { what: 'ext4 that aborts its journal', kind: 'ext4 with a journal', givesUp: true },
  { what: 'XFS that goes on', kind: 'xfs', givesUp: false },
  { what: 'XFS that shuts down', kind: 'xfs', givesUp: true },
]

interface Scene {
  readonly scope: Scope
  readonly stack: ThinStack
  readonly image: string
  readonly folder: string
  start(): Promise<{ readonly candor: RunningCandor; readonly client: Client }>
  ctl(...words: readonly string[]): ReturnType<typeof command>
}

function setScene(t: TestContext, kind: StackKind): Scene {
  const scope = lastFirst(t)
  const { path: folder, remove } = temporaryFolder()
  scope.after(remove)
  const stack = mountThinStack(scope, kind)
  const image = sparseFile(join(stack.folder, NAME), SIZE)
  const state = join(folder, 'state')
  const start = async () => {
    const candor = await serve(scope, [image, '--state-dir', state])
    return { candor, client: await attach(candor) }
  }
  return { scope, stack, image, folder, start, ctl: (...words) => command(['ctl', ...words, '--state-dir', state]) }
}

/** SAFE bytes are durable; what follows is acknowledged, and there is no room for it. */
async function overfill({ stack }: Scene, client: Client): Promise<void> {
  await writeStamped(client, 0, SAFE)
  await client.flush()
  stack.exhaust()
  await writeStamped(client, SAFE, WRITTEN)
}

/** The two ways in which a client hears of it. Each returns the error. */
const HEARD: readonly { readonly by: string; hear(client: Client): Promise<number> }[] = [
  { by: 'FLUSH', hear: (client) => errorOf(client.flush()) },
  { by: 'a FUA write', hear: (client) => errorOf(client.write(SAFE, stamped(SAFE, MIB), NBD_CMD_FLAG_FUA)) },
]

/** Neither FLUSH nor FUA succeeds any more, on whichever connection. */
async function assertUntrusted(candor: RunningCandor, clients: readonly Client[], told: number): Promise<void> {
  assert.ok([NBD_EIO, NBD_ENOSPC].includes(told), `it was answered with ${told}`)
  for (const client of [...clients, await attach(candor)]) {
    assert.equal(await errorOf(client.flush()), told)
    assert.equal(await errorOf(client.write(0, stamped(0, 4 * KIB), NBD_CMD_FLAG_FUA)), told)
  }
  assert.equal(await exportState(candor, NAME), 'degraded')
}

/** What was lost is refused, and all the rest is right. */
async function assertSuspect({ image }: Scene, candor: RunningCandor, client: Client): Promise<void> {
  evict(image)
  const { right, refused, wrong } = await readBack(client, 0, WRITTEN)
  assert.deepEqual(wrong, [], 'lost bytes were read as good')
  assert.deepEqual([right.length * MIB, refused.length * MIB], [SAFE, LOST])
  assert.equal(await suspectBytes(candor, NAME), LOST)
}

async function assertWell({ image }: Scene, candor: RunningCandor, client: Client): Promise<void> {
  evict(image)
  assert.equal((await readBack(client, 0, SAFE)).right.length * MIB, SAFE)
  assert.equal((await readBack(client, SAFE, WRITTEN, 1)).right.length * MIB, LOST)
  assert.equal(await exportState(candor, NAME), 'ok')
  assert.equal(await suspectBytes(candor, NAME), 0)
}

function assertNotCopied({ folder }: Scene, uri: string): void {
  const copies = [
    ['nbdcopy', uri, join(folder, 'nbdcopy.raw')],
    ['qemu-img', 'convert', '-f', 'raw', '-O', 'raw', uri, join(folder, 'qemu-img.raw')],
  ]
  for (const [program = '', ...args] of copies) {
    const { status, stderr } = spawnSync(program, args, { encoding: 'utf8' })
    assert.notEqual(status, 0, `${program} made a copy of what is lost`)
    assert.match(stderr, /Input\/output error/)
  }
}

/** The steps of docs/errors.md, while clients stay attached; some of them ask meanwhile. */
async function mountAnew(scene: Scene, kind: StackKind, client: Client): Promise<void> {
  const { stack, ctl } = scene
  assert.throws(() => stack.unmount(), /busy/)
  if (kind !== 'xfs') assert.throws(() => run('mount', '-o', 'remount,rw', stack.folder))
  const released = await ctl('release', NAME)
  assert.equal(released.code, 0, released.stderr)
  assert.match(
    released.stdout,
    /^disk\.img: degraded, .*, released since \S+: 'candor ctl resume disk\.img' ends it\n$/,
  )
  const [read, write] = [client.read(0, MIB), client.write(SAFE, stamped(SAFE, MIB))]
  stack.unmount()
  const tooEarly = await ctl('resume', NAME)
  assert.equal(tooEarly.code, 1)
  assert.match(
    tooEarly.stderr,
    /^candor: export disk\.img is still released: there is no image at \S+: mount [^\n]+\n$/,
  )
  stack.enlarge(256)
  // 1: it has mended something.
  if (kind !== 'xfs') assert.ok((spawnSync('e2fsck', ['-p', stack.disk]).status ?? 9) <= 1)
  stack.mount()
  const resumed = await ctl('resume', NAME)
  assert.equal(resumed.code, 0, resumed.stderr)
  assert.match(resumed.stdout, /^disk\.img: ok, 48 MiB, writable, .*1[56] MiB suspect in \d ranges\n$/)
  assert.equal(stamped(0, MIB).compare(await read), 0)
  await write
}

async function enlargeAndResume({ stack, ctl }: Scene): Promise<void> {
  stack.enlarge(256)
  const first = await ctl('resume', NAME)
  if (first.code === 0) return
  // Write-back that failed before is told once more; what it is about is suspect by now.
  assert.match(first.stderr, /its sync fails with (ENOSPC|EIO); mend the storage, then ask again/)
  const second = await ctl('resume', NAME)
  assert.equal(second.code, 0, second.stderr)
}

for (const { what, kind, givesUp } of KINDS) {
  for (const { by, hear } of HEARD) {
    test(`${what}: the loss that ${by} tells of is never taken back, until the operator and the client have mended it`, {
      skip,
    }, async (t) => {
      const scene = setScene(t, kind)
      const { candor, client } = await scene.start()
      const other = await attach(candor)
      await overfill(scene, client)
      await assertUntrusted(candor, [client, other], await hear(client))
      if (givesUp) await scene.stack.giveUp()
      // A file system that is shut down reads nothing at all.
      if (givesUp && kind === 'xfs') assert.deepEqual((await readBack(client, 0, WRITTEN)).wrong, [])
      else await assertSuspect(scene, candor, client)
      assertNotCopied(scene, candor.uris[0] ?? '')
      if (givesUp) {
        assert.equal((await scene.ctl('resume', NAME)).code, 1)
        await mountAnew(scene, kind, client)
      } else {
        await enlargeAndResume(scene)
        await assertSuspect(scene, candor, client)
      }
      await writeStamped(client, SAFE, WRITTEN, 1)
      await client.flush()
      await other.flush()
      await assertWell(scene, candor, other)
      assert.equal((await candor.stop()).code, 0)
      scene.stack.remount()
      const next = await scene.start()
      assert.deepEqual(logged(next.candor, /unclean|suspect/), [])
      await assertWell(scene, next.candor, next.client)
    })
  }
}

for (const kind of ['ext4 with a journal', 'xfs'] as const) {
  test(`${kind}: reads after write-back failed, before any FLUSH, are EIO or what was written, never old data`, {
    skip,
  }, async (t) => {
    const scene = setScene(t, kind)
    const { candor, client } = await scene.start()
    await overfill(scene, client)
    writeBack(scene.stack)
    evict(scene.image)
    // A journal that was aborted before the data were written keeps them in memory, where nothing can take them away.
    assert.deepEqual((await readBack(client, 0, WRITTEN)).wrong, [], 'lost bytes were read as good')
    await assertUntrusted(candor, [client], await errorOf(client.flush()))
    await assertSuspect(scene, candor, client)
    assert.equal((await candor.stop()).code, 2)
  })

  test(`${kind}: what a killed server had not synced, and storage then refuses, is suspect for the next one`, {
    skip,
  }, async (t) => {
    const scene = setScene(t, kind)
    const first = await scene.start()
    await overfill(scene, first.client)
    first.candor.kill('SIGKILL')
    await first.candor.ended
    evict(scene.image)
    const { candor, client } = await scene.start()
    assert.equal(logged(candor, /^unclean end of export disk\.img/).length, 1)
    await assertSuspect(scene, candor, client)
    await assertUntrusted(candor, [client], await errorOf(client.flush()))
  })
}
