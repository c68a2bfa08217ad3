// An image whose file system is mounted once more beside the old mount, from another device. Law: it is the same image
// only when file system, inode and birth time say so, and nothing that was not synced before is believed.
import assert from 'node:assert/strict'
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { NBD_EIO } from 'nbd-protocol'
import { temporaryFolder } from '../support/candor.js'
import { attach, command, exportState, lastFirst, MIB, refused, serve } from '../support/faults.js'
import { attachLoopDevice, mountFile, run, sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'
import { mountThinStack, readBack, THIN_STACK_NEEDS, writeStamped } from '../support/thin-stack.js'

const NAME = 'disk.img'
const SIZE = 16 * MIB

test('resume alone finds the image on another mount, as of a disk that came back under another name', {
  skip: needsRoot('blkid', ...THIN_STACK_NEEDS),
}, async (t) => {
  const scope = lastFirst(t)
  const stack = mountThinStack(scope, 'ext4 with a journal')
  const image = sparseFile(join(stack.folder, NAME), SIZE)
  const { path: state, remove } = temporaryFolder()
  scope.after(remove)
  const candor = await serve(scope, [image, '--state-dir', state])
  const client = await attach(candor)
  const resume = () => command(['ctl', 'resume', NAME, '--state-dir', state])
  const uuid = run('blkid', '-o', 'value', '-s', 'UUID', stack.disk).replaceAll('-', '')
  assert.ok(readdirSync(state).some((name) => name.startsWith(`image-${uuid}-${statSync(image).ino}-`)))
  await writeStamped(client, 0, 4 * MIB)
  await client.flush()
  await writeStamped(client, 4 * MIB, 8 * MIB)
  run('umount', '--lazy', stack.folder)
  await refused(client.flush(), NBD_EIO)
  assert.equal(await exportState(candor, NAME), 'detached')
  assert.match((await resume()).stderr, /still detached: there is no image/)
  // The two mounts know nothing of each other; what was not synced on the old one may be on neither.
  const device = attachLoopDevice(scope, stack.disk, 512)
  stack.mount(device)
  assert.equal((await resume()).code, 0)
  assert.equal(await exportState(candor, NAME), 'ok')
  assert.equal((await readBack(client, 0, 4 * MIB)).right.length, 4)
  assert.equal((await readBack(client, 4 * MIB, 8 * MIB)).refused.length, 4)
  await writeStamped(client, 4 * MIB, 8 * MIB, 1)
  await client.flush()
  assert.equal((await candor.stop()).code, 0)
  run('umount', stack.folder)
  stack.mount(device)
  const next = await serve(scope, [image, '--state-dir', state])
  assert.equal((await readBack(await attach(next), 4 * MIB, 8 * MIB, 1)).right.length, 4)
})

test('releasing an image whose sync fails makes all that was not synced suspect, and says so', {
  skip: needsRoot(...THIN_STACK_NEEDS),
}, async (t) => {
  const scope = lastFirst(t)
  const stack = mountThinStack(scope)
  const image = sparseFile(join(stack.folder, NAME), SIZE)
  const { path: state, remove } = temporaryFolder()
  scope.after(remove)
  const candor = await serve(scope, [image, '--state-dir', state])
  const client = await attach(candor)
  await writeStamped(client, 0, 4 * MIB)
  await client.flush()
  stack.exhaust()
  await writeStamped(client, 4 * MIB, 12 * MIB)
  const { code, stdout, stderr } = await command(['ctl', 'release', NAME, '--state-dir', state])
  assert.equal(code, 0, stderr)
  assert.match(stdout, /^disk\.img: degraded, 16 MiB, writable, .*8 MiB suspect in 1 ranges, released since /)
  await refused(client.read(8 * MIB, MIB), NBD_EIO)
  stack.enlarge(256)
  stack.remount()
  assert.equal((await command(['ctl', 'resume', NAME, '--state-dir', state])).code, 0)
  const { right, refused: lost } = await readBack(client, 0, 12 * MIB)
  assert.deepEqual([right.length, lost.length], [4, 8])
})

test('an image and its twin on a clone of the file system are not served beside each other: they would share a record', {
  skip: needsRoot('mkfs.ext4'),
}, async (t) => {
  const scope = lastFirst(t)
  const { path: home, remove } = temporaryFolder()
  scope.after(remove)
  const [disk, clone] = [sparseFile(join(home, 'disk'), 32 * MIB), join(home, 'clone')]
  run('mkfs.ext4', '-q', '-F', disk)
  const first = mountFile(scope, 'ext4', disk)
  const image = sparseFile(join(first.folder, NAME), SIZE)
  run('sync', '--file-system', first.folder)
  run('cp', disk, clone)
  const second = mountFile(scope, 'ext4', clone)
  const twin = join(second.folder, NAME)
  const words = ['--http', 'off', '--listen', 'tcp:127.0.0.1:0', '--state-dir', join(home, 'state')]
  const { code, stderr } = await command(['serve', `a=${image}`, `b=${twin}`, ...words])
  assert.equal(code, 1)
  assert.match(stderr, /cannot be told from the image of export '[ab]'.*tune2fs -U random.*--state-dir\n$/)
  const candor = await serve(scope, [`a=${image}`, '--state-dir', join(home, 'state')])
  assert.match(
    (await command(['ctl', 'add', `b=${twin}`, '--state-dir', join(home, 'state')])).stderr,
    /cannot be told from/,
  )
  await serve(scope, [`b=${twin}`, '--state-dir', join(home, 'another')])
  assert.equal((await candor.stop()).code, 0)
})
