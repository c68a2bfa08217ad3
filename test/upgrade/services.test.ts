// Upgrades beside those who watch over a server: systemd, the kernel's process 1, whoever activated its sockets; and clients
// whose secrets cannot move. Law: nobody takes the end of the first process for the end of the service.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { enterTransmission } from 'nbd-protocol'
import { askServer } from '../../server/cli/ask-server.js'
import { beginHandshake, parseUri } from '../../server/cli/connect.js'
import type { UpgradeResult } from '../../server/upgrade/upgrading.js'
import { CANDOR_MAIN } from '../support/candor.js'
import { control, folderOf, imageAt, until } from '../support/controlled.js'
import { attach, lastFirst, logged, MIB, type Scope, stamped } from '../support/faults.js'
import { kill, lives, pidsOf, startLineage, untilGone } from '../support/lineage.js'
import { needs, needsRoot } from '../support/requirements.js'
import { SteadyClient } from '../support/steady-client.js'
import { makeTlsMaterial, TLS_PROGRAMS } from '../support/tls-material.js'

const DISK = 8 * MIB

function disk(folder: string): string {
  return `disk=${imageAt(join(folder, 'disk'), DISK)}`
}

test('TLS clients are served through the old process, which leaves when they have gone; new ones go to the new one', {
  skip: needs(...TLS_PROGRAMS),
}, async (t) => {
  const scope = lastFirst(t)
  const material = makeTlsMaterial(scope)
  const server = await startLineage(scope, (folder) => [disk(folder), '--tls', 'allow', '--tls-dir', material.server])
  const uri = `nbds+unix:///disk?socket=${join(server.folder, 'nbd')}&tls-certificates=${material.trusting}&tls-hostname=localhost`
  const enter = async () => enterTransmission(await beginHandshake(parseUri(uri)), 'disk')
  const secured = await enter()
  const working = new SteadyClient(secured, { start: 0, slots: 16, depth: 3 })
  const plain = await attach(`nbd+unix:///disk?socket=${join(server.folder, 'nbd')}`)
  await working.more(20)
  const reply = await server.ask({ command: 'upgrade' })
  assert.ok(reply.ok, JSON.stringify(reply))
  const { pid } = reply.result as UpgradeResult
  await working.more(50)
  await plain.write(4 * MIB, stamped(4 * MIB, MIB))
  assert.ok(lives(server.pid), 'the old process has the keys')
  const session = (await server.sessions()).find(({ tls }) => tls)
  assert.equal(session?.export, 'disk')

  const later = await enter()
  assert.ok(stamped(4 * MIB, MIB).equals(await later.read(4 * MIB, MIB)))
  await working.stop()
  await secured.disconnect()
  await untilGone(server.pid)
  assert.ok(stamped(4 * MIB, MIB).equals(await later.read(4 * MIB, MIB)))
  await later.disconnect()
  await plain.disconnect()
  kill(pid, 'SIGTERM')
  assert.deepEqual(logged(server.candor, /lost|unclean/), [])
  await server.candor.ended
})

/** A Unix datagram socket on which a service manager would listen; returns what it heard so far. */
async function listener(scope: Scope, path: string): Promise<() => string[]> {
  const program = [
    'import socket, sys',
    's = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)',
    's.bind(sys.argv[1])',
    'print("bound", flush=True)',
    'while True: print(s.recv(4096).decode(), flush=True)',
  ]
  const python = spawn('python3', ['-c', program.join('\n'), path], { stdio: ['ignore', 'pipe', 'inherit'] })
  scope.after(() => python.kill('SIGKILL'))
  const heard: string[] = []
  python.stdout.setEncoding('utf8').on('data', (text: string) => heard.push(...text.trim().split('\n')))
  while (!heard.includes('bound')) await once(python.stdout, 'data')
  return () => heard
}

test('the service manager hears which process serves, before that one says that it is ready and feeds the watchdog', {
  skip: needs('python3'),
}, async (t) => {
  const scope = lastFirst(t)
  const folder = folderOf(scope)
  const notify = join(folder, 'notify')
  const heard = await listener(scope, notify)
  const env = { NOTIFY_SOCKET: notify, WATCHDOG_USEC: '400000' }
  const server = await control(scope, folder, { words: [disk(folder)], env })
  scope.after(() => {
    for (const each of pidsOf(server.candor.stderr())) kill(each, 'SIGKILL')
  })
  const wait = (what: string, from: number) =>
    until(
      what,
      async () => heard().indexOf(what, from),
      (index) => index >= 0,
    )
  const first = await wait('READY=1', 0)
  const { pid } = await server.told<UpgradeResult>('upgrade')
  const reloading = await wait('RELOADING=1', first)
  const main = await wait(`MAINPID=${pid}`, reloading)
  const ready = await wait('READY=1', main)
  assert.deepEqual(
    heard()
      .slice(first + 1, main)
      .filter((line) => line === 'READY=1'),
    [],
  )
  await untilGone(server.candor.pid)
  await wait('WATCHDOG=1', Math.max(ready, heard().length))
  kill(pid, 'SIGTERM')
  await wait('STOPPING=1', ready)
  await server.candor.ended
})

test("sockets that an activator handed over stay the server's, and no other is opened", {
  skip: needs('systemd-socket-activate'),
}, async (t) => {
  const scope = lastFirst(t)
  const folder = folderOf(scope)
  const [socket, state] = [join(folder, 'nbd'), join(folder, 'state')]
  const serve = [process.execPath, CANDOR_MAIN, 'serve', disk(folder), '--http', 'off', '--state-dir', state]
  const activator = spawn('systemd-socket-activate', ['--listen', socket, ...serve], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stderr = ''
  activator.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  const ended = once(activator, 'close')
  scope.after(() => {
    for (const each of [...pidsOf(stderr), activator.pid ?? 0]) if (each > 0) kill(each, 'SIGKILL')
  })
  while (!/Listening on/.test(stderr)) await once(activator.stderr, 'data')
  const uri = `nbd+unix:///disk?socket=${socket}`
  const client = await attach(uri)
  await client.write(0, stamped(0, MIB))
  const reply = await askServer(state, { command: 'upgrade' })
  assert.ok(reply?.ok, JSON.stringify(reply))
  const { pid } = reply.result as UpgradeResult
  assert.ok(stamped(0, MIB).equals(await client.read(0, MIB)))
  const next = await attach(uri)
  assert.ok(stamped(0, MIB).equals(await next.read(0, MIB)))
  const sockets = readFileSync(`/proc/${pid}/net/tcp`, 'utf8')
  assert.doesNotMatch(sockets, /0100007F:2A39 00000000:0000 0A/, 'nobody listens on the default port')
  kill(pid, 'SIGTERM')
  await ended
})

/** The processes that a process has started, and those that came to it. */
function pidsInside(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number)
}

/** How a container begins: with the server, or with an init that waits for it. */
const BEGINNINGS: Readonly<Record<string, readonly string[]>> = {
  'process 1': [],
  'the child of process 1': ['sh', '-c', '"$@"; exit $?', 'sh'],
}

for (const [place, init] of Object.entries(BEGINNINGS)) {
  test(
    `as ${place} the first process stays: signals go on to the one that serves, whose exit code is its own`,
    { skip: needsRoot('unshare', 'setpriv') },
    (t) => stays(lastFirst(t), init),
  )
}

async function stays(scope: Scope, init: readonly string[]): Promise<void> {
  const folder = folderOf(scope)
  const wrapper = ['unshare', '--pid', '--fork', '--mount-proc', '--kill-child', '--', ...init]
  const server = await control(scope, folder, { words: [disk(folder)], wrapper })
  const [first = 0] = pidsInside(server.candor.pid)
  const [one = 0] = init.length === 0 ? [first] : pidsInside(first)
  const client = await attach(`nbd+unix:///disk?socket=${join(folder, 'nbd')}`)
  const working = new SteadyClient(client, { start: 0, slots: 16, depth: 2 })
  for (let upgrade = 0; upgrade < 3; upgrade++) {
    await working.more(10)
    const { pid } = await server.told<UpgradeResult>('upgrade')
    assert.notEqual(pid, 1)
  }
  // SIGUSR2 to process 1 means the server.
  const before = logged(server.candor, /serves$/).length
  kill(one, 'SIGUSR2')
  await until(
    'upgraded',
    async () => logged(server.candor, /serves$/).length,
    (count) => count > before,
  )
  await working.more(10)
  await working.stop()
  assert.ok(lives(one))
  await until(
    'asked',
    () => server.ask({ command: 'inject', name: 'disk', words: ['flush:EIO'] }),
    ({ ok }) => ok,
  )
  // To process 1, and to the server itself, as a supervisor does that knows them all: it is one signal.
  kill(one, 'SIGTERM')
  for (const each of pidsInside(one)) kill(each, 'SIGTERM')
  assert.equal(
    (await server.candor.ended).code,
    2,
    'the final sync failed, and whoever waits for process 1 learns of it',
  )
}

test('when the process that stays is killed, further upgrades go on without it', {
  skip: needsRoot('unshare', 'setpriv'),
}, async (t) => {
  const scope = lastFirst(t)
  const folder = folderOf(scope)
  // Process 1 does not end with the first process.
  const init = ['sh', '-c', '"$@" & wait; exec sleep 1000', 'sh']
  const wrapper = ['unshare', '--pid', '--fork', '--mount-proc', '--kill-child', '--', ...init]
  const server = await control(scope, folder, { words: [disk(folder)], wrapper })
  const [init1 = 0] = pidsInside(server.candor.pid)
  const [first = 0] = pidsInside(init1)
  const began = async () => (await server.candor.metrics()).get('process_start_time_seconds')
  const before = (await began()) ?? assert.fail('the process says when it began')
  // In whole seconds.
  await until(
    'another second',
    async () => Math.round(Date.now() / 1000),
    (now) => now > before,
  )
  await server.told<UpgradeResult>('upgrade')
  // The new process answers there when it knows of the one that stays.
  await until('the new process', began, (since) => since !== before)
  kill(first, 'SIGKILL')
  const uri = `nbd+unix:///disk?socket=${join(folder, 'nbd')}`
  // Descriptors that are free by then are theirs.
  const clients = [await attach(uri), await attach(uri), await attach(uri)]
  for (let upgrade = 0; upgrade < 2; upgrade++) {
    await server.told<UpgradeResult>('upgrade')
    for (const client of clients) await client.write(0, stamped(0, MIB))
  }
  await clients[0]?.flush()
  assert.deepEqual(logged(server.candor, /came to nothing|cannot be told/), [])
})
