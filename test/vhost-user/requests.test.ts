// Requests of a guest at the real program, through sockets, shared memory and a ring: what each is answered with.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { type TestContext, test } from 'node:test'
import {
  bits,
  encodeDiscardSegments,
  VIRTIO_BLK_S_IOERR as IOERR,
  VIRTIO_BLK_S_OK as OK,
  VIRTIO_BLK_S_UNSUPP as UNSUPP,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
} from 'vhost-user-protocol'
import { attach, errorsCounted, lastFirst, MIB, type Scope } from '../support/faults.js'
import { CACHED, type FrontEnd } from '../support/vhost-user-guest.js'
import { DISK_BYTES, NOTHING, newGuest, patternOf, SECTOR, serveGuests } from '../support/vhost-user-served.js'

const CHANGES = bits(VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES)
const SECTORS = DISK_BYTES / SECTOR

function guest(scope: Scope, socket: string, packed: boolean): Promise<FrontEnd> {
  return newGuest(scope, socket, { packed, features: CACHED | CHANGES })
}

for (const packed of [false, true]) {
  const kind = packed ? 'packed' : 'split'

  test(`by a ${kind} ring a guest reads what it wrote, in one piece and in many, and NBD reads the same`, async (t) => {
    const scope = lastFirst(t)
    const { candor, image, socket } = await serveGuests(scope)
    const front = await guest(scope, socket, packed)
    const shapes = [{}, { pieces: 3 }, { pieces: 20, indirect: true }]
    for (const [index, shape] of shapes.entries()) {
      const data = patternOf(64 << 10, index)
      assert.equal((await front.do(VIRTIO_BLK_T_OUT, 1000 * index, data, 0, shape)).status, OK)
      const { status, data: read, written } = await front.do(VIRTIO_BLK_T_IN, 1000 * index, NOTHING, data.length, shape)
      assert.deepEqual([status, written], [OK, data.length + 1])
      assert.ok(read.equals(data))
      const client = await attach(candor)
      assert.ok(data.equals(Buffer.from(await client.read(512_000 * index, data.length))))
      await client.disconnect()
    }
    const large = patternOf(3 * MIB, 9)
    assert.equal((await front.do(VIRTIO_BLK_T_OUT, 40_000, large, 0, { pieces: 100, indirect: true })).status, OK)
    const read = await front.do(VIRTIO_BLK_T_IN, 40_000, NOTHING, large.length, { pieces: 7 })
    assert.ok(read.data.equals(large))
    assert.equal((await front.do(VIRTIO_BLK_T_FLUSH, 0, NOTHING, 0)).status, OK)
    assert.ok(
      readFileSync(image)
        .subarray(40_000 * 512, 40_000 * 512 + large.length)
        .equals(large),
    )
  })

  test(`by a ${kind} ring what cannot be done is IOERR, what is not known UNSUPP, and each is answered`, async (t) => {
    const scope = lastFirst(t)
    const { candor, socket } = await serveGuests(scope)
    const front = await guest(scope, socket, packed)
    const bad = [
      ['past the end', VIRTIO_BLK_T_IN, SECTORS, NOTHING, 512],
      ['over the end', VIRTIO_BLK_T_OUT, SECTORS - 1, patternOf(1024, 1), 0],
      ['far past the end', VIRTIO_BLK_T_OUT, 2 ** 52, patternOf(512, 1), 0],
      ['no whole sectors', VIRTIO_BLK_T_IN, 0, NOTHING, 511],
      ['no whole sectors', VIRTIO_BLK_T_OUT, 0, patternOf(513, 1), 0],
      ['no segment', VIRTIO_BLK_T_DISCARD, 0, NOTHING, 0],
      ['half a segment', VIRTIO_BLK_T_DISCARD, 0, patternOf(24, 1), 0],
      ['a segment past the end', VIRTIO_BLK_T_DISCARD, 0, segments([SECTORS, 8, 0]), 0],
      [
        'too many segments',
        VIRTIO_BLK_T_DISCARD,
        0,
        segments(...Array.from({ length: 17 }, () => [0, 8, 0] as const)),
        0,
      ],
      ['too long a segment', VIRTIO_BLK_T_WRITE_ZEROES, 0, segments([0, 2 ** 22 + 1, 1]), 0],
    ] as const
    for (const [what, type, sector, data, wants] of bad) {
      assert.equal((await front.do(type, sector, data, wants)).status, IOERR, what)
    }
    const long = patternOf(32 * MIB + SECTOR, 1)
    assert.equal((await front.do(VIRTIO_BLK_T_OUT, 0, long, 0, { pieces: 120, indirect: true })).status, IOERR)
    const longest = long.subarray(SECTOR)
    assert.equal((await front.do(VIRTIO_BLK_T_OUT, 0, longest, 0, { pieces: 120, indirect: true })).status, OK)
    const odd = [
      ['an unmapping discard', VIRTIO_BLK_T_DISCARD, segments([0, 8, 1])],
      ['flags of the future', VIRTIO_BLK_T_WRITE_ZEROES, segments([0, 8, 2])],
      ['a type of the future', 99, NOTHING],
      ['a SCSI command', 2, NOTHING],
    ] as const
    for (const [what, type, data] of odd) assert.equal((await front.do(type, 0, data, 0)).status, UNSUPP, what)
    const writes = { export: 'disk', command: 'write', errno: 'ENOSPC' }
    assert.equal(await errorsCounted(candor, writes), 2)
    assert.equal((await front.do(VIRTIO_BLK_T_IN, 0, NOTHING, 512)).status, OK)
  })
}

function segments(...each: readonly (readonly [number, number, number])[]): Uint8Array {
  return encodeDiscardSegments(each.map(([sector, sectors, flags]) => ({ sector, sectors, flags })))
}

test('a discard gives space back, zeroes with and without their space are zeroes, and the disk says its name', async (t) => {
  const scope = lastFirst(t)
  const { image, socket, candor } = await serveGuests(scope)
  const front = await guest(scope, socket, false)
  const data = patternOf(4 * MIB, 3)
  assert.equal((await front.do(VIRTIO_BLK_T_OUT, 0, data, 0)).status, OK)
  const discard = segments([0, 2048, 0], [4096, 2048, 0])
  assert.equal((await front.do(VIRTIO_BLK_T_DISCARD, 0, discard, 0)).status, OK)
  const zeroes = segments([2048, 1024, 1], [3072, 512, 0])
  assert.equal((await front.do(VIRTIO_BLK_T_WRITE_ZEROES, 0, zeroes, 0)).status, OK)
  const expected = Buffer.from(data)
  expected.fill(0, 0, 3584 * 512)
  expected.fill(0, 4096 * 512, 6144 * 512)
  assert.ok(readFileSync(image).subarray(0, data.length).equals(expected))
  const client = await attach(candor, { contexts: ['base:allocation'], replyStyle: 'structured' })
  const runs = (await client.blockStatus(0, 4 * MIB)).get('base:allocation') ?? []
  const holes = runs.filter(({ flags }) => (flags & 1) !== 0).reduce((sum, { length }) => sum + length, 0)
  assert.equal(holes, (2048 + 2048 + 1024) * 512)
  const { status, data: name, written } = await front.do(VIRTIO_BLK_T_GET_ID, 0, NOTHING, 20)
  assert.deepEqual([status, name.toString(), written], [OK, 'disk'.padEnd(20, '\0'), 21])
  // More room than the name takes, and an answer without data: the length is what was written from the front on.
  assert.equal((await front.do(VIRTIO_BLK_T_GET_ID, 0, NOTHING, 64)).written, 20)
  const past = await front.do(VIRTIO_BLK_T_IN, DISK_BYTES / SECTOR, NOTHING, 4096)
  assert.deepEqual([past.status, past.written], [IOERR, 0])
})

test('a read-only export refuses every change, and reads', async (t: TestContext) => {
  const scope = lastFirst(t)
  const { socket, candor } = await serveGuests(scope, '--read-only')
  const front = await guest(scope, socket, false)
  assert.equal((await front.do(VIRTIO_BLK_T_OUT, 0, patternOf(512, 1), 0)).status, IOERR)
  assert.equal((await front.do(VIRTIO_BLK_T_DISCARD, 0, segments([0, 8, 0]), 0)).status, IOERR)
  assert.equal((await front.do(VIRTIO_BLK_T_WRITE_ZEROES, 0, segments([0, 8, 1]), 0)).status, IOERR)
  assert.equal((await front.do(VIRTIO_BLK_T_IN, 0, NOTHING, 4096)).status, OK)
  assert.equal(await errorsCounted(candor, { export: 'disk', command: 'write', errno: 'EPERM' }), 1)
})

test('requests are counted as those of vhost-user, and the guest is among the sessions', async (t: TestContext) => {
  const scope = lastFirst(t)
  const { socket, candor } = await serveGuests(scope)
  const front = await guest(scope, socket, false)
  await front.do(VIRTIO_BLK_T_OUT, 0, patternOf(4096, 1), 0)
  await front.do(VIRTIO_BLK_T_FLUSH, 0, NOTHING, 0)
  const metrics = await candor.metrics()
  const requests = (command: string) =>
    metrics.get(`candor_requests_total{export="disk",frontend="vhost-user",command="${command}"}`)
  assert.deepEqual([requests('write'), requests('flush'), requests('read')], [1, 1, undefined])
  assert.equal(metrics.get('candor_written_bytes_total{export="disk"}'), 4096)
  assert.equal(metrics.get('candor_connections'), 1)
  const answer = (await (await fetch(`${candor.httpUrl}/api/sessions`)).json()) as { sessions: { peer: string }[] }
  assert.deepEqual(
    answer.sessions.map(({ peer }) => peer),
    ['vhost-user'],
  )
  front.close()
})
