// "Request types": what each command does, in every reply style, over both kinds of socket.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { assembleRead } from '../support/conformance-chunks.js'
import { CMD, E, FLAG, MIB, PAYLOAD_MAX } from '../support/conformance-numbers.js'
import { serveImages, WATCHDOG_MS } from '../support/conformance-server.js'
import { Session } from '../support/conformance-session.js'
import { filled, STYLES, zeroes } from '../support/raw-bytes.js'

const timeout = WATCHDOG_MS
/** No multiple of 512: the last bytes count too. */
const SIZE = 40 * MIB + 200
const served = serveImages(SIZE)

function same(found: Uint8Array, expected: Uint8Array, what = 'bytes'): void {
  assert.equal(Buffer.compare(found, expected), 0, `${what} are not as expected`)
}

/** The bytes of one range, whatever form the reply has. */
async function read(session: Session, offset: number, length: number, flags = 0): Promise<Uint8Array> {
  const answer = await session.request({ type: CMD.READ, flags, offset, length })
  if (session.style !== 'simple') return assembleRead(answer, offset, length)
  assert.equal(answer.error, 0)
  return answer.chunks[0]?.payload ?? zeroes(0)
}

const wires = (['unix', 'tcp'] as const).flatMap((wire) => STYLES.map((style) => ({ wire, style })))
for (const [index, { wire, style }] of wires.entries()) {
  describe(`${style} replies over ${wire === 'tcp' ? 'TCP' : 'a Unix socket'}`, { timeout }, () => {
    const base = index * MIB

    test('"NBD_CMD_WRITE" and "NBD_CMD_READ": what was written is read, at any offset and length', async (scope) => {
      const session = await Session.enter(scope, served[wire], style)
      for (const [at, length] of [
        [0, 1],
        [511, 2],
        [4095, 8194],
        [100_000, 300_001],
      ] as const) {
        const data = filled(length, (at + length + index) % 251)
        await session.write(base + at, data)
        same(await read(session, base + at, length), data)
      }
      await session.write(SIZE - 200, filled(200, 7))
      same(await read(session, SIZE - 200, 200), filled(200, 7))
    })

    test('"NBD_CMD_FLUSH": succeeds, and with an offset or a length is EINVAL', async (scope) => {
      const session = await Session.enter(scope, served[wire], style)
      await session.write(base, filled(4096, 1))
      assert.equal(await session.error({ type: CMD.FLUSH }), 0)
      assert.equal(await session.error({ type: CMD.FLUSH, offset: 1 }), E.INVAL)
      assert.equal(await session.error({ type: CMD.FLUSH, length: 1 }), E.INVAL)
    })

    test('"NBD_CMD_TRIM": what is not whole blocks is kept', async (scope) => {
      const session = await Session.enter(scope, served[wire], style)
      await session.write(base, filled(16_384, 3))
      assert.equal(await session.error({ type: CMD.TRIM, offset: base + 1000, length: 12_000 }), 0)
      same(await read(session, base, 1000), filled(1000, 3))
      same(await read(session, base + 13_000, 3384), filled(3384, 3))
      await session.write(base + 4096, filled(4096, 4))
      same(await read(session, base + 4096, 4096), filled(4096, 4))
    })

    test('"NBD_CMD_WRITE_ZEROES": exactly its bytes read as zeroes, with every flag', async (scope) => {
      const session = await Session.enter(scope, served[wire], style)
      for (const flags of [0, FLAG.NO_HOLE, FLAG.FAST_ZERO, FLAG.FUA, FLAG.FUA | FLAG.NO_HOLE]) {
        await session.write(base, filled(16_384, 9))
        const zeroing = { type: CMD.WRITE_ZEROES, flags, offset: base + 100, length: 9000 }
        assert.equal(await session.error(zeroing), 0, `flags ${flags}`)
        same(await read(session, base, 100), filled(100, 9))
        same(await read(session, base + 100, 9000), zeroes(9000))
        same(await read(session, base + 9100, 7284), filled(7284, 9))
      }
    })

    test('"NBD_CMD_CACHE": succeeds and changes nothing', async (scope) => {
      const session = await Session.enter(scope, served[wire], style)
      await session.write(base, filled(8192, 5))
      assert.equal(await session.error({ type: CMD.CACHE, offset: base, length: 8000 }), 0)
      assert.equal(await session.error({ type: CMD.CACHE, offset: 0, length: SIZE }), 0)
      same(await read(session, base, 8192), filled(8192, 5))
    })

    test('"Other requests": RESIZE and unknown commands are EINVAL, and the connection lives', async (scope) => {
      const session = await Session.enter(scope, served[wire], style)
      for (const type of [CMD.RESIZE, 9, 100, 0x8000, 0xffff]) {
        assert.equal(await session.error({ type, offset: 0, length: 4096 }), E.INVAL, `command ${type}`)
      }
      await session.serves()
    })

    test('"Transmission": replies to requests sent at once come each with its own cookie', async (scope) => {
      const session = await Session.enter(scope, served[wire], style)
      await session.write(
        base,
        Uint8Array.from({ length: 65_536 }, (_, at) => at >> 8),
      )
      const cookies = Array.from({ length: 256 }, (_, page) => {
        if (page % 16 === 0) session.send({ type: CMD.FLUSH })
        return session.send({ type: CMD.READ, offset: base + page * 256, length: 256 })
      })
      const answers = await session.answers(256 + 16)
      for (const [page, cookie] of cookies.entries()) {
        const answer = answers.get(cookie)
        const data = answer?.chunks[0]?.payload.subarray(style === 'simple' ? 0 : 8)
        same(data ?? zeroes(0), filled(256, page), `those of request ${page}`)
      }
    })
  })
}

describe('the largest payload', { timeout }, () => {
  for (const style of STYLES) {
    describe(`${style} replies`, () => {
      test('"Size constraints": a payload of 32 MiB is taken, one byte more is EINVAL', async (scope) => {
        const session = await Session.enter(scope, served.unix, style)
        const largest = filled(PAYLOAD_MAX + 1, 0xa5)
        await session.write(8 * MIB, largest.subarray(1))
        same(await read(session, 8 * MIB, PAYLOAD_MAX), largest.subarray(1))
        assert.equal(await session.error(session.writing(8 * MIB, largest)), E.INVAL)
        assert.equal(await session.error({ type: CMD.READ, offset: 0, length: PAYLOAD_MAX + 1 }), E.INVAL)
        await session.serves()
      })
    })
  }
})

describe('several connections', { timeout }, () => {
  test('"NBD_FLAG_CAN_MULTI_CONN": FUA and FLUSH of one are seen by all', async (scope) => {
    const [first, second] = [
      await Session.enter(scope, served.unix, 'structured'),
      await Session.enter(scope, served.tcp, 'extended'),
    ]
    for (let round = 1; round <= 20; round++) {
      await first.write(0, filled(5000, round), FLAG.FUA)
      same(await read(second, 0, 5000), filled(5000, round))
      await second.write(1 * MIB, filled(5000, round))
      assert.equal(await first.error({ type: CMD.FLUSH }), 0)
      same(await read(first, 1 * MIB, 5000), filled(5000, round))
      assert.equal(await second.error({ type: CMD.WRITE_ZEROES, flags: FLAG.FUA, offset: 0, length: 5000 }), 0)
      same(await read(first, 0, 5000), zeroes(5000))
    }
  })

  test('"Ordering of messages and writes": an overlapping write waits for the one before it', async (scope) => {
    const [first, second] = [
      await Session.enter(scope, served.unix, 'simple'),
      await Session.enter(scope, served.unix, 'structured'),
    ]
    for (let round = 0; round < 20; round++) {
      first.send(first.writing(0, filled(8192, 1), FLAG.FUA))
      first.send(first.writing(4096, filled(8192, 2)))
      first.send({ type: CMD.WRITE_ZEROES, offset: 8192, length: 4096 })
      await first.answers(3)
      const expected = Uint8Array.from([...filled(4096, 1), ...filled(4096, 2), ...zeroes(4096)])
      same(await read(second, 0, 12_288), expected)
    }
  })
})
