// Images of a folder of which somebody else speaks too, by name or at run time. Law: the words for one image go before those of
// its folder, and stay so however often the configuration is read again.
import assert from 'node:assert/strict'
import { mkdirSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { Reloaded } from '../../server/control/reload.js'
import { type Controlled, control, folderOf, imageAt, until } from '../support/controlled.js'
import { attach, lastFirst, logged, MIB, stamped } from '../support/faults.js'

interface Scene extends Controlled {
  /** Writes the file anew: what stands at the top, and the exports with their lines. */
  write(exports: Readonly<Record<string, readonly string[]>>, ...top: readonly string[]): void
  reload(): Promise<Reloaded>
  /** Every export, with how it is served. */
  served(): Promise<Record<string, string>>
}

type Exports = Parameters<Scene['write']>[0]

/** The images a.img and b.img, and a file that names their folder beside `exports`. */
async function scene(t: TestContext, exports: Exports, ...top: readonly string[]): Promise<Scene> {
  const folder = folderOf(lastFirst(t))
  mkdirSync(join(folder, 'images'))
  for (const name of ['a.img', 'b.img']) utimesSync(imageAt(join(folder, 'images', name), MIB), 1, 1)
  imageAt(join(folder, 'own'), 2 * MIB)
  const file = join(folder, 'candor.yaml')
  const always = [`listen: [unix:${folder}/nbd]`, 'http: off', 'dir: [images]']
  const write: Scene['write'] = (all, ...others) => {
    const each = Object.entries(all).flatMap(([name, lines]) => [`  ${name}:`, ...lines.map((line) => `    ${line}`)])
    writeFileSync(file, [...always, ...others, ...(each.length > 0 ? ['exports:', ...each] : []), ''].join('\n'))
  }
  write(exports, ...top)
  const served = await control(lastFirst(t), folder, { words: ['--config', file] })
  const state = ({ readOnly, size, state: how }: { readOnly: boolean; size: number; state: string }) =>
    `${how} ${readOnly ? 'read-only' : 'writable'} ${size / MIB}M`
  return {
    ...served,
    write,
    reload: () => served.told<Reloaded>('reload'),
    served: async () => Object.fromEntries((await served.summaries()).map((each) => [each.name, state(each)])),
  }
}

const UNCHANGED: Reloaded = { added: [], removed: [], changed: [], failed: [], unapplied: [] }

test('an image of the folder that the file names as read-only stays read-only when it is read again', async (t) => {
  const served = await scene(t, { 'a.img': ['image: images/a.img', 'read-only: true'] })
  const wanted = { 'a.img': 'ok read-only 1M', 'b.img': 'ok writable 1M' }
  for (let round = 0; round < 2; round++) {
    assert.deepEqual(await served.served(), wanted)
    assert.deepEqual(await served.reload(), UNCHANGED)
  }
  assert.deepEqual(await served.served(), wanted)
})

test('a writable exception of a read-only folder stays one', async (t) => {
  const exports = { 'a.img': ['image: images/a.img', 'read-only: false'] }
  const served = await scene(t, exports, 'read-only: true')
  const wanted = { 'a.img': 'ok writable 1M', 'b.img': 'ok read-only 1M' }
  assert.deepEqual(await served.reload(), UNCHANGED)
  assert.deepEqual(await served.served(), wanted)
})

test('a name that the file gives to another image is that image, and the folder has it back when the file is silent', async (t) => {
  const served = await scene(t, {})
  served.write({ 'a.img': ['image: own'] })
  for (let round = 0; round < 2; round++) {
    await served.reload()
    assert.deepEqual(await served.served(), { 'a.img': 'ok writable 2M', 'b.img': 'ok writable 1M' })
  }
  // What becomes of the file in the folder is no business of the image that has its name.
  rmSync(served.path('images/b.img'))
  await until('the names', served.served, (names) => !('b.img' in names))
  served.write({})
  await served.reload()
  await until('the folder', served.served, (names) => names['a.img'] === 'ok writable 1M')
})

test('an image under its own words is not removed with its name in the folder', async (t) => {
  const served = await scene(t, { 'a.img': ['image: images/a.img'] })
  const client = await attach(served.uri('b.img'))
  rmSync(served.path('images/a.img'))
  await client.write(0, stamped(0, 4096))
  utimesSync(imageAt(served.path('images/c.img'), MIB), 1, 1)
  await until('the look', served.served, (names) => 'c.img' in names)
  assert.ok('a.img' in (await served.served()))
})

test('what an operator added as read-only stays so', async (t) => {
  const served = await scene(t, {})
  await served.told('remove', 'a.img')
  await served.told('add', served.path('images/a.img'), '--read-only')
  for (let round = 0; round < 3; round++) {
    await served.reload()
    utimesSync(imageAt(served.path(`images/c${round}.img`), MIB), 1, 1)
    await until('the look', served.served, (names) => `c${round}.img` in names)
    assert.equal((await served.served())['a.img'], 'ok read-only 1M')
  }
})

for (const readOnly of [false, true]) {
  const how = readOnly ? 'read-only, ' : ''
  test(`${how}an image that is served under a name of its own is not served by its folder too`, async (t) => {
    const link = 'image: images/b.img'
    const served = await scene(t, { a: ['image: images/a.img'], b: [link] }, `read-only: ${readOnly}`)
    symlinkSync('a.img', served.path('images/linked.img'))
    const state = `ok ${readOnly ? 'read-only' : 'writable'} 1M`
    utimesSync(imageAt(served.path('images/c.img'), MIB), 1, 1)
    await until('the look', served.served, (names) => 'c.img' in names)
    const all = { a: state, b: state, 'c.img': state }
    assert.deepEqual(await served.served(), all)
    assert.deepEqual(logged(served.candor, /has failed/), [])
    assert.equal(logged(served.candor, /^left out of .*: a file that is served under another name$/).length, 1)
    // An operator who takes it away has taken it away, until the configuration is read again.
    await served.told('remove', 'b')
    utimesSync(imageAt(served.path('images/d.img'), MIB), 1, 1)
    await until('the look', served.served, (names) => 'd.img' in names)
    assert.deepEqual(await served.served(), { a: state, 'c.img': state, 'd.img': state })
    await served.reload()
    assert.equal((await served.served())['b'], state)
  })
}
