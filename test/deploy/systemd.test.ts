// candor under a service manager: sockets that are handed over, what it tells of itself, and the units that ship with it.
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { ServiceManager } from '../../server/service-manager.js'
import { CANDOR_MAIN, temporaryFolder } from '../support/candor.js'
import { needs } from '../support/requirements.js'

const UNITS = fileURLToPath(new URL('../../../deploy/systemd', import.meta.url))
const EXPOSURE_MAX = 2.5

function imageIn(t: TestContext): { folder: string; serve: string[] } {
  const { path: folder, remove } = temporaryFolder()
  t.after(remove)
  const image = join(folder, 'disk.img')
  writeFileSync(image, '')
  truncateSync(image, 1 << 20)
  const flags = ['--http', 'off', '--state-dir', join(folder, 'state')]
  return { folder, serve: [process.execPath, CANDOR_MAIN, 'serve', image, ...flags] }
}

/** Waits for the pattern, and reads on. */
async function firstLine(stream: Readable, pattern: RegExp): Promise<void> {
  let text = ''
  stream.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
  })
  while (!pattern.test(text)) await once(stream, 'data')
}

function ended(t: TestContext, child: ChildProcess): Promise<unknown> {
  t.after(() => child.kill('SIGKILL'))
  return once(child, 'exit')
}

test('nbdinfo starts candor on a socket that it listens on itself, and stops it', { skip: needs('nbdinfo') }, (t) => {
  const { serve, folder } = imageIn(t)
  const size = execFileSync('nbdinfo', ['--size', '--', '[', ...serve, ']'], { encoding: 'utf8', cwd: folder })
  assert.equal(size, `${1 << 20}\n`)
})

test('a real activator starts candor at the first connection, over TCP and a Unix socket at once', {
  skip: needs('systemd-socket-activate', 'nbdinfo'),
}, async (t) => {
  const { serve, folder } = imageIn(t)
  const [unix, port] = [join(folder, 'nbd.sock'), 20_000 + (process.pid % 20_000)]
  const listen = ['--listen', unix, '--listen', `127.0.0.1:${port}`]
  const stdio: ['ignore', 'pipe', 'pipe'] = ['ignore', 'pipe', 'pipe']
  const activator = spawn('systemd-socket-activate', [...listen, ...serve], { stdio })
  const end = ended(t, activator)
  await firstLine(activator.stderr, /Listening on 127/)
  const sizes = [`nbd+unix:///?socket=${unix}`, `nbd://127.0.0.1:${port}`].map((uri) =>
    execFileSync('nbdinfo', ['--size', uri], { encoding: 'utf8' }),
  )
  assert.deepEqual(sizes, [`${1 << 20}\n`, `${1 << 20}\n`])
  activator.kill('SIGTERM')
  assert.deepEqual(await end, [0, null])
  assert.ok(existsSync(unix), 'the socket of the activator stays for the next start')
})

/** A socket for notifications, and the lines that it hears. */
async function listener(t: TestContext) {
  const { path: folder, remove } = temporaryFolder()
  t.after(remove)
  const notify = join(folder, 'notify')
  const program = [
    'import socket, sys',
    's = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)',
    's.bind(sys.argv[1])',
    'print("bound", flush=True)',
    'while True: print(s.recv(4096).decode(), flush=True)',
  ].join('\n')
  const python = spawn('python3', ['-c', program, notify], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => python.kill('SIGKILL'))
  const heard: string[] = []
  python.stdout.setEncoding('utf8').on('data', (text: string) => heard.push(...text.trim().split('\n')))
  const until = async (word: string) => {
    while (!heard.includes(word)) await once(python.stdout, 'data')
  }
  await until('bound')
  return { heard, notify, until }
}

test('a start that takes long asks for time until it is over', { skip: needs('python3') }, async (t) => {
  const { heard, notify, until } = await listener(t)
  const extensions = () => heard.filter((line) => line === 'EXTEND_TIMEOUT_USEC=30000000').length
  t.mock.timers.enable({ apis: ['setInterval'] })
  const manager = new ServiceManager({ NOTIFY_SOCKET: notify })
  manager.starting()
  t.mock.timers.tick(40_000)
  manager.ready('up')
  t.mock.timers.tick(40_000)
  manager.reloaded('after')
  await until('STATUS=after')
  assert.equal(extensions(), 5)
  assert.ok(heard.lastIndexOf('EXTEND_TIMEOUT_USEC=30000000') < heard.indexOf('READY=1'))
})

test('the service manager hears of readiness, of life, and of the end', { skip: needs('python3') }, async (t) => {
  const { serve, folder } = imageIn(t)
  const [file = '', ...args] = serve
  const { heard, notify, until } = await listener(t)
  const env = { ...process.env, NOTIFY_SOCKET: notify, WATCHDOG_USEC: '200000' }
  const candor = spawn(file, [...args, '--listen', `unix:${folder}/s`], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  const end = ended(t, candor)
  await Promise.all([firstLine(candor.stdout, /^ready/m), until('READY=1')])
  assert.ok(heard.includes('STATUS=serving disk.img'))
  const first = heard.indexOf('EXTEND_TIMEOUT_USEC=30000000')
  assert.ok(first !== -1 && first < heard.indexOf('READY=1'), 'time is asked for before it is ready')
  await until('WATCHDOG=1')
  heard.length = 0
  candor.kill('SIGHUP')
  await until('READY=1')
  const usec = Number(/^MONOTONIC_USEC=(\d+)$/.exec(heard.find((line) => line.startsWith('MONO')) ?? '')?.[1])
  assert.ok(heard.indexOf('RELOADING=1') < heard.indexOf('READY=1') && heard.includes('RELOADING=1'))
  // systemd's clock is the one that hrtime has.
  const now = Number(process.hrtime.bigint() / 1000n)
  assert.ok(usec <= now && usec > now - 60_000_000, `${usec} is not just before ${now}`)
  candor.kill('SIGTERM')
  await until('STOPPING=1')
  await until('EXTEND_TIMEOUT_USEC=30000000')
  assert.deepEqual(await end, [0, null])
})

test('a descriptor that is no socket is refused with a sentence', (t) => {
  const { serve, folder } = imageIn(t)
  const words = `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3</dev/null`
  const refused = assert.throws(
    () => execFileSync('sh', ['-c', words, 'sh', ...serve], { cwd: folder, stdio: 'pipe' }),
    {
      status: 1,
      message: /LISTEN_FDS hands over descriptor 3, which is no socket: see the socket unit/,
    },
  )
  assert.equal(refused, undefined)
})

test('the units are sound, and expose little', { skip: needs('systemd-analyze') }, () => {
  for (const unit of ['candor.service', 'candor@.service']) {
    const path = join(UNITS, unit)
    const report = execFileSync('systemd-analyze', ['security', '--offline=true', '--no-pager', path], {
      encoding: 'utf8',
    })
    const [, level = 'none'] = /Overall exposure level for \S+: ([\d.]+)/.exec(report) ?? []
    assert.ok(Number(level) < EXPOSURE_MAX, `${unit}: ${level}`)
  }
})
