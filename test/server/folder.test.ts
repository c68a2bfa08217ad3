// `--dir` on a real server: images that come, go, are copied, renamed and removed. Laws: what is not whole is left alone;
// an image under clients is never closed because its name is gone.
import assert from 'node:assert/strict'
import { appendFileSync, mkdirSync, renameSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { NBD_EIO } from 'nbd-protocol'
import { exportsOf } from '../../server/config-exports.js'
import { isRemoved } from '../../server/control/folder-fates.js'
import { ExportDirectory } from '../../server/io/directory.js'
import { exportCounters } from '../../server/observe/counters.js'
import { type Controlled, control, folderOf, imageAt, until } from '../support/controlled.js'
import { assertHolds, attach, command, lastFirst, logged, MIB, refused, stamped } from '../support/faults.js'
import { useTool } from '../support/interop.js'
import { needs } from '../support/requirements.js'

interface Scene extends Controlled {
  readonly images: string
  names(): Promise<string[]>
  /** A whole image: nobody has written to it for an hour. */
  put(name: string, content?: string | number): string
}

async function scene(t: TestContext, before: (put: Scene['put']) => void, ...words: readonly string[]): Promise<Scene> {
  const folder = folderOf(lastFirst(t))
  const images = join(folder, 'images')
  mkdirSync(images)
  const put: Scene['put'] = (name, content = MIB) => {
    const path = imageAt(join(images, name), typeof content === 'number' ? content : 0)
    if (typeof content === 'string') writeFileSync(path, Buffer.from(content, 'latin1'))
    const anHourAgo = new Date(Date.now() - 3_600_000)
    utimesSync(path, anHourAgo, anHourAgo)
    return path
  }
  before(put)
  const served = await control(lastFirst(t), folder, { words: ['--dir', images, ...words] })
  const names = async () => (await served.summaries()).map(({ name }) => name).sort()
  return { ...served, images, names, put }
}

const are =
  (...wanted: readonly string[]) =>
  (names: readonly string[]) =>
    names.join() === wanted.join()

test('every image in the folder is served, and what is none is left out and told once', {
  skip: needs('nbdinfo'),
}, async (t) => {
  const served = await scene(t, (put) => {
    put('a.img')
    put('b.raw', 2 * MIB)
    put('.hidden')
    put('c.img.part')
    put('d.qcow2', 'QFI\xfb')
    put('e.img.gz', '\x1f\x8b\x08')
    put('empty', 0)
  })
  mkdirSync(join(served.images, 'folder'))
  assert.deepEqual(await served.names(), ['a.img', 'b.raw'])
  assert.equal(await useTool('nbdinfo', ['--size', served.uri('b.raw')]), `${2 * MIB}\n`)
  served.put('f.img')
  await until('the names', served.names, are('a.img', 'b.raw', 'f.img'))
  const lines = async () => logged(served.candor, /^left out of/)
  const left = (await until('the log', lines, (told) => told.length >= 6)).map((line) =>
    line.replace(`left out of ${served.images}: `, ''),
  )
  assert.deepEqual(left.sort(), [
    'a folder',
    'a hidden file',
    'a name of files that are not whole',
    'an empty file',
    'no raw image, but gzip: convert it, or name it on the command line',
    'no raw image, but qcow2: convert it, or name it on the command line',
  ])
})

test('images that come are served with the words for all; one that goes while nobody is connected is given back', async (t) => {
  const served = await scene(t, () => {}, '--on-enospc', 'hold=1m', '--reserve', '1M')
  assert.deepEqual(await served.names(), [])
  for (const name of ['a', 'b']) served.put(name)
  await until('the names', served.names, are('a', 'b'))
  assert.deepEqual((await served.summaries()).map(({ name, onEnospc, reserve }) => [name, onEnospc, reserve]).sort(), [
    ['a', 'hold=60s', MIB],
    ['b', 'hold=60s', MIB],
  ])
  const client = await attach(served.uri('a'))
  await client.write(0, stamped(0, MIB))
  await client.disconnect()
  await until(
    'the sessions',
    () => served.sessions(),
    (sessions) => sessions.length === 0,
  )
  renameSync(join(served.images, 'a'), join(served.images, 'c'))
  await until('the names', served.names, are('b', 'c'))
  await assertHolds(await attach(served.uri('c')), 0, MIB)
  assert.deepEqual(logged(served.candor, /unclean/), [], 'it was synced before it was given back')
})

test('an image that is removed under its clients stays in their hands, until it is back or an operator says otherwise', async (t) => {
  const served = await scene(t, (put) => ['a', 'b'].forEach((name) => void put(name)))
  const [one, two] = [await attach(served.uri('a')), await attach(served.uri('b'))]
  for (const client of [one, two]) await client.write(0, stamped(0, MIB))
  const [away, a] = [join(served.folder, 'away'), join(served.images, 'a')]
  renameSync(a, away)
  rmSync(join(served.images, 'b'))
  const sentence =
    /^the image of export [ab] is gone from its folder under clients: put it back, or say 'candor ctl remove/
  await until(
    'the log',
    async () => logged(served.candor, sentence),
    (lines) => lines.length === 2,
  )
  for (const client of [one, two]) {
    await assertHolds(client, 0, MIB)
    await refused(client.flush(), NBD_EIO)
  }
  await one.disconnect()
  await two.disconnect()
  await until(
    'the sessions',
    () => served.sessions(),
    (sessions) => sessions.length === 0,
  )
  served.put('c')
  await until('the names', served.names, are('a', 'b', 'c'))
  await assertHolds(await attach(served.uri('b')), 0, MIB)

  renameSync(away, a)
  await served.told('resume', 'a')
  assert.equal((await served.summary('a'))?.state, 'ok')
  await assertHolds(await attach(served.uri('a')), 0, MIB)
  await served.ctl('remove', 'b', '--force')
  await until('the names', served.names, are('a', 'c'))
})

test('a file that is still being written is left alone until it is whole', async (t) => {
  const served = await scene(t, () => {})
  const copy = join(served.images, 'copy')
  writeFileSync(copy, Buffer.alloc(4096))
  const copying = setInterval(() => appendFileSync(copy, Buffer.alloc(4096)), 100)
  t.after(() => clearInterval(copying))
  await until(
    'its log',
    async () => served.put('whole') && served.names(),
    (names) => names.includes('whole'),
  )
  for (let round = 0; round < 3; round++) {
    served.put(`next-${round}`)
    await until('the names', served.names, (names) => names.includes(`next-${round}`))
  }
  assert.ok(!(await served.names()).includes('copy'))
  clearInterval(copying)
  await until('the names', served.names, (names) => names.includes('copy'))
})

test('what an operator removed stays away while its file is the same, until the configuration is read again', async (t) => {
  const served = await scene(t, (put) => put('a'))
  await served.told('remove', 'a')
  served.put('b')
  await until('the names', served.names, are('b'))
  await served.told('reload')
  await until('the names', served.names, are('a', 'b'))
})

test('what has failed to open and was given up is removed like what was served', () => {
  const directory = new ExportDirectory()
  const [config] = exportsOf({ images: ['a=/a'] })
  assert.ok(config !== undefined)
  directory.failed.set('a', { name: 'a', config, reason: 'it is locked', counters: exportCounters() })
  assert.equal(isRemoved(directory, 'a', 'failed'), false)
  directory.failed.delete('a')
  for (const fate of ['failed', 'served'] as const) assert.equal(isRemoved(directory, 'a', fate), true)
  for (const fate of ['new', 'unfit', 'leaving', 'named'] as const) assert.equal(isRemoved(directory, 'a', fate), false)
})

test('exports that are named go before files of that name, and there is a bound', async (t) => {
  const folder = folderOf(lastFirst(t))
  const own = `a=${imageAt(join(folder, 'own'), 3 * MIB)}`
  const served = await scene(
    t,
    (put) => ['a', 'b', 'c', 'd'].forEach((name) => void put(name)),
    own,
    '--dir-images-max',
    '2',
  )
  assert.deepEqual(await served.names(), ['a', 'b', 'c'])
  assert.equal((await served.summary('a'))?.size, 3 * MIB)
  await until(
    'the log',
    async () => logged(served.candor, /^left out of/),
    (lines) => lines.length === 2,
  )
  const reasons = logged(served.candor, /^left out of/).map((line) => line.split(': ')[1])
  assert.deepEqual(reasons, ['a name that another export has', 'more than 2 images (--dir-images-max)'])
  rmSync(join(served.images, 'b'))
  await until('the names', served.names, are('a', 'c', 'd'))
})

test('the file of the configuration has the words of what comes from its folder', async (t) => {
  const folder = folderOf(lastFirst(t))
  mkdirSync(join(folder, 'images'))
  truncateSync(imageAt(join(folder, 'images', 'a'), 0), MIB)
  utimesSync(join(folder, 'images', 'a'), 1, 1)
  const write = (reserve: string) =>
    writeFileSync(
      join(folder, 'c.yaml'),
      `dir: [images]\nlisten: [unix:${folder}/nbd]\nhttp: off\nreserve: ${reserve}\n`,
    )
  write('1M')
  const served = await control(lastFirst(t), folder, { words: ['--config', join(folder, 'c.yaml')] })
  assert.equal((await served.summary('a'))?.reserve, MIB)
  write('2M')
  assert.deepEqual((await served.told<{ changed: string[] }>('reload')).changed, ['a'])
  assert.equal((await served.summary('a'))?.reserve, 2 * MIB)
})

test('a folder that is none stops the start', async (t) => {
  const folder = folderOf(lastFirst(t))
  const words = ['--state-dir', join(folder, 'state'), '--http', 'off', '--listen', `unix:${folder}/nbd`]
  const { code, stderr } = await command(['serve', '--dir', join(folder, 'none'), ...words])
  assert.equal(code, 1)
  assert.match(stderr, /^candor: the folder .*none cannot be read \(ENOENT.*\): give an existing one with --dir\n$/)
})
