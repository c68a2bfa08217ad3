// The EXTENDED_HEADERS extension: 64-bit lengths, payloads only where the flag says so, one header for everything.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { assembleRead, statusesOf } from '../support/conformance-chunks.js'
import { CHUNK, CMD, E, FLAG, GIB, MIB, PAYLOAD_MAX, STATE } from '../support/conformance-numbers.js'
import { serveImages, WATCHDOG_MS } from '../support/conformance-server.js'
import { Session } from '../support/conformance-session.js'
import { filled, request, zeroes } from '../support/raw-bytes.js'

const timeout = WATCHDOG_MS
const SIZE = 6 * GIB
const FAR = 5 * GIB + 4096
const contexts = ['base:allocation']
const served = serveImages(SIZE)

describe('64-bit lengths', { timeout }, () => {
  test('"NBD_OPT_EXTENDED_HEADERS": data beyond 4 GiB is written and read', async (scope) => {
    const session = await Session.enter(scope, served.unix, 'extended')
    await session.write(FAR, filled(10_000, 0x66), FLAG.FUA)
    const answer = await session.request({ type: CMD.READ, offset: FAR, length: 10_000 })
    assert.deepEqual(assembleRead(answer, FAR, 10_000), Buffer.alloc(10_000, 0x66))
  })

  test('"NBD_REPLY_TYPE_BLOCK_STATUS_EXT": one extent may be longer than 4 GiB', async (scope) => {
    const session = await Session.enter(scope, served.unix, 'extended', { contexts })
    assert.equal(await session.error({ type: CMD.TRIM, offset: 0, length: SIZE }), 0)
    const answer = await session.request({ type: CMD.BLOCK_STATUS, offset: 0, length: SIZE })
    const [extents] = statusesOf(answer).values()
    assert.deepEqual(extents, [{ length: SIZE, flags: STATE.HOLE | STATE.ZERO }])
  })

  test('"NBD_REPLY_TYPE_BLOCK_STATUS": compact headers tell of no more than 32 bits', async (scope) => {
    const session = await Session.enter(scope, served.unix, 'structured', { contexts })
    const length = 2 ** 32 - 1
    const answer = await session.request({ type: CMD.BLOCK_STATUS, offset: GIB, length })
    const [extents = []] = statusesOf(answer).values()
    assert.ok(extents.reduce((bytes, extent) => bytes + extent.length, 0) <= length)
  })

  test('"NBD_CMD_TRIM" and "NBD_CMD_WRITE_ZEROES": the whole export in one request', async (scope) => {
    const session = await Session.enter(scope, served.unix, 'extended')
    for (const [type, flags] of [
      [CMD.TRIM, 0],
      [CMD.WRITE_ZEROES, 0],
      [CMD.WRITE_ZEROES, FLAG.FAST_ZERO],
    ] as const) {
      await session.write(FAR, filled(8192, 0x11))
      assert.equal(await session.error({ type, flags, offset: 0, length: SIZE }), 0)
      const answer = await session.request({ type: CMD.READ, offset: FAR, length: 8192 })
      assert.deepEqual(assembleRead(answer, FAR, 8192), Buffer.alloc(8192))
    }
  })

  test('"NBD_CMD_CACHE": the whole export in one request', async (scope) => {
    const session = await Session.enter(scope, served.unix, 'extended')
    assert.equal(await session.error({ type: CMD.CACHE, offset: 0, length: SIZE }), 0)
  })

  test('"Size constraints": lengths up to 2^64 - 1 are refused without a disconnect', async (scope) => {
    const session = await Session.enter(scope, served.unix, 'extended', { contexts })
    const types = [CMD.READ, CMD.TRIM, CMD.CACHE, CMD.WRITE_ZEROES, CMD.BLOCK_STATUS]
    for (const length of [SIZE + 1, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
      for (const type of types) assert.equal(await session.error({ type, offset: 512, length }), E.INVAL)
    }
    assert.equal(await session.error({ type: CMD.READ, offset: 0, length: 5 * GIB }), E.INVAL)
    await session.serves()
  })
})

describe('payloads', { timeout }, () => {
  test('"Request message": a WRITE brings its payload also without PAYLOAD_LEN, as QEMU sends it', async (scope) => {
    const session = await Session.enter(scope, served.unix, 'extended')
    for (const flags of [0, FLAG.FUA]) {
      const payload = filled(4096, 7 + flags)
      assert.equal(await session.error({ type: CMD.WRITE, flags, offset: 4096, length: 4096, payload }), 0)
      const answer = await session.request({ type: CMD.READ, offset: 4096, length: 4096 })
      assert.deepEqual(assembleRead(answer, 4096, 4096), Buffer.from(payload))
    }
    await session.serves()
    const next = await Session.enter(scope, served.unix, 'extended')
    next.send({ type: CMD.WRITE, offset: 0, length: 2n ** 40n })
    await next.closes()
  })

  test('"Request message": a payload that a command does not take is consumed and EINVAL', async (scope) => {
    const session = await Session.enter(scope, served.unix, 'extended')
    for (const bytes of [1, 4096, 70_000, 5 * MIB]) {
      for (const type of [CMD.READ, CMD.FLUSH, CMD.TRIM, CMD.CACHE, CMD.WRITE_ZEROES, CMD.RESIZE, 77]) {
        const asked = { type, flags: FLAG.PAYLOAD_LEN, length: bytes, payload: zeroes(bytes) }
        assert.equal(await session.error(asked), E.INVAL, `command ${type} with ${bytes} bytes`)
      }
    }
    await session.serves()
  })

  test('"Request message": compact headers know no PAYLOAD_LEN', async (scope) => {
    for (const style of ['simple', 'structured'] as const) {
      const session = await Session.enter(scope, served.unix, style)
      assert.equal(await session.error(session.writing(0, filled(512, 1), FLAG.PAYLOAD_LEN)), E.INVAL)
      assert.equal(await session.error({ type: CMD.READ, flags: FLAG.PAYLOAD_LEN, length: 512 }), E.INVAL)
      await session.serves()
    }
  })

  test('"Request message": a payload of more than 32 MiB is consumed up to 128 MiB, then disconnects', async (scope) => {
    const session = await Session.enter(scope, served.unix, 'extended')
    assert.equal(await session.error(session.writing(0, zeroes(PAYLOAD_MAX + 4096))), E.INVAL)
    await session.serves()
    for (const length of [128 * MIB + 1, 2 ** 32, 2n ** 63n, 2n ** 64n - 1n]) {
      const next = await Session.enter(scope, served.unix, 'extended')
      next.send({ type: CMD.WRITE, flags: FLAG.PAYLOAD_LEN, offset: 0, length })
      await next.closes()
    }
  })
})

describe('headers', { timeout }, () => {
  test('"Extended reply chunk message": any offset of 64 bits is repeated', async (scope) => {
    const session = await Session.enter(scope, served.unix, 'extended')
    for (const offset of [0n, 2n ** 32n + 1n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
      for (const type of [CMD.READ, CMD.TRIM, CMD.FLUSH, 99]) {
        const { chunks } = await session.request({ type, offset, length: 1 })
        assert.deepEqual(
          chunks.map((chunk) => chunk.offset),
          [offset],
        )
      }
    }
  })

  test('"Request message": the magic of the other kind of header ends the connection', async (scope) => {
    for (const style of ['simple', 'structured', 'extended'] as const) {
      const session = await Session.enter(scope, served.unix, style)
      const other = style === 'extended' ? 'structured' : 'extended'
      void session.client.send(request(other, { type: CMD.READ, cookie: 1n, length: 512 }))
      void session.client.send(zeroes(64))
      await session.closes()
    }
  })

  test('"Extended reply chunk message": success and failure of every command have its form', async (scope) => {
    const session = await Session.enter(scope, served.unix, 'extended', { contexts })
    for (const type of [0, 3, 4, 5, 6, 7, 8, 9, 0xffff]) {
      for (const length of [0, 512, SIZE + 1]) {
        const { chunks } = await session.request({ type, offset: 0, length })
        for (const chunk of chunks) assert.notEqual(chunk.type, CHUNK.BLOCK_STATUS)
      }
    }
  })
})
