// "NBD_CMD_BLOCK_STATUS" and "`base:allocation` metadata context": what the replies tell, and their filters.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Status, statusesOf } from '../support/conformance-chunks.js'
import { CMD, E, FLAG, MIB, OPT, STATE } from '../support/conformance-numbers.js'
import { serveImages, WATCHDOG_MS } from '../support/conformance-server.js'
import { type Answer, Session } from '../support/conformance-session.js'
import { be32, be64, contextData, filled, infoData, type Raw, raw, zeroes } from '../support/raw-bytes.js'

const timeout = WATCHDOG_MS
const SIZE = 64 * MIB
const NAMES = ['base:allocation', 'qemu:allocation-depth']
const served = serveImages(SIZE)

/** A session with both contexts, and their ids in the order of NAMES. */
async function enter(
  scope: Parameters<typeof Session.open>[0],
  style: 'structured' | 'extended',
): Promise<{ session: Session; ids: readonly [number, number] }> {
  const session = await Session.open(scope, served.unix)
  await session.negotiate(style)
  const replies = await session.accepted(OPT.SET_META_CONTEXT, contextData('disk', ...NAMES))
  const ids = new Map(replies.slice(0, -1).map(({ data }) => [data.toString('utf8', 4), data.readUInt32BE(0)]))
  await session.accepted(OPT.GO, infoData('disk'))
  return { session, ids: [ids.get('base:allocation') ?? 0, ids.get('qemu:allocation-depth') ?? 0] }
}

function extentsOf(answer: Answer, context: number): Status['extents'] {
  const extents = statusesOf(answer).get(context)
  assert.ok(extents !== undefined)
  return extents
}

const sum = (extents: Status['extents']) => extents.reduce((bytes, { length }) => bytes + length, 0)

for (const style of ['structured', 'extended'] as const) {
  describe(`${style} replies`, { timeout }, () => {
    const ask = (session: Session, offset: number, length: number, flags = 0) =>
      session.request({ type: CMD.BLOCK_STATUS, flags, offset, length })

    test('"base:allocation": data, holes, and zeroes that have their space', async (scope) => {
      const { session, ids } = await enter(scope, style)
      assert.equal(await session.error({ type: CMD.TRIM, offset: 0, length: SIZE }), 0)
      await session.write(MIB, filled(MIB, 1))
      const kept = { type: CMD.WRITE_ZEROES, flags: FLAG.NO_HOLE, offset: 4 * MIB, length: MIB }
      assert.equal(await session.error(kept), 0)
      const answer = await ask(session, 0, 8 * MIB)
      const hole = STATE.HOLE | STATE.ZERO
      const expected = [
        [MIB, hole],
        [MIB, 0],
        [2 * MIB, hole],
        [MIB, STATE.ZERO],
        [3 * MIB, hole],
      ]
      assert.deepEqual(
        extentsOf(answer, ids[0]),
        expected.map(([length, flags]) => ({ length, flags })),
      )
      assert.equal(sum(extentsOf(answer, ids[1])), 8 * MIB)
    })

    test('"base:allocation": what was zeroed may be a hole, what was written is none', async (scope) => {
      const { session, ids } = await enter(scope, style)
      await session.write(16 * MIB, filled(MIB, 1))
      assert.deepEqual(extentsOf(await ask(session, 16 * MIB, MIB), ids[0]), [{ length: MIB, flags: 0 }])
      assert.equal(await session.error({ type: CMD.WRITE_ZEROES, offset: 16 * MIB, length: MIB }), 0)
      const [extent] = extentsOf(await ask(session, 16 * MIB, MIB), ids[0])
      assert.equal((extent?.flags ?? 0) & STATE.ZERO, STATE.ZERO)
    })

    test('"NBD_REPLY_TYPE_BLOCK_STATUS": one chunk for each context that was selected', async (scope) => {
      const { session, ids } = await enter(scope, style)
      assert.deepEqual([...statusesOf(await ask(session, 0, SIZE)).keys()].sort(), [...ids].sort())
      const one = await Session.enter(scope, served.unix, style, { contexts: NAMES.slice(1) })
      assert.equal(statusesOf(await ask(one, 0, SIZE)).size, 1)
    })

    test('"NBD_CMD_BLOCK_STATUS": all extents but the last end within the request', async (scope) => {
      const { session, ids } = await enter(scope, style)
      await session.write(40 * MIB, filled(MIB, 1))
      for (const [offset, length] of [
        [40 * MIB - 5, 10],
        [1, 1],
        [0, SIZE],
        [SIZE - 1, 1],
      ] as const) {
        const answer = await ask(session, offset, length)
        for (const id of ids) {
          const extents = extentsOf(answer, id)
          assert.ok(sum(extents.slice(0, -1)) < length, `${offset}+${length}`)
          assert.ok(offset + sum(extents) <= SIZE, 'nothing is told of what is not there')
        }
      }
    })

    test('"NBD_CMD_BLOCK_STATUS": many extents are told in part, and the rest when asked again', async (scope) => {
      const { session, ids } = await enter(scope, style)
      assert.equal(await session.error({ type: CMD.TRIM, offset: 20 * MIB, length: 20 * MIB }), 0)
      for (let page = 0; page < 2100; page++) session.send(session.writing(20 * MIB + page * 8192, filled(4096, 1)))
      await session.answers(2100)
      let [at, extents] = [20 * MIB, 0]
      while (at < 36 * MIB) {
        const told = extentsOf(await ask(session, at, 36 * MIB - at), ids[0])
        assert.ok(told.length <= 2 ** 20)
        extents += told.length
        at += sum(told)
      }
      assert.equal(extents, 2 * 2048)
    })

    test('"NBD_CMD_FLAG_REQ_ONE": one extent for each context, not beyond the request', async (scope) => {
      const { session, ids } = await enter(scope, style)
      await session.write(48 * MIB, filled(MIB, 1))
      for (const [offset, length] of [
        [48 * MIB, 10],
        [47 * MIB, 4 * MIB],
        [0, SIZE],
        [48 * MIB + 1, 1],
      ] as const) {
        const answer = await ask(session, offset, length, FLAG.REQ_ONE)
        for (const id of ids) {
          const extents = extentsOf(answer, id)
          assert.equal(extents.length, 1)
          assert.ok(sum(extents) <= length)
        }
      }
    })
  })
}

describe('"NBD_CMD_FLAG_PAYLOAD_LEN"', { timeout }, () => {
  const filtered = (session: Session, flags: number, offset: number, ...filter: readonly Raw[]): Promise<Answer> => {
    const payload = raw(...filter)
    const all = flags | FLAG.PAYLOAD_LEN
    return session.request({ type: CMD.BLOCK_STATUS, flags: all, offset, length: payload.length, payload })
  }

  test('"NBD_CMD_FLAG_PAYLOAD_LEN": a filter chooses the contexts that answer', async (scope) => {
    const { session, ids } = await enter(scope, 'extended')
    for (const wanted of [[ids[0]], [ids[1]], [ids[1], ids[0]]]) {
      const answer = await filtered(session, 0, 5, be64(SIZE - 5), ...wanted.map(be32))
      assert.deepEqual([...statusesOf(answer).keys()].sort(), [...wanted].sort())
    }
  })

  test('"NBD_CMD_FLAG_PAYLOAD_LEN": the length in the payload bounds a REQ_ONE', async (scope) => {
    const { session, ids } = await enter(scope, 'extended')
    for (const length of [1, 4096, 2 * MIB]) {
      const answer = await filtered(session, FLAG.REQ_ONE, 60 * MIB, be64(length), be32(ids[0]))
      const extents = extentsOf(answer, ids[0])
      assert.ok(extents.length === 1 && sum(extents) <= length)
    }
  })

  test('"NBD_CMD_FLAG_PAYLOAD_LEN": a filter that is not sound is consumed and EINVAL', async (scope) => {
    const { session, ids } = await enter(scope, 'extended')
    const [id, length] = [be32(ids[0]), be64(512)]
    const unsound = [
      raw(length, be32(0x7fffffff)),
      raw(length, id, be32(0x7fffffff)),
      raw(length, id, id),
      raw(length, id, '00'),
      raw(length, '000000'),
      raw('00'),
      raw(be64(SIZE + 1), id),
      raw(be64(2n ** 63n), id),
      raw(be64(0), id),
      zeroes(MIB),
      zeroes(1_000_003),
    ]
    for (const payload of unsound) assert.equal((await filtered(session, 0, 0, payload)).error, E.INVAL)
    assert.equal((await filtered(session, 0, SIZE - 511, raw(length, id))).error, E.INVAL)
    assert.equal((await filtered(session, 0, SIZE + 1, raw(length, id))).error, E.INVAL)
    await session.serves()
  })

  test('"NBD_CMD_FLAG_PAYLOAD_LEN": without a context a filter is consumed and EINVAL', async (scope) => {
    const session = await Session.enter(scope, served.unix, 'extended')
    assert.equal((await filtered(session, 0, 0, be64(512), be32(1))).error, E.INVAL)
    await session.serves()
  })
})
