// `candor map` on real storage: a full disk, writes that are held, and a sync that fails; with a server and without.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { NBD_EIO, NBD_ENOSPC, RequestError } from 'nbd-protocol'
import {
  CELL_DATA,
  CELL_FAILED,
  CELL_HELD,
  CELL_HOLE,
  CELL_SUSPECT,
  type DiskMap,
} from '../../server/exports/disk-map.js'
import { CANDOR_MAIN, temporaryFolder } from '../support/candor.js'
import { attach, command, lastFirst, MIB, refused, type Scope, serve, stamped } from '../support/faults.js'
import { mountLoopDisk, run, sparseFile } from '../support/loop-disk.js'
import { needs, needsRoot } from '../support/requirements.js'
import { errorOf, mountThinStack, THIN_STACK_NEEDS, writeStamped } from '../support/thin-stack.js'

const DISK_MIB = 64
const IMAGE_MIB = 256

function stateFolder(t: TestContext): { readonly scope: Scope; readonly state: string } {
  const scope = lastFirst(t)
  const folder = temporaryFolder()
  scope.after(() => folder.remove())
  return { scope, state: join(folder.path, 'state') }
}

async function mapOf(state: string, ...words: readonly string[]): Promise<DiskMap> {
  const { code, stdout, stderr } = await command(['map', 'disk', '--json', '--state-dir', state, ...words])
  assert.equal(code, 0, stderr)
  return JSON.parse(stdout) as DiskMap
}

/** The cells that have a bit, as numbers. */
function withBit({ cells }: DiskMap, bit: number): number[] {
  return [...cells.keys()].filter((index) => ((cells[index] ?? 0) & bit) !== 0)
}

test('the map of a full disk shows where data is and where writes failed, and says the same when the server is gone', {
  skip: needsRoot('mkfs.ext4', 'losetup', 'setpriv'),
}, async (t) => {
  const { scope, state } = stateFolder(t)
  const disk = mountLoopDisk(scope, { type: 'ext4', sizeMiB: DISK_MIB })
  const image = sparseFile(join(disk.folder, 'whatever.img'), IMAGE_MIB * MIB)
  const candor = await serve(scope, [`disk=${image}`, '--state-dir', state])
  const client = await attach(candor)
  const failed: number[] = []
  for (let at = 0; at < IMAGE_MIB / 2; at++) {
    const told = await client.write(at * MIB, stamped(at * MIB, MIB)).catch((error: unknown) => error)
    if (told instanceof RequestError && told.error === NBD_ENOSPC) failed.push(at)
    else assert.equal(told, undefined)
  }
  assert.ok(failed.length > 32, `${failed.length} writes failed`)
  const words = ['--cells', String(IMAGE_MIB)]
  const running = await mapOf(state, ...words)
  assert.deepEqual([running.size, running.cellBytes, running.exact], [IMAGE_MIB * MIB, MIB, true])
  assert.deepEqual(withBit(running, CELL_FAILED), failed)
  const written = Array.from({ length: IMAGE_MIB / 2 }, (_, at) => at).filter((at) => !failed.includes(at))
  for (const at of written) assert.equal(running.cells[at], CELL_DATA, `cell ${at}`)
  assert.equal(running.cells[IMAGE_MIB - 1], CELL_HOLE)

  const first = failed[0] ?? 0
  const near = await mapOf(state, '--from', `${first * MIB - 1024}`, '--to', `${first * MIB + 1024}`, '--cells', '64')
  assert.deepEqual([near.cellBytes, withBit(near, CELL_FAILED)], [512, [2, 3]])
  assert.ok(near.ranges.some(({ errno, command: what }) => errno === 'ENOSPC' && what === 'write'))

  const picture = await command(['map', 'disk', '--state-dir', state])
  assert.match(picture.stdout, /X requests failed/)
  assert.doesNotMatch(picture.stdout, /no server/)
  assert.equal((await candor.stop()).code, 0)
  const alone = await mapOf(state, ...words)
  assert.deepEqual(alone.cells, running.cells)
  assert.match((await command(['map', 'disk', '--state-dir', state])).stdout, /no server is asked/)
})

test('the map shows writes that are held for want of space, and since when', {
  skip: needsRoot('mkfs.ext4', 'losetup', 'setpriv'),
}, async (t) => {
  const { scope, state } = stateFolder(t)
  const disk = mountLoopDisk(scope, { type: 'ext4', sizeMiB: DISK_MIB })
  const image = sparseFile(join(disk.folder, 'disk.img'), IMAGE_MIB * MIB)
  const candor = await serve(scope, [`disk=${image}`, '--state-dir', state, '--on-enospc', 'hold'])
  const client = await attach(candor)
  run('fallocate', '-l', String(disk.freeBytes()), join(disk.folder, 'filler'))
  const before = new Date().toISOString()
  const held = client.write(100 * MIB, stamped(100 * MIB, MIB))
  while ((await candor.metrics()).get('candor_requests_held{export="disk"}') !== 1) {}
  const map = await mapOf(state, '--cells', String(IMAGE_MIB))
  assert.deepEqual(withBit(map, CELL_HELD), [100])
  const [range] = map.ranges
  assert.deepEqual([range?.kind, range?.offset, range?.length, range?.command], ['held', 100 * MIB, MIB, 'write'])
  assert.ok((range?.time ?? '') >= before)
  run('rm', join(disk.folder, 'filler'))
  await held
  assert.deepEqual(withBit(await mapOf(state), CELL_HELD), [])
  assert.equal((await candor.stop()).code, 0)
})

test('the map shows what a failed sync made suspect, over the end of the server, until it is written again', {
  skip: needsRoot(...THIN_STACK_NEEDS),
}, async (t) => {
  const { scope, state } = stateFolder(t)
  const stack = mountThinStack(scope)
  const image = sparseFile(join(stack.folder, 'disk.img'), IMAGE_MIB * MIB)
  const candor = await serve(scope, [`disk=${image}`, '--state-dir', state])
  const client = await attach(candor)
  await writeStamped(client, 16 * MIB, 150 * MIB)
  await errorOf(client.flush())
  const map = await mapOf(state, '--cells', String(IMAGE_MIB))
  const suspect = withBit(map, CELL_SUSPECT)
  assert.ok(suspect.length > 32, `${suspect.length} cells are suspect`)
  const bytes = (await candor.metrics()).get('candor_export_suspect_bytes{export="disk"}') ?? 0
  const told = map.ranges.filter(({ kind }) => kind === 'suspect').reduce((sum, { length }) => sum + length, 0)
  assert.equal(told, bytes)
  assert.equal((await candor.stop()).code, 2)
  assert.deepEqual(withBit(await mapOf(state, '--cells', String(IMAGE_MIB)), CELL_SUSPECT), suspect)
})

test('a failure stays on the map when the place has been written again', async (t) => {
  const { scope, state } = stateFolder(t)
  const image = `disk=${join(state, '..', 'disk.img')}`
  const candor = await serve(scope, [image, '--create', '8M', '--state-dir', state, '--inject', 'write:EIO@1M-2M'])
  const client = await attach(candor)
  await refused(client.write(MIB, stamped(MIB, 4096)), NBD_EIO)
  assert.equal((await command(['ctl', 'inject', 'disk', 'off', '--state-dir', state])).code, 0)
  await client.write(MIB, stamped(MIB, 4096))
  assert.deepEqual(withBit(await mapOf(state, '--cells', '8'), CELL_FAILED), [1])
})

test('the map has colours on a terminal, none with NO_COLOR, none in a file, and its letters are the same', {
  skip: needs('script'),
}, async (t) => {
  const { scope, state } = stateFolder(t)
  const image = sparseFile(join(state, '..', 'disk.img'), 8 * MIB)
  run('fallocate', '-l', String(MIB), image)
  const words = ['map', 'disk', '--image', image, '--state-dir', state]
  const onTerminal = async (env: Readonly<Record<string, string>>) => {
    const typed = [process.execPath, CANDOR_MAIN, ...words].join(' ')
    const { NO_COLOR: _none, ...inherited } = process.env
    const child = spawn('script', ['-qec', typed, '/dev/null'], { env: { ...inherited, ...env }, stdio: 'pipe' })
    scope.after(() => child.kill('SIGKILL'))
    child.stdin.end()
    return (await text(child.stdout)).replaceAll('\r', '')
  }
  const ESC = String.fromCharCode(27)
  const [coloured, plain, empty] = await Promise.all([{}, { NO_COLOR: '1' }, { NO_COLOR: '' }].map(onTerminal))
  assert.ok(coloured?.includes(`${ESC}[36m#`), coloured)
  assert.equal(empty, coloured, 'an empty NO_COLOR asks for nothing')
  assert.ok(plain?.includes('# data') && !plain.includes(ESC), plain)
  const bare = coloured?.replaceAll(new RegExp(`${ESC}\\[[\\d;]*m`, 'g'), '')
  assert.equal(bare, plain)
  assert.ok(!(await command(words)).stdout.includes(ESC))
})

test('a name that nobody serves, and words that mean nothing, are refused in a sentence', async (t) => {
  const { state } = stateFolder(t)
  const says = async (pattern: RegExp, ...words: readonly string[]) => {
    const { code, stderr } = await command(['map', 'nope', '--state-dir', state, ...words])
    assert.equal(code, 1)
    assert.match(stderr, pattern)
  }
  await says(
    /^candor: no candor answers in .*state, and none has served 'nope' from there: name its image with --image/,
  )
  await says(/^candor: --from is 'here', which is no size/, '--from', 'here')
  await says(/^candor: --cells is '0'/, '--cells', '0')
  await says(/^candor: --cells is '99999': write a whole number from 1 to 16384\n/, '--cells', '99999')
  await says(/^candor: there is no image at \/nowhere/, '--image', '/nowhere')
})
