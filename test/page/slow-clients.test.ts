// HTTP clients that are slow, many or huge, storage that hangs, and a log that nobody takes: none of it costs anything that
// matters.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { openSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { temporaryFolder } from '../support/candor.js'
import { attach, command, lastFirst, MIB, type Scope, serve, stamped } from '../support/faults.js'
import { freeze } from '../support/hostile-freeze.js'
import { mountLoopDisk, mountMemory, sparseFile } from '../support/loop-disk.js'
import { needs, needsRoot } from '../support/requirements.js'

async function served(scope: Scope, ...words: readonly string[]) {
  const folder = temporaryFolder()
  scope.after(() => folder.remove())
  const state = join(folder.path, 'state')
  const candor = await serve(scope, [
    `disk=${join(folder.path, 'disk')}`,
    '--create',
    '16M',
    '--state-dir',
    state,
    ...words,
  ])
  return { candor, state, url: candor.httpUrl ?? '', port: Number(new URL(candor.httpUrl ?? '').port) }
}

/** A connection that has said this, and whether it was closed. */
async function said(scope: Scope, port: number, words: string): Promise<{ socket: Socket; closed: Promise<unknown> }> {
  const socket = connect(port, '127.0.0.1')
  scope.after(() => socket.destroy())
  // A connection that is refused may be reset, which ends it just as well.
  const closed = new Promise((resolve) => socket.on('error', () => {}).on('close', resolve))
  await once(socket, 'connect')
  socket.write(words)
  return { socket, closed }
}

test('a hundred status pages are bounded, those over the limit are told so, and one that closes makes room', async (t) => {
  const scope = lastFirst(t)
  const { url } = await served(scope, '--http-watchers-max', '8')
  const controllers = Array.from({ length: 100 }, () => new AbortController())
  scope.after(() => {
    for (const controller of controllers) controller.abort()
  })
  const open = ({ signal }: AbortController) => fetch(`${url}/api/events`, { signal })
  const answers = await Promise.all(controllers.map(open))
  const statuses = answers.map(({ status }) => status)
  assert.deepEqual(
    [200, 503].map((wanted) => statuses.filter((status) => status === wanted).length),
    [8, 92],
  )
  const refused = (await answers[statuses.indexOf(503)]?.json()) as { error: string }
  assert.match(refused.error, /^8 status pages are open already: close one, or raise --http-watchers-max$/)
  controllers[statuses.indexOf(200)]?.abort()
  const again = new AbortController()
  scope.after(() => again.abort())
  while ((await open(again)).status !== 200) {}
})

test('connections over the limit are closed, those that dawdle are ended, and huge headers are refused', async (t) => {
  const scope = lastFirst(t)
  const { candor, url, port } = await served(scope, '--http-connections-max', '20')
  const client = await attach(candor)
  const slow = await Promise.all(Array.from({ length: 20 }, () => said(scope, port, 'GET /metrics HT')))
  const beyond = await said(scope, port, 'GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n')
  await beyond.closed
  await client.write(0, stamped(0, MIB))
  await client.flush()
  await Promise.all(slow.map(({ closed }) => closed))
  assert.equal((await fetch(`${url}/healthz`)).status, 200)
  const huge = await fetch(`${url}/api/exports?q=${'x'.repeat(20_000)}`)
  assert.equal(huge.status, 431)
})

test('while storage hangs its map is 504, and the page, the numbers and the other exports go on', {
  skip: needsRoot('mkfs.ext4', 'losetup', 'setpriv', 'fsfreeze'),
}, async (t) => {
  const scope = lastFirst(t)
  const disks = ['frozen', 'other'].map((name) => {
    const { folder } = mountLoopDisk(scope, { type: 'ext4', sizeMiB: 64 })
    return { name, folder, image: sparseFile(join(folder, 'disk'), 32 * MIB) }
  })
  const candor = await serve(
    scope,
    disks.map(({ name, image }) => `${name}=${image}`),
  )
  const client = await attach(candor)
  await client.write(0, stamped(0, MIB))
  const thaw = await freeze(scope, disks[0]?.folder ?? '')
  const held = client.write(MIB, stamped(MIB, MIB))
  const get = (path: string) => fetch(`${candor.httpUrl}${path}`)
  const map = await get('/api/exports/frozen/map')
  assert.equal(map.status, 504)
  assert.match(((await map.json()) as { error: string }).error, /frozen/)
  assert.equal((await get('/api/exports/other/map')).status, 200)
  for (const path of ['/', '/metrics', '/healthz', '/api/exports', '/api/problems']) {
    assert.equal((await get(path)).status, 200, path)
  }
  const { reasons } = (await (await get('/readyz')).json()) as { reasons: string[] }
  assert.deepEqual(reasons, ['frozen is hanging'])
  const { problems } = (await (await get('/api/problems')).json()) as { problems: { export: string; title: string }[] }
  assert.deepEqual(
    problems.map((problem) => `${problem.export}: ${problem.title}`),
    ['frozen: its storage does not answer'],
  )
  await thaw()
  await held
  while ((await get('/readyz')).status !== 200) {}
  assert.equal((await get('/api/exports/frozen/map')).status, 200)
})

const LOGGED_CLIENTS = 500

/** More lines than a pipe or a small disk takes: two for each client that comes and goes. */
async function fillLog(uri: string): Promise<void> {
  for (let count = 0; count < LOGGED_CLIENTS; count++) await (await attach(uri)).disconnect()
}

for (const [title, prepare, skip] of [
  [
    'on a full disk',
    (scope: Scope) => {
      const { folder } = mountMemory(scope, 'tmpfs', 'size=64k')
      writeFileSync(join(folder, 'log'), Buffer.alloc(60 << 10))
      return join(folder, 'log')
    },
    needsRoot('setpriv'),
  ],
  [
    'in a pipe that nobody reads',
    (scope: Scope) => {
      const folder = temporaryFolder()
      scope.after(() => folder.remove())
      const pipe = join(folder.path, 'pipe')
      const made = spawn('mkfifo', [pipe])
      return once(made, 'close').then(() => {
        openSync(pipe, 'r+')
        return pipe
      })
    },
    needs('mkfifo', 'setpriv'),
  ],
] as const) {
  test(`with its log ${title}, NBD, metrics, the page and ctl go on`, { skip }, async (t) => {
    const scope = lastFirst(t)
    const log = await prepare(scope)
    const folder = temporaryFolder()
    scope.after(() => folder.remove())
    const state = join(folder.path, 'state')
    const wrapper = ['sh', '-c', 'log=$1; shift; exec "$@" 1>&1 2>>"$log"', 'sh', log]
    const image = `disk=${join(folder.path, 'disk')}`
    const candor = await serve(scope, [image, '--create', '16M', '--state-dir', state], { wrapper })
    await fillLog(candor.uris[0] ?? '')
    const client = await attach(candor)
    await client.write(0, stamped(0, MIB))
    await client.flush()
    assert.equal((await candor.metrics()).get('candor_connections_accepted_total'), LOGGED_CLIENTS + 1)
    for (const path of ['/', '/readyz', '/api/exports/disk/map', '/api/sessions']) {
      assert.equal((await fetch(`${candor.httpUrl}${path}`)).status, 200, path)
    }
    assert.match((await command(['ctl', 'exports', '--state-dir', state])).stdout, /^disk +ok /m)
    await client.disconnect()
    assert.equal((await candor.stop()).code, 0)
  })
}
