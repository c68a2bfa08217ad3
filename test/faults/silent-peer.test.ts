// Clients that go while their writes are held and their sockets are not read: what they wrote must not land later. And
// one that only says no more, which gets its replies.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { type RunningCandor, temporaryFolder } from '../support/candor.js'
import { assertZero, attach, command, KIB, lastFirst, MIB, type Scope, serve } from '../support/faults.js'
import { needsLibnbd } from '../support/faults-clients.js'
import { type LoopDisk, mountLoopDisk, sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'
import { untilMetrics } from '../support/tls-server.js'

const PYTHON = '/usr/bin/python3'
const IN_FLIGHT = 4
const WATCHDOG_MS = 60_000

/** Writes 64 KiB pieces without waiting for answers, then NBD_CMD_DISC if told to; prints what each came to. */
const WRITER = `
import nbd, sys
uri, count, leaves = sys.argv[1], int(sys.argv[2]), sys.argv[3] == 'leave'
h = nbd.NBD()
h.connect_uri(uri)
errors = []
def done(error):
    errors.append(error if isinstance(error, int) else error.value)
    return 1
for index in range(count):
    h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b'\\x77' * 65536)), index * 65536, done)
if leaves:
    h.aio_disconnect()
print('sent', flush=True)
while h.aio_in_flight() > 0:
    h.poll(-1)
print('done', sorted(errors), flush=True)
`

interface Full {
  readonly disk: LoopDisk
  readonly image: string
  /** Gives back what fills the disk. */
  free(): void
}

/** A disk on which nothing more may be written; the reserve is what is free, and a little. */
function full(scope: Scope): Full & { readonly reserve: number } {
  const disk = mountLoopDisk(scope, { type: 'ext4', sizeMiB: 128 })
  const filler = join(disk.folder, 'filler')
  writeFileSync(filler, Buffer.alloc(64 * MIB))
  const image = sparseFile(join(disk.folder, 'disk.img'), 256 * MIB)
  disk.settle()
  const free = () => {
    rmSync(filler)
    disk.settle()
  }
  return { disk, image, free, reserve: disk.freeBytes() + MIB }
}

async function heldOn(scope: Scope) {
  const { image, free, reserve } = full(scope)
  const folder = temporaryFolder()
  scope.after(folder.remove)
  const unix = join(folder.path, 'nbd')
  const listen = ['--listen', 'tcp:127.0.0.1:0', '--listen', `unix:${unix}`]
  const state = ['--state-dir', join(folder.path, 'state')]
  const hold = ['--on-enospc', 'hold=5m', '--reserve', String(reserve), '--in-flight-max', String(IN_FLIGHT)]
  const candor = await serve(scope, [`disk=${image}`, ...listen, ...hold, ...state])
  /** Tries all that is held again. */
  const retry = async () => assert.equal((await command(['ctl', 'hold-release', 'disk', ...state])).code, 0)
  return { candor, free, retry }
}

function write(scope: Scope, uri: string, count: number, how: 'stay' | 'leave') {
  const child = spawn(PYTHON, ['-c', WRITER, uri, String(count), how], { stdio: ['ignore', 'pipe', 'inherit'] })
  const closed = once(child, 'close')
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
  })
  const kill = () => {
    child.kill('SIGKILL')
    return closed
  }
  scope.after(kill)
  return { kill, closed, output: () => output }
}

const HELD = 'candor_requests_held{export="disk"}'

const untilHeld = (candor: RunningCandor): Promise<void> =>
  untilMetrics(candor, (metrics) => metrics.get(HELD) === IN_FLIGHT, 'the writes are held')

const untilNobody = (candor: RunningCandor): Promise<void> => {
  const nobody = (metrics: ReadonlyMap<string, number>) =>
    metrics.get(HELD) === 0 && metrics.get('candor_connections') === 0
  return untilMetrics(candor, nobody, 'the dead client is noticed')
}

describe('a client that is killed while its writes are held and its socket is not read', {
  timeout: WATCHDOG_MS,
}, () => {
  // 8 fit in the sockets' buffers, and the end of the stream comes right behind them; 200 do not.
  for (const [place, count] of [
    ['tcp', 8],
    ['tcp', 200],
    ['unix', 200],
  ] as const) {
    test(`writes nothing later (${place}, ${count} writes of 64 KiB)`, {
      skip: needsLibnbd() || needsRoot('mkfs.ext4', 'losetup', 'setpriv'),
    }, async (t) => {
      const scope = lastFirst(t)
      const { candor, free } = await heldOn(scope)
      const uri = candor.uris.find((each) => each.startsWith(place === 'unix' ? 'nbd+unix:' : 'nbd:')) ?? ''
      const writer = write(scope, uri, count, 'stay')
      await untilHeld(candor)
      await writer.kill()
      await untilNobody(candor)
      const dropped = (await candor.metrics()).get('candor_requests_dropped_total{export="disk"}')
      assert.equal(dropped, IN_FLIGHT)
      free()
      const client = await attach(candor)
      await client.write(128 * MIB, Buffer.alloc(4096, 1))
      await assertZero(client, 0, count * 64 * KIB)
      assert.equal((await candor.stop()).code, 0)
    })
  }
})

describe('a client that says NBD_CMD_DISC, shuts down its sending side and waits', { timeout: WATCHDOG_MS }, () => {
  test('gets the replies of its held writes (libnbd over TCP)', {
    skip: needsLibnbd() || needsRoot('mkfs.ext4', 'losetup', 'setpriv'),
  }, async (t) => {
    const scope = lastFirst(t)
    const { candor, free, retry } = await heldOn(scope)
    const writer = write(scope, candor.uris[0] ?? '', 6, 'leave')
    await untilHeld(candor)
    while (!writer.output().includes('sent')) await new Promise((resolve) => setImmediate(resolve))
    for (let count = 0; count < 3; count++) await retry()
    free()
    await writer.closed
    assert.equal(writer.output(), 'sent\ndone [0, 0, 0, 0, 0, 0]\n')
  })
})
