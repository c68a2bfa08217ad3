// "Metadata querying": which contexts are listed, which are selected, and what undoes a selection.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { statusesOf } from '../support/conformance-chunks.js'
import { CMD, E, HAS, MIB, OPT, REP } from '../support/conformance-numbers.js'
import { serveImages, WATCHDOG_MS } from '../support/conformance-server.js'
import { type OptionReply, Session } from '../support/conformance-session.js'
import { be32, contextData, hex, infoData, type Raw, raw, text, zeroes } from '../support/raw-bytes.js'

const timeout = WATCHDOG_MS
const BASE = 'base:allocation'
const DEPTH = 'qemu:allocation-depth'
const served = serveImages(4 * MIB)
const BOTH = [OPT.LIST_META_CONTEXT, OPT.SET_META_CONTEXT] as const
const SAID_WRONG = [
  raw(),
  raw(be32(4), text('disk')),
  raw(be32(4), text('disk'), be32(1)),
  raw(be32(4), text('disk'), be32(1), be32(16), text(BASE)),
  raw(be32(4), text('disk'), be32(1), be32(14), text(BASE)),
  raw(be32(4), text('disk'), be32(2), be32(15), text(BASE)),
  raw(be32(4), text('disk'), be32(0xffffffff)),
  raw(be32(0xffffffff), text('disk'), be32(0)),
  raw(contextData('disk', BASE), '00'),
  contextData('disk', 'x:'.padEnd(4097, 'y')),
  raw(be32(4), text('disk'), be32(1), be32(3), text('x:'), 'ff'),
]

function contexts(replies: readonly OptionReply[]): { id: number; name: string }[] {
  return replies
    .filter(({ type }) => type === REP.META_CONTEXT)
    .map(({ data }) => ({ id: data.readUInt32BE(0), name: data.toString('utf8', 4) }))
}

async function structured(scope: Parameters<typeof Session.open>[0]): Promise<Session> {
  const session = await Session.open(scope, served.unix)
  await session.negotiate('structured')
  return session
}

async function names(session: Session, option: number, ...queries: readonly string[]): Promise<string[]> {
  return contexts(await session.accepted(option, contextData('disk', ...queries))).map(({ name }) => name)
}

/** Enters transmission and asks: the contexts that answer, or the error. */
async function answering(session: Session, name = 'disk'): Promise<number> {
  await session.accepted(OPT.GO, infoData(name))
  const answer = await session.request({ type: CMD.BLOCK_STATUS, offset: 0, length: MIB })
  return answer.error === 0 ? statusesOf(answer).size : -answer.error
}

describe('"NBD_OPT_LIST_META_CONTEXT"', { timeout }, () => {
  test('"NBD_OPT_LIST_META_CONTEXT": without queries all contexts, with ids of zero', async (scope) => {
    const session = await structured(scope)
    assert.deepEqual(contexts(await session.accepted(OPT.LIST_META_CONTEXT, contextData('disk'))), [
      { id: 0, name: BASE },
      { id: 0, name: DEPTH },
    ])
  })

  test('"NBD_OPT_LIST_META_CONTEXT": a namespace with an empty leaf is a wildcard', async (scope) => {
    const session = await structured(scope)
    assert.deepEqual(await names(session, OPT.LIST_META_CONTEXT, 'base:'), [BASE])
    assert.deepEqual(await names(session, OPT.LIST_META_CONTEXT, 'qemu:'), [DEPTH])
    assert.deepEqual(await names(session, OPT.LIST_META_CONTEXT, 'qemu:', BASE, 'base:'), [BASE, DEPTH])
  })

  test('"NBD_OPT_LIST_META_CONTEXT": unknown namespaces and leaves find nothing', async (scope) => {
    const session = await structured(scope)
    assert.deepEqual(await names(session, OPT.LIST_META_CONTEXT, 'x-none:', 'base:nothing', 'base:alloc', 'größe:'), [])
  })

  test('"NBD_OPT_LIST_META_CONTEXT": leaves what SET selected', async (scope) => {
    const session = await structured(scope)
    await names(session, OPT.SET_META_CONTEXT, BASE)
    await names(session, OPT.LIST_META_CONTEXT)
    assert.equal(await session.final(OPT.LIST_META_CONTEXT, contextData('nobody')), REP.ERR_UNKNOWN)
    assert.equal(await answering(session), 1)
  })
})

describe('refusals of both options', { timeout }, () => {
  test('"Metadata querying": before structured replies both options are INVALID', async (scope) => {
    const session = await Session.open(scope, served.unix)
    for (const type of BOTH) assert.equal(await session.final(type, contextData('disk', BASE)), REP.ERR_INVALID)
    await session.goesOn()
  })

  test('"Metadata querying": an unknown export is UNKNOWN', async (scope) => {
    const session = await structured(scope)
    for (const type of BOTH) assert.equal(await session.final(type, contextData('nobody', BASE)), REP.ERR_UNKNOWN)
  })

  test('"Metadata querying": unsound lengths, and queries without a namespace, are INVALID', async (scope) => {
    const session = await structured(scope)
    const nameless = ['', 'base', ':', ':allocation'].map((query) => contextData('disk', BASE, query))
    for (const data of [...SAID_WRONG, ...nameless]) {
      for (const type of BOTH) assert.equal(await session.final(type, data), REP.ERR_INVALID, hex(data))
    }
    await session.goesOn()
  })
})

describe('"NBD_OPT_SET_META_CONTEXT"', { timeout }, () => {
  test('"NBD_OPT_SET_META_CONTEXT": each context has an id of its own', async (scope) => {
    const session = await structured(scope)
    const chosen = contexts(await session.accepted(OPT.SET_META_CONTEXT, contextData('disk', DEPTH, BASE, BASE)))
    assert.deepEqual(chosen.map(({ name }) => name).sort(), [BASE, DEPTH])
    assert.notEqual(chosen[0]?.id, chosen[1]?.id)
    assert.equal(await answering(session), 2)
  })

  test('"NBD_OPT_SET_META_CONTEXT": wildcards and unknown names select nothing', async (scope) => {
    for (const queries of [[], ['base:'], ['qemu:'], ['base:nothing', 'x-none:', 'x-none:y']]) {
      const session = await structured(scope)
      assert.deepEqual(await names(session, OPT.SET_META_CONTEXT, ...queries), [])
      assert.equal(await answering(session), -E.INVAL)
    }
  })

  test('"NBD_OPT_SET_META_CONTEXT": the last one counts', async (scope) => {
    for (const [last, count] of [
      [[BASE, DEPTH], 2],
      [[], -E.INVAL],
    ] as const) {
      const session = await structured(scope)
      await names(session, OPT.SET_META_CONTEXT, BASE)
      await names(session, OPT.SET_META_CONTEXT, ...last)
      assert.equal(await answering(session), count)
    }
  })

  test('"NBD_OPT_SET_META_CONTEXT": one that fails undoes the one before', async (scope) => {
    const failing: readonly Raw[] = [contextData('nobody', BASE), raw(), contextData('disk', 'base')]
    for (const data of failing) {
      const session = await structured(scope)
      await names(session, OPT.SET_META_CONTEXT, BASE)
      assert.notEqual(await session.final(OPT.SET_META_CONTEXT, data), REP.ACK)
      assert.equal(await answering(session), -E.INVAL)
    }
  })

  test('"NBD_OPT_SET_META_CONTEXT": one that is TOO_BIG undoes the one before', async (scope) => {
    const session = await structured(scope)
    await names(session, OPT.SET_META_CONTEXT, BASE)
    assert.equal(await session.final(OPT.SET_META_CONTEXT, zeroes(65_537)), REP.ERR_TOO_BIG)
    assert.equal(await answering(session), -E.INVAL)
  })

  test('"NBD_OPT_SET_META_CONTEXT": holds for the export that it named, and no other', async (scope) => {
    for (const [chosen, entered, count] of [
      ['disk', 'other', -E.INVAL],
      ['other', 'other', 1],
      ['', '', 1],
    ] as const) {
      const session = await structured(scope)
      await session.accepted(OPT.SET_META_CONTEXT, contextData(chosen, BASE))
      assert.equal(await session.final(OPT.GO, infoData('nobody')), REP.ERR_UNKNOWN)
      assert.equal(await answering(session, entered), count)
    }
  })

  test('"NBD_FLAG_BLOCK_STATUS_PAYLOAD": shown under extended headers to who asks, and who has a context', async (scope) => {
    for (const style of ['structured', 'extended'] as const) {
      const session = await Session.open(scope, served.unix)
      await session.negotiate(style)
      const shown = async (option: number) => {
        const [info] = await session.accepted(option, infoData('disk'))
        return (info?.data.readUInt16BE(10) ?? 0) & HAS.BLOCK_STATUS_PAYLOAD
      }
      const whenExtended = style === 'extended' ? HAS.BLOCK_STATUS_PAYLOAD : 0
      assert.equal(await shown(OPT.INFO), whenExtended)
      const without = await Session.open(scope, served.unix)
      await without.negotiate(style)
      const [told] = await without.accepted(OPT.GO, infoData('disk'))
      assert.equal((told?.data.readUInt16BE(10) ?? 0) & HAS.BLOCK_STATUS_PAYLOAD, 0)
      await names(session, OPT.SET_META_CONTEXT, BASE)
      assert.equal(await shown(OPT.GO), whenExtended)
    }
  })

  test('"NBD_OPT_EXTENDED_HEADERS": contexts may be selected without structured replies', async (scope) => {
    const session = await Session.open(scope, served.unix)
    await session.negotiate('extended')
    assert.deepEqual(await names(session, OPT.SET_META_CONTEXT, BASE), [BASE])
    assert.equal(await answering(session), 1)
  })
})
