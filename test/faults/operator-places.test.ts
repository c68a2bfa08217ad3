// Who comes second: sockets, state directories and images that are taken, and those that are taken no more. And how
// candor ends.
import assert from 'node:assert/strict'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Client, connectClient, NBD_ESHUTDOWN, RequestError } from 'nbd-protocol'
import { openStream, parseUri } from '../../server/cli/connect.js'
import { type RunningCandor, temporaryFolder } from '../support/candor.js'
import { attach, command, lastFirst, MIB, type Scope, serve, stamped } from '../support/faults.js'
import { type Mistake, QUIET, serving, testMistakes } from '../support/faults-mistakes.js'
import { sparseFile } from '../support/loop-disk.js'
import { openFiles } from '../support/open-files.js'
import { needs } from '../support/requirements.js'
import { untilMetrics } from '../support/tls-server.js'

async function takenPort(scope: Scope): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  scope.after(() => server.close())
  const address = server.address()
  return typeof address === 'object' && address !== null ? address.port : 0
}

const PLACES: readonly Mistake[] = [
  {
    title: 'an NBD port in use',
    words: async ({ scope, folder, image }) => {
      const listen = `tcp:127.0.0.1:${await takenPort(scope)}`
      return ['serve', image, '--state-dir', folder, '--http', 'off', '--listen', listen]
    },
    says: ['tcp:127.0.0.1:', 'in use', '--listen'],
  },
  {
    title: 'an HTTP port in use',
    words: async ({ scope, folder, image }) => {
      const http = `127.0.0.1:${await takenPort(scope)}`
      return ['serve', image, '--state-dir', folder, '--listen', 'tcp:127.0.0.1:0', '--http', http]
    },
    says: ['127.0.0.1:', 'in use', '--http'],
  },
  {
    title: 'a Unix socket on which a server listens',
    words: async (scene) => {
      const socket = `unix:${join(scene.folder, 'socket')}`
      await serve(scene.scope, [sparseFile(join(scene.folder, 'other'), MIB), '--listen', socket])
      return [...serving(scene, scene.image), '--listen', socket]
    },
    says: ['unix:{folder}/socket is in use', '--listen'],
  },
  {
    title: 'a file where the Unix socket should be',
    words: (scene) => [...serving(scene, scene.image), '--listen', `unix:${scene.image}`],
    says: ['{image} exists and is no socket', 'another path'],
  },
  {
    title: 'a Unix socket in a folder that does not exist',
    words: (scene) => [...serving(scene, scene.image), '--listen', `unix:${join(scene.folder, 'none', 'socket')}`],
    says: ['unix:{folder}/none/socket does not exist', 'make it first'],
  },
  {
    title: 'a state directory that another candor uses',
    words: async (scene) => {
      const state = join(scene.folder, 'state')
      await serve(scene.scope, [sparseFile(join(scene.folder, 'other'), MIB), '--state-dir', state])
      return serving(scene, scene.image)
    },
    says: ['the state directory {folder}/state is in use by another candor', '--state-dir'],
  },
  {
    title: 'a state directory that is a file',
    words: ({ image }) => ['serve', image, ...QUIET, '--state-dir', image],
    says: ['the state directory {image}', '--state-dir'],
  },
  {
    title: 'an image that another candor serves',
    words: async (scene) => {
      await serve(scene.scope, [scene.image])
      return serving(scene, scene.image)
    },
    says: ['{image} is in use', 'stop that one first'],
  },
  {
    title: 'an image that another candor may write, read-only',
    words: async (scene) => {
      await serve(scene.scope, [scene.image])
      return serving(scene, scene.image, '--read-only')
    },
    says: ['{image} is in use', 'stop that one first'],
  },
  {
    title: 'an image that another candor serves read-only, to be written',
    words: async (scene) => {
      await serve(scene.scope, [scene.image, '--read-only'])
      return serving(scene, scene.image)
    },
    says: ['{image} is in use', '--read-only'],
  },
]

testMistakes('places', PLACES)

const skip = needs('setpriv')

function scene(scope: Scope): { readonly folder: string; readonly image: string } {
  const { path: folder, remove } = temporaryFolder()
  scope.after(remove)
  return { folder, image: sparseFile(join(folder, 'disk.img'), MIB) }
}

test('a socket file that a killed server left behind is replaced, and only its owner may connect', {
  skip,
}, async (t) => {
  const scope = lastFirst(t)
  const { folder, image } = scene(scope)
  const socket = join(folder, 'socket')
  const first = await serve(scope, [image, '--listen', `unix:${socket}`])
  first.kill('SIGKILL')
  await first.ended
  assert.ok(existsSync(socket))
  const second = await serve(scope, [image, '--listen', `unix:${socket}`])
  assert.equal(statSync(socket).mode & 0o777, 0o600)
  const client = await attach(second)
  await client.write(0, stamped(0, MIB))
  assert.equal((await second.stop()).code, 0)
  assert.ok(!existsSync(socket), 'a clean end leaves no socket behind')
})

test('one image may be served read-only by several servers', { skip }, async (t) => {
  const scope = lastFirst(t)
  const { image } = scene(scope)
  const servers = await Promise.all([1, 2, 3].map(() => serve(scope, [image, '--read-only'])))
  for (const server of servers) {
    const client = await attach(server)
    assert.equal((await client.read(0, MIB)).length, MIB)
  }
})

test('a successor waits for a predecessor that is just ending, and then serves', { skip }, async (t) => {
  const scope = lastFirst(t)
  const { folder, image } = scene(scope)
  const first = await serve(scope, [image])
  await (await attach(first)).write(0, stamped(0, MIB))
  const note = join(folder, 'pid')
  const wrapper = ['sh', '-c', 'echo $$ >"$0"; exec "$@"', note]
  const starting = serve(scope, [image], { wrapper })
  await untilOpened(note, image)
  assert.equal((await first.stop()).code, 0)
  const second = await starting
  assert.equal(Buffer.compare(await (await attach(second)).read(0, MIB), stamped(0, MIB)), 0)
})

/** A process that waits for a lock tells nobody; that it has opened the image can be seen. */
async function untilOpened(note: string, image: string): Promise<void> {
  for (;;) {
    const pid = existsSync(note) ? readFileSync(note, 'utf8').trim() : ''
    if (pid !== '' && openFiles(pid).includes(image)) return
    await sleep(10)
  }
}

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test(`${signal} syncs and ends with exit code 0`, { skip }, async (t) => {
    const scope = lastFirst(t)
    const { image } = scene(scope)
    const candor = await serve(scope, [image])
    await (await attach(candor)).write(0, stamped(0, MIB))
    candor.kill(signal)
    const { code, stderr } = await candor.ended
    assert.equal(code, 0)
    assert.doesNotMatch(stderr, /^(?!\{"level":30,|$)/m, 'nothing but information is logged')
    assert.equal(Buffer.compare(readFileSync(image), stamped(0, MIB)), 0)
  })
}

test('a second signal ends candor at once, without the final sync, with exit code 2 and a word about it', {
  skip,
  timeout: 30_000,
}, async (t) => {
  const scope = lastFirst(t)
  const { folder, image } = scene(scope)
  const patience = ['--shutdown-timeout', '10m', '--reply-backlog-max', '32M']
  const candor = await serve(scope, [image, '--listen', `unix:${join(folder, 'candor.sock')}`, ...patience])
  const client = await attach(candor)
  const hungry = await attachWithoutTaking(scope, candor)
  for (let count = 0; count < 32; count++) hungry.read(0, MIB).catch(() => {})
  // The kernel keeps 4 MiB for a client, so that replies wait in candor from here on.
  await untilMetrics(candor, (metrics) => (metrics.get(READS) ?? 0) >= 16, '16 READs served')
  candor.kill('SIGTERM')
  await untilShutdown(client)
  candor.kill('SIGTERM')
  const { code, stderr } = await candor.ended
  assert.equal(code, 2)
  assert.match(stderr, /^candor was told twice to stop/m)
})

const READS = 'candor_requests_total{export="disk.img",frontend="nbd",command="read"}'

/** A client that takes no replies, for which a stop waits. */
async function attachWithoutTaking(scope: Scope, { uris }: RunningCandor): Promise<Client> {
  const target = parseUri(uris[0] ?? '')
  const stream = await openStream(target)
  scope.after(() => stream.close())
  let taking = true
  const client = await connectClient(
    {
      write: (bytes) => stream.write(bytes),
      read: () => (taking ? stream.read() : new Promise(() => {})),
      close: () => stream.close(),
    },
    target.exportName,
  )
  taking = false
  return client
}

/** The first signal has been heard when new requests are refused. */
async function untilShutdown(client: Client): Promise<void> {
  for (;;) {
    const refusal = await client.read(0, 512).then(
      () => undefined,
      (error: unknown) => error,
    )
    if (refusal === undefined) continue
    assert.ok(refusal instanceof RequestError && refusal.error === NBD_ESHUTDOWN, String(refusal))
    return
  }
}

test('--version and --help say what they should, with exit code 0', async () => {
  const version = await command(['--version'])
  assert.equal(version.code, 0)
  assert.match(version.stdout, /^\d+\.\d+\.\d+\S*\n$/)
  for (const words of [['--help'], ['serve', '--help'], ['create', '--help'], ['info', '--help']]) {
    const help = await command(words)
    assert.deepEqual([help.code, help.stderr], [0, ''])
    assert.ok(help.stdout.includes(words.length === 1 ? 'candor <command>' : `candor ${words[0]}`), help.stdout)
  }
})
