// A power cut: the disk under a mounted file system is copied at one moment, while clients go on writing, and the copy
// is mounted. Law: what was acknowledged before an acknowledged FLUSH, on any connection, is in the copy.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type Client, NBD_CMD_FLAG_FUA } from 'nbd-protocol'
import { type StartOptions, temporaryFolder } from '../support/candor.js'
import { attach, KIB, lastFirst, MIB, type Scope, serve, stamped } from '../support/faults.js'
import { startQemuNbd } from '../support/faults-peers.js'
import { kernelKnows, mountFile, mountLoopDisk, run, sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'

const skip =
  needsRoot('mkfs.ext4', 'mkfs.xfs', 'losetup', 'setpriv') ||
  (!kernelKnows('xfs') && 'this kernel has no XFS, which copies a file at one moment')

const SIZE = 256 * MIB
const SLOT = 256 * KIB
const FLUSHED_AT_ONCE = 4 * MIB
const CUTS = 3

interface Machine {
  readonly scope: Scope
  readonly image: string
  /** Copies the disk as it is at one moment, and resolves with the image as it is found in the copy. */
  cut(): Promise<string>
}

/** An image on ext4 (with its journal) in a file on XFS. */
function buildMachine(t: TestContext): Machine {
  const scope = lastFirst(t)
  const { folder } = mountLoopDisk(scope, { type: 'xfs', sizeMiB: 1024 })
  const disk = sparseFile(join(folder, 'disk'), SIZE + 64 * MIB)
  run('mkfs.ext4', '-q', '-F', '-m', '0', disk)
  const mounted = mountFile(scope, 'ext4', disk)
  const image = sparseFile(join(mounted.folder, 'disk.img'), SIZE)
  run('sync', '--file-system', mounted.folder)
  let cuts = 0
  const cut = async () => {
    const copy = join(folder, `copy-${cuts++}`)
    const [code] = await once(spawn('cp', ['--reflink=always', disk, copy]), 'close')
    assert.equal(code, 0)
    scope.after(() => unlinkSync(copy))
    return join(mountFile(scope, 'ext4', copy).folder, 'disk.img')
  }
  return { scope, image, cut }
}

/** Writes slot after slot, each once, and keeps a list of what was acknowledged. */
class Writer {
  readonly acknowledged: number[] = []
  readonly #client: Client
  #next: number
  readonly #end: number
  #stopped = false

  constructor(client: Client, start: number, end: number) {
    this.#client = client
    this.#next = start
    this.#end = end
  }

  async write(bytes: number, flags = 0): Promise<void> {
    for (let end = this.#next + bytes; this.#next < Math.min(end, this.#end); ) {
      const offset = this.#next
      this.#next += SLOT
      await this.#client.write(offset, stamped(offset, SLOT), flags)
      this.acknowledged.push(offset)
    }
  }

  /** Writes until it is stopped, or has no more slots. */
  async goOn(): Promise<void> {
    while (!this.#stopped && this.#next < this.#end) await this.write(SLOT)
  }

  stop(): void {
    this.#stopped = true
  }
}

/** Slots that are not in the image as they were written. */
function missingFrom(image: string, slots: readonly number[]): number[] {
  const fd = openSync(image, 'r')
  const bytes = Buffer.alloc(SLOT)
  const missing = slots.filter((offset) => {
    const length = readSync(fd, bytes, 0, SLOT, offset)
    return length < SLOT || stamped(offset, SLOT).compare(bytes) !== 0
  })
  closeSync(fd)
  return missing
}

interface Cut {
  readonly promised: number
  readonly missing: number
}

/** Cuts the power at acknowledged FLUSHes, and once behind FUA writes, with another client writing all the while. */
async function cutPower(machine: Machine, uri: string): Promise<Cut[]> {
  const client = await attach(uri)
  const writer = new Writer(client, 0, SIZE / 2)
  const other = new Writer(await attach(uri), SIZE / 2, SIZE)
  const load = other.goOn()
  const cuts: Cut[] = []
  for (let count = 0; count < CUTS; count++) {
    await writer.write(FLUSHED_AT_ONCE)
    const promised = [...writer.acknowledged, ...other.acknowledged]
    await client.flush()
    const missing = missingFrom(await machine.cut(), promised)
    cuts.push({ promised: promised.length, missing: missing.length })
  }
  const before = writer.acknowledged.length
  await writer.write(MIB, NBD_CMD_FLAG_FUA)
  const durable = writer.acknowledged.slice(before)
  const missing = missingFrom(await machine.cut(), durable)
  cuts.push({ promised: durable.length, missing: missing.length })
  other.stop()
  await load
  return cuts
}

async function cutCandor(machine: Machine, options: StartOptions = {}): Promise<Cut[]> {
  const candor = await serve(machine.scope, [machine.image], options)
  return cutPower(machine, candor.uris[0] ?? '')
}

test('what was acknowledged before an acknowledged FLUSH or with FUA, on any connection, outlives a power cut', {
  skip,
}, async (t) => {
  const cuts = await cutCandor(buildMachine(t))
  for (const { promised, missing } of cuts) {
    assert.ok(promised >= MIB / SLOT)
    assert.equal(missing, 0)
  }
  t.diagnostic(`slots of ${SLOT / KIB} KiB that had to be there: ${cuts.map(({ promised }) => promised).join(', ')}`)
})

/** Not all of it has to be lost: the kernel writes back when it likes. */
function assertLost(cuts: readonly Cut[]): void {
  assert.ok(
    cuts.some(({ missing }) => missing > 0),
    'nothing is missing although nothing was synced',
  )
}

test('the cut is one: a server that ignores FLUSH (qemu-nbd --cache=unsafe) has lost what it acknowledged', {
  skip: skip || needsRoot('qemu-nbd'),
}, async (t) => {
  const machine = buildMachine(t)
  const folder = temporaryFolder()
  machine.scope.after(() => folder.remove())
  const uri = await startQemuNbd(machine.scope, machine.image, folder.path, 'unsafe')
  assertLost(await cutPower(machine, uri))
})

test('the cut is one: candor, with a kernel that calls fdatasync done without doing it, has lost what it acknowledged', {
  skip: skip || needsRoot('strace'),
}, async (t) => {
  const lie = ['-e', 'trace=fdatasync', '-e', 'inject=fdatasync:retval=0']
  const wrapper = ['strace', '-D', '-f', '--seccomp-bpf', '-qq', '-o', '/dev/null', ...lie]
  const cuts = await cutCandor(buildMachine(t), { wrapper })
  assertLost(cuts.slice(0, CUTS))
})
