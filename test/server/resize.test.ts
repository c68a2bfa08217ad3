// Images that grow, and disks that are made longer or shorter by `candor ctl resize`, with real clients. Laws: who comes
// next is told the new size, who is there keeps the old one; nothing that a client wrote is cut off without --force.
import assert from 'node:assert/strict'
import { statSync, truncateSync } from 'node:fs'
import { test } from 'node:test'
import { NBD_EIO, NBD_ENOSPC } from 'nbd-protocol'
import { type Controlled, twoExports, until } from '../support/controlled.js'
import { assertHolds, assertZero, attach, logged, MIB, refused, stamped } from '../support/faults.js'
import { runTool, useTool } from '../support/interop.js'
import { needs } from '../support/requirements.js'

const sizeOf = (served: Controlled) => async () => (await served.summary('a'))?.size

test('a disk that grew is as long as it is now to new clients, and as it was to those that are there', {
  skip: needs('nbdinfo', 'qemu-img', 'qemu-io'),
}, async (t) => {
  const served = await twoExports(t)
  const old = await attach(served.uri('a'))
  const summary = await served.told<{ size: number }>('resize', 'a', '6M')
  assert.equal(summary.size, 6 * MIB)
  assert.equal(await useTool('nbdinfo', ['--size', served.uri('a')]), `${6 * MIB}\n`)
  const info = JSON.parse(await useTool('qemu-img', ['info', '--output=json', served.uri('a')]))
  assert.equal(info['virtual-size'], 6 * MIB)
  await useTool('qemu-io', ['-f', 'raw', '-c', 'write -P 7 5M 64k', '-c', 'flush', served.uri('a')])
  await refused(old.write(4 * MIB, stamped(0, 4096)), NBD_ENOSPC)
  await old.write(0, stamped(0, 4096))
  const next = await attach(served.uri('a'))
  assert.equal(next.size, 6 * MIB)
  await assertZero(next, 4 * MIB, MIB)
  assert.ok((await next.read(5 * MIB, 64 << 10)).every((byte) => byte === 7))
  const metrics = await served.candor.metrics()
  assert.equal(metrics.get('candor_export_size_bytes{export="a"}'), 6 * MIB)
  assert.equal(metrics.get('candor_export_state{export="a",state="ok"}'), 1)
})

test('an image that somebody made longer is followed, also where it is read-only', {
  skip: needs('nbdinfo'),
}, async (t) => {
  const served = await twoExports(t, '--read-only-export', 'b')
  for (const name of ['a', 'b']) truncateSync(served.path(name), 5 * MIB)
  const size = () => useTool('nbdinfo', ['--size', served.uri('a')])
  await until('the size', size, (told) => told === `${5 * MIB}\n`)
  await until(
    'the size',
    async () => (await served.summary('b'))?.size,
    (told) => told === 5 * MIB,
  )
  const told = () => logged(served.candor, /has become longer/)
  await until(
    'both log lines',
    async () => told().length,
    (lines) => lines >= 2,
  )
  assert.deepEqual(told().sort(), [
    'the image of export a has become longer',
    'the image of export b has become longer',
  ])
  const client = await attach(served.uri('a'))
  await client.write(5 * MIB - 4096, stamped(0, 4096))
  await client.flush()
})

test('what is behind the old end survives a kill, as all the rest', async (t) => {
  const served = await twoExports(t)
  await served.told('resize', 'a', '200M')
  const client = await attach(served.uri('a'))
  await client.write(150 * MIB, stamped(150 * MIB, MIB))
  served.candor.kill('SIGKILL')
  await served.candor.ended
  const again = await served.again()
  assert.equal(logged(again.candor, /^unclean end of export a/).length, 1)
  await assertHolds(await attach(again.uri('a')), 150 * MIB, MIB)
  assert.equal((await again.summary('a'))?.state, 'ok')
})

test('a disk is made shorter when nobody is at it, and that is no loss', async (t) => {
  const served = await twoExports(t)
  const client = await attach(served.uri('a'))
  await client.write(0, stamped(0, 4 * MIB))
  const { code, stderr } = await served.ctl('resize', 'a', '2M')
  assert.equal(code, 1)
  assert.match(stderr, /would lose its last 2097152 bytes under 1 clients: detach them, or say --force/)
  assert.equal(statSync(served.path('a')).size, 4 * MIB)
  await client.disconnect()
  await until(
    'the sessions',
    () => served.sessions(),
    (sessions) => sessions.length === 0,
  )
  await served.told('resize', 'a', '2M')
  assert.equal(statSync(served.path('a')).size, 2 * MIB)
  const next = await attach(served.uri('a'))
  assert.equal(next.size, 2 * MIB)
  await assertHolds(next, 0, 2 * MIB)
  await refused(next.write(2 * MIB, stamped(0, 4096)), NBD_ENOSPC)
  await next.write(2 * MIB - 4096, stamped(2 * MIB - 4096, 4096))
  await next.flush()
  await served.told('resize', 'a', '3M')
  await assertZero(await attach(served.uri('a')), 2 * MIB, MIB)
  assert.equal((await served.summary('a'))?.state, 'ok')
})

test('--force ends the sessions of those who would lose the end of their disk', async (t) => {
  const served = await twoExports(t)
  const client = await attach(served.uri('a'))
  const other = await attach(served.uri('b'))
  await served.told('resize', 'a', '1M', '--force')
  await assert.rejects(client.read(0, 512))
  assert.equal((await attach(served.uri('a'))).size, MIB)
  assert.equal((await other.read(0, 512)).length, 512)
})

test('what was suspect behind the end is gone with it; a disk that cannot be synced is cut off by force alone', async (t) => {
  const served = await twoExports(t, '--inject', 'a=flush:EIO,count=1')
  const client = await attach(served.uri('a'))
  await client.write(MIB, stamped(MIB, 3 * MIB))
  await refused(client.flush(), NBD_EIO)
  await client.disconnect()
  await until(
    'the sessions',
    () => served.sessions(),
    (sessions) => sessions.length === 0,
  )
  assert.match((await served.ctl('resize', 'a', '2M')).stderr, /and its sync fails with EIO: mend that, or say --force/)
  assert.equal((await served.summary('a'))?.suspectBytes, 3 * MIB)
  await served.told('resize', 'a', '2M', '--force')
  const summary = await served.summary('a')
  assert.deepEqual([summary?.suspectBytes, summary?.state], [MIB, 'degraded'])
  await served.told('resume', 'a')
  await served.told('resize', 'a', '4M')
  const next = await attach(served.uri('a'))
  await refused(next.read(MIB, 4096), NBD_EIO)
  await assertZero(next, 2 * MIB, 2 * MIB)
})

test('an image that somebody else cuts off is a loss as ever, before and after', async (t) => {
  const served = await twoExports(t)
  await served.told('resize', 'a', '6M')
  truncateSync(served.path('a'), 5 * MIB)
  const client = await attach(served.uri('a'))
  await refused(client.flush(), NBD_EIO)
  assert.deepEqual([await sizeOf(served)(), (await served.summary('a'))?.state], [6 * MIB, 'degraded'])
  await refused(client.read(5 * MIB, 4096), NBD_EIO)
})

test('what cannot be resized is told why', async (t) => {
  const served = await twoExports(t, '--read-only-export', 'b')
  const wrong: readonly (readonly [words: readonly string[], sentence: RegExp])[] = [
    [['a'], /the size is '', which is no size/],
    [['a', 'big'], /the size is 'big', which is no size/],
    [['c', '1M'], /there is no export 'c'/],
    [['b', '8M'], /export b is read-only: make the image longer yourself, and candor follows/],
    [['a', '8191T'], /export a cannot be resized: EFBIG/],
  ]
  for (const [words, sentence] of wrong) assert.match((await served.ctl('resize', ...words)).stderr, sentence)
  await served.told('release', 'a')
  assert.match(
    (await served.ctl('resize', 'a', '8M')).stderr,
    /export a is released: resize it after 'candor ctl resume'/,
  )
  await served.told('resume', 'a')
  assert.equal(await sizeOf(served)(), 4 * MIB)
})

test('a block device that grew is followed, and is not resized', {
  skip: needs('nbdinfo', 'losetup') || (process.getuid?.() === 0 ? false : 'needs root'),
}, async (t) => {
  const served = await twoExports(t)
  const backing = served.path('c')
  await useTool('truncate', ['-s', '4M', backing])
  const device = (await useTool('losetup', ['--find', '--show', backing])).trim()
  t.after(() => runTool('losetup', ['--detach', device]))
  await served.told('add', `dev=${device}`)
  assert.match(
    (await served.ctl('resize', 'dev', '8M')).stderr,
    /lies on a device, which has its own size: change that one/,
  )
  await useTool('truncate', ['-s', '8M', backing])
  await useTool('losetup', ['--set-capacity', device])
  const size = () => useTool('nbdinfo', ['--size', served.uri('dev')])
  await until('the size', size, (told) => told === `${8 * MIB}\n`)
  const client = await attach(served.uri('dev'))
  await client.write(8 * MIB - 4096, stamped(0, 4096))
  await client.flush()
  await served.told('remove', 'dev', '--force')
})
