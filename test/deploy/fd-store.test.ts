// Descriptions of images in the store of a service manager. Law: what write-back failed at while no server ran is heard by the
// description that was there, and by no other.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { temporaryFolder } from '../support/candor.js'
import { until } from '../support/controlled.js'
import { attach, command, lastFirst, MIB, type Scope, stamped } from '../support/faults.js'
import { sparseFile } from '../support/loop-disk.js'
import { needs, needsRoot } from '../support/requirements.js'
import { type SmallServiceManager, startServiceManager } from '../support/service-manager.js'
import { evictFile, mountThinStack, readBack, THIN_STACK_NEEDS, writeStamped } from '../support/thin-stack.js'

const SAFE = 16 * MIB
const WRITTEN = SAFE + 32 * MIB

interface Scene {
  readonly manager: SmallServiceManager
  readonly words: readonly string[]
  readonly uri: string
  ctl(...words: readonly string[]): ReturnType<typeof command>
}

function sceneIn(scope: Scope): Scene {
  const { path: folder, remove } = temporaryFolder()
  scope.after(remove)
  const state = ['--state-dir', join(folder, 'state')]
  return {
    manager: startServiceManager(scope, join(folder, 'notify')),
    words: ['--listen', `unix:${join(folder, 'nbd')}`, '--http', 'off', ...state],
    uri: `nbd+unix:///?socket=${join(folder, 'nbd')}`,
    ctl: (...words) => command(['ctl', ...words, ...state]),
  }
}

test('an image is kept for the next server, and for no longer than it is needed', {
  skip: needs('python3'),
}, async (t) => {
  const scope = lastFirst(t)
  const { path: folder, remove } = temporaryFolder()
  scope.after(remove)
  const [one, two] = ['one', 'two'].map((name) => sparseFile(join(folder, name), MIB))
  const { manager, words, uri, ctl } = sceneIn(scope)
  await manager.start('serve', `${one}`, `${two}`, ...words)
  const stored = manager.heard.filter((line) => line.startsWith('stored'))
  assert.equal(new Set(stored).size, 2, manager.heard.join('\n'))
  const client = await attach(uri)
  await client.write(0, stamped(0, 4096))
  assert.equal(await manager.end('SIGKILL'), -9)
  // The store holds the lock of both: a server that was not handed them has to stay away.
  const other = await command([
    'serve',
    `${one}`,
    '--http',
    'off',
    '--listen',
    'tcp:127.0.0.1:0',
    '--state-dir',
    folder,
  ])
  assert.match(other.stderr, /in use by another program/)
  // The second image is served no more: nobody keeps its description, or its lock, from then on.
  await manager.start('serve', `${one}`, ...words)
  assert.equal(manager.heard.filter((line) => line.startsWith('removed')).length, 1)
  assert.equal(stamped(0, 4096).compare(await (await attach(uri)).read(0, 4096)), 0)
  assert.equal((await ctl('add', `${two}`)).code, 0)
  assert.equal((await ctl('remove', 'two')).code, 0)
  assert.equal((await ctl('release', 'one')).code, 0)
  assert.equal((await ctl('resume', 'one')).code, 0)
  assert.equal(await manager.end('SIGTERM'), 0)
  const left = new Set(manager.heard.filter((line) => /^(?:stored|removed)/.test(line)).reverse())
  const names = new Set([...left].map((line) => line.split(' ')[1]))
  const state = (name: string | undefined) => [...left].find((line) => line.endsWith(` ${name}`))?.split(' ')[0]
  assert.deepEqual([...names].map(state), ['removed', 'removed'], manager.heard.join('\n'))
})

test('an image that was let go of and taken up again is kept as it is held now', {
  skip: needs('python3'),
}, async (t) => {
  const scope = lastFirst(t)
  const { path: folder, remove } = temporaryFolder()
  scope.after(remove)
  const image = sparseFile(join(folder, 'image'), MIB)
  const { manager, words, ctl } = sceneIn(scope)
  await manager.start('serve', image, ...words)
  for (const word of ['release', 'resume', 'resume']) assert.equal((await ctl(word, 'image')).code, 0)
  assert.deepEqual(
    manager.heard.filter((line) => line !== 'ready').map((line) => line.split(' ')[0]),
    ['stored', 'removed', 'stored'],
  )
  await manager.end('SIGKILL')
  // The lock is the description's: nobody else gets the image before the next server has come for it.
  const other = ['--http', 'off', '--listen', 'tcp:127.0.0.1:0', '--state-dir', folder]
  assert.match((await command(['serve', image, ...other])).stderr, /in use by another program/)
  await manager.start('serve', image, ...words)
})

test('an image that the process after an upgrade is the first to open is kept as well', {
  skip: needs('python3'),
}, async (t) => {
  const scope = lastFirst(t)
  const { path: folder, remove } = temporaryFolder()
  scope.after(remove)
  const file = join(folder, 'candor.yaml')
  const configure = (...names: readonly string[]) => {
    const exports = names.map((name) => `  ${name}: { image: ${join(folder, name)} }\n`)
    writeFileSync(file, `exports:\n${exports.join('')}`)
  }
  const { manager, words, ctl } = sceneIn(scope)
  for (const name of ['one', 'two']) sparseFile(join(folder, name), MIB)
  configure('one')
  await manager.start('serve', '--config', file, ...words)
  configure('one', 'two')
  const before = manager.heard.length
  assert.equal((await ctl('upgrade')).code, 0)
  const heard = async () => manager.heard.slice(before)
  const since = await until('stored', heard, (lines) => lines.some((line) => line.startsWith('stored')))
  assert.equal(since.filter((line) => line.startsWith('stored')).length, 1, since.join('\n'))
  await until('ready', heard, (lines) => lines.includes('ready'))
  assert.deepEqual(
    since.filter((line) => line.startsWith('ignored')),
    [],
  )
  assert.equal(await manager.end('SIGTERM'), 0)
  assert.equal(manager.heard.filter((line) => line.startsWith('removed')).length, 2, manager.heard.join('\n'))
})

test('what failed to be written while no server ran, and somebody else was told, is suspect in the next one', {
  skip: needsRoot('python3', ...THIN_STACK_NEEDS),
  timeout: 60_000,
}, async (t) => {
  const scope = lastFirst(t)
  const stack = mountThinStack(scope)
  const image = stack.provision('disk.img', 64 * MIB)
  const { manager, words, uri, ctl } = sceneIn(scope)
  await manager.start('serve', image, ...words)
  const client = await attach(uri)
  await writeStamped(client, 0, SAFE)
  await client.flush()
  stack.exhaust()
  await writeStamped(client, SAFE, WRITTEN)
  await manager.end('SIGKILL')
  // The kernel tells whoever syncs first, and calls the pages clean.
  assert.notEqual(spawnSync('sync', [image]).status, 0)
  evictFile(image)
  await manager.start('serve', image, ...words)
  const [summary] = JSON.parse((await ctl('exports', '--json')).stdout) as { state: string; suspectBytes?: number }[]
  assert.equal(summary?.state, 'degraded')
  const { wrong, refused } = await readBack(await attach(uri), 0, WRITTEN)
  assert.deepEqual(wrong, [], 'lost bytes were read as good')
  assert.ok(refused.length >= 32, `${refused.length} of 32 MiB are refused`)
  assert.equal(await manager.end('SIGTERM'), 2)
  assert.ok(!manager.heard.some((line) => line.startsWith('removed')), 'what is not synced stays with the manager')
})
