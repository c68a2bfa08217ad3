// `candor vhost-user-blk` by the "Backend program conventions" of the specification, as whoever runs guests starts it.
import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, fstatSync, readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_OUT } from 'vhost-user-protocol'
import { eventFd, openBackend, socketPair } from '../../backends/index.js'
import { CANDOR_MAIN, runCandor } from '../support/candor.js'
import { lastFirst, MIB, type Scope } from '../support/faults.js'
import { scratchFolder } from '../support/guest-images.js'
import { serveInProcess } from '../support/in-process.js'
import { sparseFile } from '../support/loop-disk.js'
import { needs, needsRoot } from '../support/requirements.js'
import { attachGuest, CACHED, FrontEnd } from '../support/vhost-user-guest.js'
import { GuestMachine } from '../support/vhost-user-machine.js'
import { NOTHING, patternOf, until } from '../support/vhost-user-served.js'

const DEPLOY = fileURLToPath(new URL('../../../deploy/vhost-user/', import.meta.url))

interface BackEnd {
  readonly child: ChildProcess
  readonly image: string
  readonly folder: string
  readonly ended: Promise<unknown[]>
}

/** `handedOver` becomes descriptor 3; the program is started by `wrapper`. */
function startBackEnd(
  scope: Scope,
  args: (folder: string) => readonly string[],
  handedOver?: number,
  wrapper: readonly string[] = [],
): BackEnd {
  const folder = scratchFolder(scope)
  const image = sparseFile(join(folder, 'disk=1.img'), 8 * MIB)
  const words = ['vhost-user-blk', '--blk-file', image, '--state-dir', join(folder, 'state'), ...args(folder)]
  const stdio = ['ignore', 'inherit', 'inherit', ...(handedOver === undefined ? [] : [handedOver])] as (
    | 'ignore'
    | number
  )[]
  const [program = '', ...rest] = [...wrapper, process.execPath, CANDOR_MAIN, ...words]
  const child = spawn(program, rest, { stdio })
  const ended = once(child, 'close')
  scope.after(() => {
    child.kill('SIGKILL')
    return ended
  })
  return { child, image, folder, ended }
}

/** Node's own handle knows it, and nobody else. */
function descriptorOf(server: Server): number {
  return (server as unknown as { readonly _handle: { readonly fd: number } })._handle.fd
}

function machineOf(scope: Scope): GuestMachine {
  const machine = new GuestMachine()
  scope.after(() => machine.close())
  return machine
}

test('it says what it can, whatever else it is told, and deploy/ says the same', async () => {
  const { code, stdout } = await runCandor([
    'vhost-user-blk',
    '--print-capabilities',
    '--blk-file',
    '/nowhere',
    '--odd=1',
  ])
  assert.equal(code, 0)
  const capabilities = JSON.parse(stdout) as { type: string; features: string[] }
  const described = JSON.parse(readFileSync(join(DEPLOY, '50-candor.json'), 'utf8')) as Record<string, unknown>
  // Of VHostUserBackendType and VHostUserBackendBlockFeature of QEMU's docs/interop/vhost-user.json.
  assert.deepEqual(capabilities, { type: 'block', features: ['read-only', 'blk-file'] })
  assert.deepEqual([described['type'], described['features']], [capabilities.type, capabilities.features])
  assert.match(String(described['binary']), /^\/.*\/candor-vhost-user-blk$/)
  assert.match(readFileSync(join(DEPLOY, 'candor-vhost-user-blk'), 'utf8'), /^exec candor vhost-user-blk "\$@"$/m)
})

test('--socket-path: it waits for guests, one after the other, and SIGTERM ends it', async (t: TestContext) => {
  const scope = lastFirst(t)
  const { child, image, folder, ended } = startBackEnd(scope, (place) => ['--socket-path', join(place, 'guest.sock')])
  const socket = join(folder, 'guest.sock')
  await until(async () => existsSync(socket))
  for (const seed of [1, 2]) {
    const guest = await attachGuest(socket, machineOf(scope), CACHED)
    assert.equal((await guest.do(VIRTIO_BLK_T_OUT, 0, patternOf(4096, seed), 0)).status, VIRTIO_BLK_S_OK)
    guest.close()
  }
  child.kill('SIGTERM')
  assert.deepEqual(await ended, [0, null])
  assert.ok(readFileSync(image).subarray(0, 4096).equals(patternOf(4096, 2)))
})

/** Whoever hands a socket over may live in another network than the one who gets it, as in a container. */
const PLACES = [
  { where: '', wrapper: [], skip: false },
  { where: ' of another network namespace', wrapper: ['unshare', '--net', '--'], skip: needsRoot('unshare') },
]
for (const { where, wrapper, skip } of PLACES) {
  test(`--fd with a connected socket${where}: it serves that guest, and ends with it`, {
    skip,
  }, async (t: TestContext) => {
    const scope = lastFirst(t)
    const [near, far] = socketPair()
    const { image, ended } = startBackEnd(scope, () => ['--fd', '3', '--read-only'], far, wrapper)
    closeSync(far)
    const guest = new FrontEnd(machineOf(scope), near)
    await guest.agree(CACHED)
    await guest.startRing(0)
    assert.equal((await guest.do(VIRTIO_BLK_T_FLUSH, 0, NOTHING, 0)).status, VIRTIO_BLK_S_OK)
    assert.equal((await guest.do(VIRTIO_BLK_T_OUT, 0, patternOf(4096, 1), 0)).status, VIRTIO_BLK_S_IOERR)
    guest.close()
    assert.deepEqual(await ended, [0, null])
    assert.ok(readFileSync(image).every((byte) => byte === 0))
  })
}

const OTHER_SOCKETS = [
  'socketpair(AF_UNIX, SOCK_SEQPACKET)[0]',
  'socketpair(AF_UNIX, SOCK_DGRAM)[0]',
  'socket(AF_UNIX)',
]
const HAND_OVER =
  'import os, sys; from socket import *; s = eval(sys.argv[1]); os.dup2(s.fileno(), 9); os.execv(sys.argv[2], sys.argv[2:])'

test('--fd with another kind of Unix socket is refused in a sentence', { skip: needs('python3') }, async (t) => {
  const image = sparseFile(join(scratchFolder(lastFirst(t)), 'disk.img'), MIB)
  for (const kind of OTHER_SOCKETS) {
    const words = [
      process.execPath,
      CANDOR_MAIN,
      'vhost-user-blk',
      '--blk-file',
      image,
      '--state-dir',
      'none',
      '--fd',
      '9',
    ]
    const { status, stderr } = spawnSync('python3', ['-c', HAND_OVER, kind, ...words], {
      encoding: 'utf8',
      timeout: 20_000,
    })
    assert.equal(status, 1, `${kind}: ${stderr}`)
    assert.match(stderr, /^[^\n]*descriptor 9 is no Unix stream socket that listens or is connected[^\n]*\n$/)
  }
})

test('a socket that cannot be watched ends the session that it was for, and nothing else', async (t) => {
  const { host, close } = await serveInProcess(await openBackend('memory', { size: MIB }))
  t.after(close)
  const fd = eventFd()
  host.attachVhostUser({ connection: 1, fd, exportName: 'disk', client: 'vhost-user' })
  assert.throws(() => fstatSync(fd), { code: 'EBADF' })
  assert.deepEqual(await host.ask({ command: 'sessions' }), { ok: true, result: [] })
})

test('--fd with a socket that listens: it serves who connects, as often as that is', async (t: TestContext) => {
  const scope = lastFirst(t)
  // An abstract name: closing a listener here would remove the path of the one that was handed over.
  const socket = `\0candor-test-${process.pid}`
  const server = createServer().listen(socket)
  await once(server, 'listening')
  const { child, ended } = startBackEnd(scope, () => ['--fd', '3'], descriptorOf(server))
  server.close()
  for (const seed of [1, 2]) {
    const guest = await attachGuest(socket, machineOf(scope), CACHED)
    assert.equal((await guest.do(VIRTIO_BLK_T_OUT, 0, patternOf(4096, seed), 0)).status, VIRTIO_BLK_S_OK)
    guest.close()
  }
  child.kill('SIGTERM')
  assert.deepEqual(await ended, [0, null])
})

test('mistakes are told in a sentence, with exit code 1', async (t: TestContext) => {
  const scope = lastFirst(t)
  const image = sparseFile(join(scratchFolder(scope), 'disk.img'), MIB)
  const cases = [
    [['--socket-path', '/tmp/x'], /no image is given: --blk-file PATH/],
    [['--blk-file', image], /no socket is given: --socket-path PATH, or --fd NUMBER/],
    [['--blk-file', image, '--fd', '3', '--socket-path', '/tmp/x'], /say the same: give one of them/],
    [['--blk-file', image, '--fd', '2'], /0, 1 and 2 are input, output and errors/],
    [['--blk-file', image, '--fd', 'x'], /--fd is 'x'/],
    [
      ['--blk-file', image, '--fd', '9999'],
      /descriptor 9999 is no Unix stream socket that listens or is connected: give --socket-path PATH/,
    ],
    [['--blk-file', image, '--socket-path', `/tmp/${'x'.repeat(120)}`], /--socket-path's path has more than 107 bytes/],
    [['--blk-file', '/nowhere/disk', '--socket-path', '/tmp/x', '--state-dir', 'none'], /\/nowhere\/disk/],
  ] as const
  for (const [args, sentence] of cases) {
    const { code, stderr } = await runCandor(['vhost-user-blk', ...args])
    assert.equal(code, 1, args.join(' '))
    assert.match(stderr, sentence)
    assert.doesNotMatch(stderr, /\n.*\n/)
  }
  const serve = await runCandor(['serve', image, '--state-dir', 'none', '--listen', 'vhost-user:nobody@/tmp/x'])
  assert.deepEqual(
    [serve.code, /names export 'nobody', which is not served/.test(serve.stderr)],
    [1, true],
    serve.stderr,
  )
  const empty = await runCandor(['serve', image, '--listen', 'vhost-user:'])
  assert.match(empty.stderr, /write tcp:HOST:PORT, unix:PATH or vhost-user:PATH/)
})
