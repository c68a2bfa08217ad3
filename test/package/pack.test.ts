// The package as others get it. Laws: `npm pack` holds what candor needs to be built and to run and nothing more; it installs
// in an empty folder, with an empty home, and asks no host but the package registry.
import assert from 'node:assert/strict'
import { type ChildProcessByStdio, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { before, describe, type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { temporaryFolder } from '../support/candor.js'
import { attach } from '../support/faults.js'
import { needs, UNDER_ALL } from '../support/requirements.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const { path: folder, remove } = temporaryFolder()
process.on('exit', remove)

/** npm as a user has it: none of the settings of whoever runs the tests, but the way to the registry. */
function npmEnvironment(): NodeJS.ProcessEnv {
  const home = join(folder, 'home')
  mkdirSync(home, { recursive: true })
  const kept = Object.entries(process.env).filter(([name]) => !/^npm_/i.test(name))
  return { ...Object.fromEntries(kept), HOME: home, npm_config_cache: join(root, '.cache/npm') }
}

function npm(cwd: string, args: readonly string[], program: readonly string[] = ['npm']): string {
  const [command = 'npm', ...first] = program
  return execFileSync(command, [...first, ...args], { cwd, env: npmEnvironment(), encoding: 'utf8', stdio: 'pipe' })
}

function below(path: string, pattern: RegExp): string[] {
  const names = readdirSync(join(root, path), { recursive: true, encoding: 'utf8' })
  return names.filter((name) => pattern.test(name)).map((name) => `${path}/${name}`)
}

/** What the sources in a folder become; whoever writes a program of his own needs their types. */
function compiled(sources: string, into: string, types: boolean): string[] {
  return below(sources, /^(?!.*(?:node_modules|dist|build)\/).*(?<!\.d)\.ts$/).flatMap((path) => {
    const bare = path.replace(/\.ts$/, '').replace(sources, into)
    return types && !path.includes('/page/') ? [`${bare}.js`, `${bare}.d.ts`] : [`${bare}.js`]
  })
}

const FS_EXT = ['LICENSE.txt', 'README.md', 'binding.gyp', 'fs-ext.cc', 'fs-ext.js', 'package.json']

function expected(): string[] {
  return [
    ...['CHANGELOG.md', 'LICENSE', 'README.md', 'dist/candor.1', 'package.json'],
    ...compiled('backends', 'dist/backends', true),
    ...compiled('server', 'dist/server', true),
    ...['nbd', 'vhost-user'].flatMap((protocol) => [
      ...compiled(`protocol/${protocol}`, `node_modules/${protocol}-protocol/dist`, true),
      ...['README.md', 'package.json'].map((name) => `node_modules/${protocol}-protocol/${name}`),
    ]),
    ...['node-gyp.cjs', 'package.json'].map((name) => `node_modules/node-gyp-local-headers/${name}`),
    ...FS_EXT.map((name) => `node_modules/fs-ext/${name}`),
    ...below('node_modules/nan', /^(?:[a-z0-9_]+\.h|include_dirs\.js|LICENSE\.md|README\.md|package\.json)$/),
    ...below('backends/native', /^(?:[a-z-]+\.[ch]|binding\.gyp)$/),
    ...['index.html', 'page.css', 'icon.svg'].map((name) => `server/observe/page/${name}`),
    ...below('docs', /^[a-z-]+\.md$/),
    ...['container', 'kubernetes', 'systemd', 'vhost-user'].flatMap((folder) => below(`deploy/${folder}`, /./)),
    ...['deploy/grafana/candor.json', 'deploy/prometheus/candor.rules.yml'],
  ].sort()
}

let tarball = ''
let files: string[] = []

function pack(): void {
  writeFileSync(join(root, 'dist/server/left-behind.js'), '// Its source is gone.\n')
  const told = npm(root, ['pack', '--json', '--pack-destination', folder])
  const [packed] = JSON.parse(told.slice(told.indexOf('[\n'))) as [{ filename: string; files: { path: string }[] }]
  tarball = join(folder, packed.filename)
  files = packed.files.map(({ path }) => path).sort()
}

const skip = needs('npm', 'make', 'g++', 'python3')

describe('the package', { skip }, () => {
  before(pack)

  test('holds what it should and no more; what lost its source stays out, and what was built for this machine', () => {
    assert.deepEqual(files, expected())
    assert.ok(files.every((path) => !/\.(?:node|map|tsbuildinfo|test\.js)$/.test(path)))
  })

  test('installs and runs in an empty folder with an empty home: as a command, as a module, with types', async (t) => {
    const home = install(t.name, tarball)
    assert.ok(!existsSync(join(folder, 'home/.cache/node-gyp')), 'the headers are those of this Node')
    const socket = join(home, 'nbd')
    const words = ['serve', 'disk.img', '--create', '1M', '--listen', `unix:${socket}`, '--http', '127.0.0.1:0']
    const candor = spawn(join(home, 'node_modules/.bin/candor'), [...words, '--state-dir', 'state'], {
      cwd: home,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    t.after(() => candor.kill('SIGKILL'))
    const ended = once(candor, 'exit')
    const told = await untilReady(candor)
    const client = await attach(`nbd+unix:///disk.img?socket=${socket}`)
    await client.write(0, new Uint8Array(512).fill(7))
    await client.disconnect()
    const page = await fetch(`${/^metrics: (\S+)\/metrics$/m.exec(told)?.[1]}/`)
    assert.match(await page.text(), /<title>candor/)
    candor.kill('SIGTERM')
    assert.deepEqual(await ended, [0, null])
    const names = "import('candor').then((all) => console.log(Object.keys(all).sort().join(' ')))"
    assert.match(execFileSync(process.execPath, ['-e', names], { cwd: home, encoding: 'utf8' }), /^OpenError .*serve/)
    checkTypes(home)
  })

  // Under --all alone, as the files that test/run names are.
  const whereLong = UNDER_ALL ? test : () => {}
  whereLong('installs with the npm that Node 20 brings', (t: TestContext) => {
    const older = join(folder, 'npm-10')
    mkdirSync(older)
    npm(older, ['install', '--no-audit', '--no-fund', 'npm@10'])
    const home = install(t.name, tarball, [process.execPath, join(older, 'node_modules/npm/bin/npm-cli.js')])
    execFileSync(join(home, 'node_modules/.bin/candor'), ['create', 'disk.img', '1M'], { cwd: home })
    assert.equal(readFileSync(join(home, 'disk.img')).length, 1 << 20)
  })
})

/** A project of its own for each; returns its folder. */
function install(name: string, from: string, program?: readonly string[]): string {
  const home = join(folder, name.replaceAll(/\W+/g, '-').slice(0, 40))
  mkdirSync(home)
  writeFileSync(join(home, 'package.json'), '{ "private": true, "type": "module" }\n')
  npm(home, ['install', '--prefer-offline', '--no-audit', '--no-fund', '--foreground-scripts', from], program)
  return home
}

/** What it printed until it was ready. */
async function untilReady(candor: ChildProcessByStdio<null, Readable, null>): Promise<string> {
  let told = ''
  candor.stdout.setEncoding('utf8')
  while (!/^ready/m.test(told)) {
    const [text] = (await Promise.race([once(candor.stdout, 'data'), once(candor, 'exit')])) as unknown[]
    assert.ok(typeof text === 'string', `candor ended before it was ready:\n${told}`)
    told += text
  }
  return told
}

/** The example of the repository, as somebody else's program. */
function checkTypes(home: string): void {
  writeFileSync(join(home, 'own-storage.ts'), readFileSync(join(root, 'examples/own-storage.ts')))
  const types = ['--types', 'node', '--typeRoots', join(root, 'node_modules/@types')]
  const words = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2023', ...types, 'own-storage.ts']
  execFileSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), ...words], { cwd: home })
}
