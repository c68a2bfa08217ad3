// An upgrade that comes to nothing. Law: the old process goes on as if nothing had been asked, says why, and can be asked
// again.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { CANDOR_MAIN } from '../support/candor.js'
import { imageAt, until } from '../support/controlled.js'
import { assertHolds, attach, KIB, lastFirst, logged, MIB, stamped } from '../support/faults.js'
import { freeze } from '../support/hostile-freeze.js'
import { type Lineage, startLineage } from '../support/lineage.js'
import { mountLoopDisk, sparseFile } from '../support/loop-disk.js'
import { needs, needsRoot } from '../support/requirements.js'
import { SteadyClient } from '../support/steady-client.js'

const SLOTS = 16

interface Scene {
  readonly server: Lineage
  readonly working: SteadyClient
  /** From now on this is the program that is started; undefined: candor itself. */
  install(program?: string): void
}

async function setScene(t: TestContext, ...words: readonly string[]): Promise<Scene> {
  const scope = lastFirst(t)
  let program = ''
  const install = (text?: string) => {
    rmSync(program, { force: true })
    if (text === undefined) symlinkSync(CANDOR_MAIN, program)
    else writeFileSync(program, text)
  }
  const server = await startLineage(
    scope,
    (folder) => {
      program = join(folder, 'candor.mjs')
      install()
      return [`disk=${imageAt(join(folder, 'disk'), 8 * MIB)}`, ...words]
    },
    { wrapper: (folder) => ['sh', '-c', 'node="$1"; shift 2; exec "$node" "$0" "$@"', join(folder, 'candor.mjs')] },
  )
  const client = await attach(server.candor)
  return { server, working: new SteadyClient(client, { start: 0, slots: SLOTS, depth: 4 }), install }
}

async function goesOn({ server, working, install }: Scene): Promise<void> {
  await working.more(20)
  const idle = await attach(server.candor)
  await idle.read(0, 4 * KIB)
  assert.equal((await server.summary('disk'))?.state, 'ok')
  install()
  await server.upgrade()
  await working.more(20)
  await working.stop()
  await idle.read(0, 4 * KIB)
  assert.equal((await server.stop()).code, 0)
}

const PROGRAMS: Readonly<Record<string, { readonly text: string; readonly why: RegExp; readonly words?: string[] }>> = {
  'ends at once': { text: 'process.exit(3)', why: /the new process ended with code 3 before it was as far as 'hello'/ },
  'cannot be read as a program': { text: 'candor', why: /the new process ended with code 1/ },
  'is killed': { text: "process.kill(process.pid, 'SIGKILL')", why: /the new process was ended by SIGKILL/ },
  'says nothing': {
    text: 'setInterval(() => {}, 1000)',
    why: /the new process did not get as far as 'hello' in 5000 ms/,
    words: ['--upgrade-timeout', '5s'],
  },
  'speaks another format': {
    text: `import { writeSync } from 'node:fs'
      writeSync(3, JSON.stringify({ kind: 'hello', format: 999, version: '9.9.9' }) + '\\n')
      setInterval(() => {}, 1000)`,
    why: /candor 9.9.9 takes over in format 999, and this process hands over in format 2: restart it instead/,
  },
  'is ready and then says nothing': {
    text: `import { writeSync } from 'node:fs'
      writeSync(3, JSON.stringify({ kind: 'hello', format: 2, version: '9.9.9' }) + '\\n')
      writeSync(3, JSON.stringify({ kind: 'prepared' }) + '\\n')
      setInterval(() => {}, 1000)`,
    why: /the new process did not get as far as 'ready'/,
    words: ['--upgrade-pause', '700ms'],
  },
  'dies when it has everything': {
    text: `import { writeSync } from 'node:fs'
      writeSync(3, JSON.stringify({ kind: 'hello', format: 2, version: '9.9.9' }) + '\\n')
      writeSync(3, JSON.stringify({ kind: 'prepared' }) + '\\n')
      writeSync(3, JSON.stringify({ kind: 'ready' }) + '\\n')
      setTimeout(() => process.exit(4), 300)`,
    why: /the new process ended with code 4 before it was as far as 'serving'/,
  },
}

for (const [how, { text, why, words = [] }] of Object.entries(PROGRAMS)) {
  test(`the old process goes on when the new one ${how}, and the next upgrade succeeds`, async (t) => {
    const scene = await setScene(t, ...words)
    await scene.working.more(20)
    scene.install(text)
    const { pid } = scene.server
    assert.match(await scene.server.refused(), why)
    assert.equal(scene.server.pid, pid)
    const told = async () => logged(scene.server.candor, /^the upgrade came to nothing, and this process goes on$/)
    await until('logged', told, (lines) => lines.length === 1)
    await goesOn(scene)
  })
}

test('where descriptors are short the upgrade is refused before anything has begun', {
  skip: needs('prlimit'),
}, async (t) => {
  const scene = await setScene(t)
  const { pid } = scene.server
  const limit = (soft: number) => execFileSync('prlimit', ['--pid', String(pid), `--nofile=${soft}:`])
  const open = readdirSync(`/proc/${pid}/fd`).length
  limit(open + 30)
  assert.match(
    await scene.server.refused(),
    /more files have to be opened for a moment, and the limit has room for \d+: raise it/,
  )
  assert.equal(scene.server.pid, pid)
  limit(open + 1000)
  await goesOn(scene)
})

test('a configuration that is not sound, or that speaks of another disk, is refused by the new process', async (t) => {
  const scope = lastFirst(t)
  let file = ''
  const write = (path: string, more = '') => writeFileSync(file, `exports:\n  disk: { image: ${path} }\n${more}`)
  const server = await startLineage(scope, (folder) => {
    file = join(folder, 'candor.yaml')
    imageAt(join(folder, 'other'), 8 * MIB)
    write(imageAt(join(folder, 'disk'), 8 * MIB), `listen: ['unix:${join(folder, 'nbd')}']\n`)
    return ['--config', file]
  })
  const client = await attach(`nbd+unix:///disk?socket=${join(server.folder, 'nbd')}`)
  const listen = `listen: ['unix:${join(server.folder, 'nbd')}']\n`
  write(join(server.folder, 'disk'), `${listen}reserv: 1G\n`)
  assert.match(await server.refused(), /candor.yaml:4.*reserv/)
  write(join(server.folder, 'other'), listen)
  assert.match(await server.refused(), /export disk is .*\/disk, and .*\/other by the configuration/)
  write(join(server.folder, 'disk'), `${listen}read-only: true\n`)
  assert.match(await server.refused(), /export disk is writable, and read-only by the configuration: restart instead/)
  await client.write(0, Buffer.alloc(512, 1))
  write(join(server.folder, 'disk'), `${listen}reserve: 2M\n`)
  await server.upgrade()
  assert.equal((await server.summary('disk'))?.reserve, 2 * MIB)
  await client.write(0, Buffer.alloc(512, 2))
  await client.flush()
  assert.equal((await server.stop()).code, 0)
})

test('an upgrade is called off when storage keeps requests for longer than clients may wait', async (t) => {
  const scene = await setScene(t, '--upgrade-pause', '300ms', '--inject', 'trim:delay=5s,count=1')
  const { server } = scene
  const slow = await attach(server.candor)
  const trimmed = slow.trim(4 * MIB, MIB)
  await scene.working.more(5)
  assert.match(await server.refused(), /the storage of disk kept requests for more than 300 ms/)
  await trimmed
  await goesOn(scene)
})

test('clients of a thread that storage holds are served when it goes on, after upgrades that came to nothing', {
  skip: needsRoot('mkfs.ext4', 'losetup', 'setpriv', 'fsfreeze'),
}, async (t) => {
  const scope = lastFirst(t)
  const loop = mountLoopDisk(scope, { type: 'ext4', sizeMiB: 64 })
  const image = sparseFile(join(loop.folder, 'disk'), 8 * MIB)
  const server = await startLineage(scope, () => [`disk=${image}`])
  const [client, idle] = [await attach(server.candor), await attach(server.candor)]
  await client.write(0, stamped(0, MIB))
  const thaw = await freeze(scope, loop.folder)
  const held = client.write(0, stamped(0, 4 * KIB, 1))
  await until(
    'the thread',
    () => server.summary('disk'),
    (summary) => summary?.state === 'stalled',
  )
  for (let attempt = 0; attempt < 2; attempt++) assert.match(await server.refused(), /the storage of an export kept/)
  await thaw()
  await held
  await assertHolds(idle, 0, 4 * KIB, 1)
  await client.flush()
  await server.upgrade()
  await assertHolds(client, 4 * KIB, 4 * KIB)
  await idle.flush()
  assert.equal((await server.stop()).code, 0)
})
