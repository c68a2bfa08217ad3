// "NBD_REPLY_TYPE_ERROR_OFFSET", and BLOCK_STATUS of bytes that the image has lost: it was truncated under the server.
import assert from 'node:assert/strict'
import { truncateSync } from 'node:fs'
import { describe, test } from 'node:test'
import { errorOf, statusesOf } from '../support/conformance-chunks.js'
import { CHUNK, CMD, DONE, E, FLAG, MIB } from '../support/conformance-numbers.js'
import { serveImages, WATCHDOG_MS } from '../support/conformance-server.js'
import { Session } from '../support/conformance-session.js'
import { filled } from '../support/raw-bytes.js'

const timeout = WATCHDOG_MS
const SIZE = 8 * MIB
const LEFT = 6 * MIB
const contexts = ['base:allocation']

for (const style of ['structured', 'extended'] as const) {
  describe(`${style} replies`, { timeout }, () => {
    const served = serveImages(SIZE)

    test('"NBD_STATE_ZERO": bytes that a READ cannot give are not told to be zeroes', async (scope) => {
      const session = await Session.enter(scope, served.unix, style, { contexts })
      await session.write(0, filled(SIZE, 0x42))
      assert.equal(await session.error({ type: CMD.FLUSH }), 0)
      truncateSync(served.image, LEFT)
      assert.equal(await session.error({ type: CMD.READ, offset: LEFT, length: MIB }), E.IO)
      const answer = await session.request({ type: CMD.BLOCK_STATUS, offset: LEFT, length: MIB })
      if (answer.error !== 0) return
      const [extents = []] = statusesOf(answer).values()
      assert.deepEqual(
        extents.map(({ flags }) => flags),
        [0],
      )
    })

    test('"NBD_REPLY_TYPE_ERROR_OFFSET": names the first byte that is lost, within the request', async (scope) => {
      const session = await Session.enter(scope, served.unix, style, { contexts })
      assert.equal(await session.error({ type: CMD.FLUSH }), E.IO)
      for (const offset of [LEFT - 4096, LEFT, LEFT + 1000]) {
        const answer = await session.request({ type: CMD.READ, offset, length: 8192 })
        const [chunk] = answer.chunks
        assert.ok(chunk !== undefined && answer.chunks.length === 1)
        assert.deepEqual([chunk.type, chunk.flags], [CHUNK.ERROR_OFFSET, DONE])
        const { error, offset: at } = errorOf(chunk)
        assert.deepEqual([error, at], [E.IO, Math.max(offset, LEFT)])
      }
      const answer = await session.request({ type: CMD.BLOCK_STATUS, offset: LEFT, length: MIB })
      assert.deepEqual([...statusesOf(answer).values()], [[{ length: MIB, flags: 0 }]])
    })

    test('"NBD_EIO": FLUSH and FUA fail on every command that would have to keep something', async (scope) => {
      const session = await Session.enter(scope, served.unix, style, { contexts })
      assert.equal(await session.error(session.writing(0, filled(512, 1), FLAG.FUA)), E.IO)
      for (const type of [CMD.TRIM, CMD.WRITE_ZEROES]) {
        assert.equal(await session.error({ type, flags: FLAG.FUA, offset: 0, length: 512 }), E.IO)
      }
      await session.write(0, filled(512, 1))
      assert.equal(await session.error({ type: CMD.READ, flags: FLAG.FUA, offset: 0, length: 512 }), 0)
    })
  })
}
