// Written zeroes as holes: which writes become one, what they tell and clear, and that all others stay what they were.
import assert from 'node:assert/strict'
import { statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { NBD_CMD_FLAG_FUA, NBD_EIO, NBD_ENOSPC, NBD_EPERM } from 'nbd-protocol'
import { isZero } from '../../backends/detect-zeroes.js'
import {
  DONE,
  EIO,
  ENOSPC,
  type Fault,
  type Operation,
  openBackend,
  SYNC_FAILED,
  WOULD_BLOCK,
  withFaults,
  withZeroDetection,
} from '../../backends/index.js'
import { runCandor, temporaryFolder } from '../support/candor.js'
import { attach, errorsCounted, refused, serve } from '../support/faults.js'
import { failing, nbdError } from '../support/faulty-disk.js'
import { serveInProcess } from '../support/in-process.js'
import { conformance, read } from './conformance.js'

const PAGE = 4096
const SIZE = 1 << 20
const folder = temporaryFolder()
after(() => folder.remove())
let images = 0

async function openDetecting(size: number) {
  const path = join(folder.path, `${images++}.img`)
  return withZeroDetection(await openBackend('sparse-file', { path, readOnly: false, create: size }))
}

conformance('sparse file that detects zeroes', openDetecting)

/** A disk in memory full of ones that tells what it is asked; `fault` fails it. */
async function watched(fault: (operation: Operation) => Fault | undefined = () => undefined) {
  const inner = await openBackend('memory', { size: SIZE })
  inner.writeNow(new Uint8Array(SIZE).fill(1), 0, SIZE, 0)
  const asked: string[] = []
  const disk = withZeroDetection(
    withFaults(inner, (operation) => {
      const { command, offset, length, durable, now } = operation
      asked.push([command, now ? 'now' : 'later', offset, length, ...(durable ? ['durable'] : [])].join(' '))
      return fault(operation)
    }),
  )
  const write = (data: Uint8Array, offset: number, durable = false) => {
    const outcome = durable ? WOULD_BLOCK : disk.writeNow(data, 0, data.length, offset)
    return outcome === WOULD_BLOCK ? disk.write(data, 0, data.length, offset, durable) : outcome
  }
  return { disk, asked, write }
}

test('one byte that is no zero is found wherever it stands', () => {
  for (const length of [1, 2, 3, 7, 8, 9, 63, 64, 65, 512, PAGE]) {
    const bytes = new Uint8Array(length + 20).fill(9)
    for (const start of [0, 1, 7, 13]) {
      bytes.fill(9).fill(0, start, start + length)
      assert.ok(isZero(bytes, start, length), `${length} zeroes at ${start}`)
      for (let at = start; at < start + length; at++) {
        bytes[at] = 0x80
        assert.ok(!isZero(bytes, start, length), `${length} bytes at ${start}, one at ${at}`)
        bytes[at] = 0
      }
    }
  }
})

describe('a write', () => {
  const ZEROED = [
    ['of a page', 0, PAGE],
    ['of many', 8 * PAGE, 64 * PAGE],
    ['with an unaligned head and tail around a page', PAGE - 100, PAGE + 200],
    ['to the very end', SIZE - 2 * PAGE, 2 * PAGE],
  ] as const
  for (const [what, offset, length] of ZEROED) {
    test(`of zeroes ${what} becomes a hole, durable where it was`, async () => {
      for (const durable of [false, true]) {
        const { disk, asked, write } = await watched()
        assert.equal(await write(new Uint8Array(length), offset, durable), DONE)
        assert.deepEqual(asked, [`zero later ${offset} ${length}${durable ? ' durable' : ''}`])
        const around = await read(disk, Math.max(0, offset - 1), length + 1)
        assert.ok(
          around.subarray(offset === 0 ? 0 : 1, around.length - (offset === 0 ? 1 : 0)).every((byte) => byte === 0),
        )
        if (offset > 0) assert.equal(around[0], 1)
      }
    })
  }

  test('of zeroes that covers no whole page, or with one other byte, is written as it is', async () => {
    const almost = (at: number) => new Uint8Array(2 * PAGE).fill(5, at, at + 1)
    const cases: readonly [Uint8Array, number][] = [
      [new Uint8Array(PAGE - 1), PAGE],
      [new Uint8Array(2 * PAGE - 2), PAGE + 1],
      [new Uint8Array(512), 0],
      ...[0, 1, PAGE - 1, PAGE, 2 * PAGE - 1].map((at): [Uint8Array, number] => [almost(at), 0]),
    ]
    for (const [data, offset] of cases) {
      const { disk, asked, write } = await watched()
      assert.equal(await write(data, offset), DONE)
      assert.deepEqual(asked, [`write now ${offset} ${data.length}`])
      assert.deepEqual(await read(disk, offset, data.length), data)
    }
  })

  test('of zeroes that the host cannot punch for want of space is written; any other error is told', async () => {
    for (const [outcome, told, calls] of [
      [ENOSPC, DONE, 2],
      [ENOSPC | SYNC_FAILED, ENOSPC | SYNC_FAILED, 1],
      [EIO, EIO, 1],
    ] as const) {
      const { asked, write } = await watched(({ command }) => (command === 'zero' ? { outcome } : undefined))
      assert.equal(await write(new Uint8Array(PAGE), 0), told)
      assert.equal(asked.length, calls)
    }
    const { write } = await watched(({ command }) => (command === 'cache' ? undefined : { outcome: ENOSPC }))
    assert.equal(await write(new Uint8Array(PAGE), 0), ENOSPC)
  })
})

describe('served', () => {
  async function served() {
    const made = { plan: failing('cache', EIO) }
    const inner = withFaults(await openBackend('memory', { size: SIZE }), (operation) => made.plan(operation))
    const server = await serveInProcess(withZeroDetection(inner))
    after(() => server.close())
    return Object.assign(made, { server })
  }

  test('zeroes clear what was suspect as any other write does, and a failure of theirs marks as theirs', async () => {
    const disk = await served()
    const client = await disk.server.client()
    await client.write(0, new Uint8Array(4 * PAGE).fill(1))
    disk.plan = failing('flush', EIO | SYNC_FAILED)
    await assert.rejects(client.flush(), nbdError(NBD_EIO))
    await assert.rejects(client.read(PAGE, PAGE), nbdError(NBD_EIO))
    await client.write(PAGE, new Uint8Array(PAGE))
    assert.deepEqual(await client.read(PAGE, PAGE), new Uint8Array(PAGE))
    await assert.rejects(client.read(PAGE - 1, 2), nbdError(NBD_EIO))
    await assert.rejects(client.read(2 * PAGE, 1), nbdError(NBD_EIO))
    disk.plan = failing('zero', EIO)
    await assert.rejects(client.write(3 * PAGE, new Uint8Array(PAGE)), nbdError(NBD_EIO))
    await assert.rejects(client.read(3 * PAGE, 1), nbdError(NBD_EIO))
  })

  test('a durable write of zeroes whose sync fails degrades the export', async () => {
    const disk = await served()
    const client = await disk.server.client()
    disk.plan = failing('zero', EIO | SYNC_FAILED)
    await assert.rejects(client.write(0, new Uint8Array(PAGE), NBD_CMD_FLAG_FUA), nbdError(NBD_EIO))
    assert.equal(disk.server.served.state, 'degraded')
    await assert.rejects(client.flush(), nbdError(NBD_EIO))
  })

  test('zeroes keep their place among overlapping writes that are sent at once', async () => {
    const disk = await served()
    const client = await disk.server.client()
    const fill = (byte: number) => new Uint8Array(2 * PAGE).fill(byte)
    for (const order of [
      [1, 0, 2],
      [0, 1, 0],
      [2, 0, 0],
      [0, 0, 3],
    ]) {
      await Promise.all(order.map((byte) => client.write(PAGE / 2, fill(byte))))
      assert.deepEqual(await client.read(PAGE / 2, 2 * PAGE), fill(order.at(-1) ?? 0))
    }
  })
})

describe('candor serve --detect-zeroes', () => {
  const zeroes = new Uint8Array(64 * PAGE)

  test('is for the export that it names; a read-only one refuses zeroes as it refuses all', async (t) => {
    const paths = ['a', 'b', 'c'].map((name) => `${name}=${folder.path}/${name}.img`)
    for (const path of paths) writeFileSync(path.slice(2), new Uint8Array(SIZE).fill(1))
    const flags = ['--detect-zeroes', 'on', '--detect-zeroes', 'b=off', '--read-only-export', 'c']
    const candor = await serve(t, [...paths, '--listen', `unix:${folder.path}/s`, ...flags])
    for (const [at, name] of ['a', 'b'].entries()) {
      const client = await attach(candor.uris[at] ?? '')
      await client.write(0, zeroes)
      await client.disconnect()
      const { blocks } = statSync(`${folder.path}/${name}.img`)
      assert.equal(blocks * 512, name === 'a' ? SIZE - zeroes.length : SIZE, name)
    }
    await refused((await attach(candor.uris[2] ?? '')).write(0, zeroes), NBD_EPERM)
  })

  test('refuses a word that it does not know', async () => {
    const { code, stderr } = await runCandor(['serve', 'x.img', '--detect-zeroes', 'unmap'])
    assert.equal(code, 1)
    assert.match(stderr, /^candor: --detect-zeroes is 'unmap': write on, .* or off\n$/)
  })

  test('counts the errors of such writes as those of writes', async (t) => {
    const flags = ['--detect-zeroes', 'on', '--inject', 'write:ENOSPC', '--create', '1M']
    const candor = await serve(t, [`d=${folder.path}/d.img`, '--listen', `unix:${folder.path}/d`, ...flags])
    await refused((await attach(candor)).write(0, zeroes), NBD_ENOSPC)
    assert.equal(await errorsCounted(candor, { export: 'd', command: 'write', errno: 'ENOSPC' }), 1)
  })
})
