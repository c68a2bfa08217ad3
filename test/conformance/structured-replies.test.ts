// "Structured reply chunk message", "Extended reply chunk message" and "Structured reply types": chunks of READ.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { describe, test } from 'node:test'
import { assembleRead, contentOf, errorOf } from '../support/conformance-chunks.js'
import { CHUNK, CMD, DONE, E, FLAG, MIB, PAYLOAD_MAX } from '../support/conformance-numbers.js'
import { serveImages, WATCHDOG_MS } from '../support/conformance-server.js'
import { type Answer, Session } from '../support/conformance-session.js'
import { filled, zeroes } from '../support/raw-bytes.js'

const timeout = WATCHDOG_MS
const KIB = 1024
const TMPFS = 0x01021994
const skip = statfsSync(tmpdir()).type === TMPFS && 'on tmpfs holes are read as data'
const served = serveImages(128 * MIB)

/**
 * What the kernel has in memory is served whole, holes included; what it has to fetch is told apart. `nocache` of dd(1)
 * makes it forget the image.
 */
async function forget(session: Session): Promise<void> {
  assert.equal(await session.error({ type: CMD.FLUSH }), 0)
  const { status, stderr } = spawnSync('dd', [`if=${served.image}`, 'iflag=nocache', 'count=0'], { encoding: 'utf8' })
  assert.equal(status, 0, stderr)
}

const types = ({ chunks }: Answer) => chunks.map(({ type }) => type)
const TRIES = 50

/**
 * Reads what was forgotten. On a busy machine the kernel may have it all again by the time that it is looked for; then it
 * is told as data, which is right as well. Who never tells a hole is wrong.
 */
async function readForgotten(session: Session, offset: number, expected: Uint8Array): Promise<Answer> {
  const { length } = expected
  for (let tries = 0; tries < TRIES; tries++) {
    await forget(session)
    const answer = await session.request({ type: CMD.READ, offset, length })
    assert.ok(assembleRead(answer, offset, length).equals(expected), 'the chunks hold what was written')
    if (types(answer).includes(CHUNK.OFFSET_HOLE)) return answer
    assert.deepEqual(types(answer), [CHUNK.OFFSET_DATA])
  }
  return assert.fail(`no hole was told in ${TRIES} reads`)
}

for (const [index, style] of (['structured', 'extended'] as const).entries()) {
  describe(`${style} replies`, { timeout }, () => {
    /** Every test has MiBs of its own. */
    const base = (at: number) => (index * 64 + at) * MIB

    test('"NBD_CMD_READ": data and holes come as chunks that cover all, none twice', { skip }, async (scope) => {
      const session = await Session.enter(scope, served.unix, style)
      const expected = Buffer.alloc(MIB)
      for (const at of [64, 192, 448, 960].map((kib) => kib * KIB)) {
        expected.fill(at >> 15, at, at + 64 * KIB)
        await session.write(base(0) + at, filled(64 * KIB, at >> 15))
      }
      const answer = await readForgotten(session, base(0) + 1000, expected.subarray(1000, MIB - 234))
      const [data, hole] = [CHUNK.OFFSET_DATA, CHUNK.OFFSET_HOLE]
      assert.deepEqual(types(answer), [hole, data, hole, data, hole, data, hole, data])
    })

    test('"NBD_REPLY_TYPE_OFFSET_HOLE": says where it begins and how long it is', { skip }, async (scope) => {
      const session = await Session.enter(scope, served.unix, style)
      await session.write(base(1), filled(4096, 1))
      const { chunks } = await readForgotten(session, base(1), Buffer.concat([filled(4096, 1), zeroes(MIB - 4096)]))
      assert.deepEqual(
        chunks.map(contentOf).map(({ offset, length, data }) => [offset, length, data === undefined]),
        [
          [base(1), 4096, false],
          [base(1) + 4096, MIB - 4096, true],
        ],
      )
    })

    test('"NBD_CMD_READ": nothing but a hole is one chunk of either kind', async (scope) => {
      const session = await Session.enter(scope, served.unix, style)
      const answer = await session.request({ type: CMD.READ, offset: base(60) + 5, length: MIB - 5 })
      assert.equal(answer.chunks.length, 1)
      assert.equal(Buffer.compare(assembleRead(answer, base(60) + 5, MIB - 5), zeroes(MIB - 5)), 0)
    })

    test('"NBD_REPLY_TYPE_OFFSET_DATA": all of it data is one chunk', async (scope) => {
      const session = await Session.enter(scope, served.unix, style)
      await session.write(base(2), filled(MIB, 0x5a))
      const answer = await session.request({ type: CMD.READ, offset: base(2) + 5, length: MIB - 5 })
      assert.deepEqual(types(answer), [CHUNK.OFFSET_DATA])
      assert.deepEqual(assembleRead(answer, base(2) + 5, MIB - 5), Buffer.alloc(MIB - 5, 0x5a))
    })

    test('"NBD_CMD_READ": an image in very many pieces is told whole', async (scope) => {
      const session = await Session.enter(scope, served.unix, style)
      const expected = Buffer.alloc(2 * MIB)
      for (let at = 0; at < expected.length; at += 8 * KIB) {
        expected.fill(0x33, at, at + 4 * KIB)
        session.send(session.writing(base(3) + at, filled(4 * KIB, 0x33)))
      }
      await session.answers(256)
      await forget(session)
      const answer = await session.request({ type: CMD.READ, offset: base(3), length: expected.length })
      assert.deepEqual(assembleRead(answer, base(3), expected.length), expected)
    })

    test('"NBD_CMD_FLAG_DF": one chunk of data, holes written out', async (scope) => {
      const session = await Session.enter(scope, served.unix, style)
      await session.write(base(6) + 4096, filled(4096, 1))
      for (const length of [1, 65_536, MIB, 8 * MIB]) {
        await forget(session)
        const answer = await session.request({ type: CMD.READ, flags: FLAG.DF, offset: base(6), length })
        assert.deepEqual(types(answer), [CHUNK.OFFSET_DATA])
        const bytes = assembleRead(answer, base(6), length)
        assert.equal(
          bytes.findIndex((byte) => byte !== 0),
          length === 1 ? -1 : 4096,
        )
      }
    })

    test('"NBD_CMD_FLAG_DF": too long for one chunk is an error without content', async (scope) => {
      const session = await Session.enter(scope, served.unix, style)
      for (const flags of [0, FLAG.DF]) {
        const answer = await session.request({ type: CMD.READ, flags, offset: 0, length: PAYLOAD_MAX + 1 })
        assert.deepEqual(types(answer), [CHUNK.ERROR])
        assert.equal(answer.error, E.INVAL)
      }
      await session.serves()
    })

    test('"NBD_REPLY_TYPE_ERROR": one chunk, DONE, with a sentence', async (scope) => {
      const session = await Session.enter(scope, served.unix, style)
      for (const type of [CMD.READ, CMD.TRIM, CMD.FLUSH, CMD.WRITE_ZEROES, CMD.CACHE, CMD.BLOCK_STATUS, 99]) {
        const { chunks } = await session.request({ type, offset: served.size, length: 512 })
        const [chunk] = chunks
        assert.ok(chunk !== undefined && chunks.length === 1 && chunk.flags === DONE)
        const { error, message, offset } = errorOf(chunk)
        assert.deepEqual([error, offset], [E.INVAL, undefined])
        assert.match(message, /NBD_EINVAL/)
      }
      await session.serves()
    })

    test('"NBD_REPLY_TYPE_NONE": success without data, in the form of the style', async (scope) => {
      const session = await Session.enter(scope, served.unix, style)
      const asked = [
        session.writing(base(5), zeroes(512)),
        { type: CMD.FLUSH },
        { type: CMD.TRIM, offset: base(5), length: 512 },
        { type: CMD.READ, offset: base(5), length: 0 },
      ]
      for (const request of asked) {
        const { chunks, error } = await session.request(request)
        assert.deepEqual([chunks.length, chunks[0]?.type, chunks[0]?.payload.length, error], [1, CHUNK.NONE, 0, 0])
      }
    })
  })
}
