// "Option types" and "Option reply types": each option, sound, repeated, malformed and out of order.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { HAS, INFO, MIB, OPT, PAYLOAD_MAX, REP } from '../support/conformance-numbers.js'
import { serveImages, WATCHDOG_MS } from '../support/conformance-server.js'
import { type OptionReply, Session } from '../support/conformance-session.js'
import { be16, be32, be64, FLAGS_WITH_ZEROES, hex, infoData, raw, text, zeroes } from '../support/raw-bytes.js'

const SIZE = 4 * MIB
const timeout = WATCHDOG_MS
const served = serveImages(SIZE)
const SAID_WRONG = [
  raw(),
  zeroes(5),
  raw(be32(4), text('disk')),
  raw(be32(4), text('disk'), be16(2), be16(0)),
  raw(be32(5), text('disk'), be16(0)),
  raw(be32(3), text('disk'), be16(0)),
  raw(be32(0xffffffff), text('disk'), be16(0)),
  raw(be32(4), text('disk'), be16(0), '00'),
  infoData('x'.repeat(4097)),
  raw(be32(1), 'ff', be16(0)),
  raw(be32(1), '00', be16(0)),
]

const infos = (replies: readonly OptionReply[]): string[] =>
  replies.filter(({ type }) => type === REP.INFO).map(({ data }) => hex(data))

/** The size and the transmission flags of NBD_INFO_EXPORT. */
async function flagsShown(session: Session): Promise<number> {
  const [first] = await session.accepted(OPT.INFO, infoData('disk'))
  assert.equal(first?.data.length, 12)
  assert.equal(first.data.readBigUInt64BE(2), BigInt(SIZE))
  return first.data.readUInt16BE(10)
}

describe('"NBD_OPT_LIST"', { timeout }, () => {
  test('"NBD_OPT_LIST": an NBD_REP_SERVER for each export, then NBD_REP_ACK', async (scope) => {
    const session = await Session.open(scope, served.unix)
    const replies = (await session.accepted(OPT.LIST)).filter(({ type }) => type === REP.SERVER)
    const shown = replies.map(({ data }) => data.toString('utf8', 4, 4 + data.readUInt32BE(0)))
    assert.deepEqual(shown, ['disk', 'other'])
  })

  test('"NBD_OPT_LIST": with data it is INVALID, past the bound TOO_BIG', async (scope) => {
    const session = await Session.open(scope, served.unix)
    assert.equal(await session.final(OPT.LIST, '00'), REP.ERR_INVALID)
    assert.equal(await session.final(OPT.LIST, zeroes(65_536)), REP.ERR_INVALID)
    assert.equal(await session.final(OPT.LIST, zeroes(65_537)), REP.ERR_TOO_BIG)
    await session.goesOn()
  })
})

describe('options that are refused here', { timeout }, () => {
  test('"NBD_OPT_PEEK_EXPORT": is UNSUP', async (scope) => {
    const session = await Session.open(scope, served.unix)
    assert.equal(await session.final(OPT.PEEK_EXPORT, text('disk')), REP.ERR_UNSUP)
    await session.goesOn()
  })

  test('"NOTLS mode": STARTTLS is POLICY, with data INVALID, and what was negotiated stays', async (scope) => {
    const session = await Session.open(scope, served.unix)
    await session.negotiate('structured')
    assert.equal(await session.final(OPT.STARTTLS), REP.ERR_POLICY)
    assert.equal(await session.final(OPT.STARTTLS, '00'), REP.ERR_INVALID)
    assert.equal((await flagsShown(session)) & HAS.DF, HAS.DF)
    await session.accepted(OPT.GO, infoData('disk'))
    await session.serves()
  })
})

describe('"NBD_OPT_INFO" and "NBD_OPT_GO"', { timeout }, () => {
  test('"NBD_INFO_EXPORT": comes alone where nothing is asked for', async (scope) => {
    const session = await Session.open(scope, served.unix)
    const replies = await session.accepted(OPT.INFO, infoData('disk'))
    assert.equal(replies.length, 2)
    assert.equal(replies[0]?.data.readUInt16BE(0), INFO.EXPORT)
    assert.ok((await flagsShown(session)) & HAS.FLAGS)
  })

  test('"NBD_INFO_NAME": is the canonical name, also of the empty one', async (scope) => {
    const session = await Session.open(scope, served.unix)
    for (const name of ['', 'disk']) {
      const replies = await session.accepted(OPT.INFO, infoData(name, INFO.NAME))
      assert.deepEqual(infos(replies).slice(1), [hex(raw(be16(INFO.NAME), text('disk')))])
    }
  })

  test('"NBD_INFO_DESCRIPTION": is the one that LIST shows', async (scope) => {
    const session = await Session.open(scope, served.unix)
    const [listed] = await session.accepted(OPT.LIST)
    const replies = await session.accepted(OPT.INFO, infoData('disk', INFO.DESCRIPTION))
    assert.deepEqual(infos(replies).slice(1), [be16(INFO.DESCRIPTION) + hex(listed?.data.subarray(8) ?? raw())])
  })

  test('"NBD_INFO_BLOCK_SIZE": minimum 1, preferred 4096, maximum 32 MiB', async (scope) => {
    const session = await Session.open(scope, served.unix)
    const replies = await session.accepted(OPT.INFO, infoData('disk', INFO.BLOCK_SIZE))
    assert.deepEqual(infos(replies).slice(1), [be16(INFO.BLOCK_SIZE) + be32(1) + be32(4096) + be32(PAYLOAD_MAX)])
  })

  test('"NBD_REP_INFO": each type once, and requests that are not understood are ignored', async (scope) => {
    const session = await Session.open(scope, served.unix)
    const wanted = [0xffff, INFO.BLOCK_SIZE, INFO.NAME, 4, INFO.EXPORT, INFO.NAME, INFO.DESCRIPTION]
    const replies = await session.accepted(OPT.INFO, infoData('disk', ...wanted))
    const types = infos(replies).map((info) => Number.parseInt(info.slice(0, 4), 16))
    assert.deepEqual(types.sort(), [INFO.EXPORT, INFO.NAME, INFO.DESCRIPTION, INFO.BLOCK_SIZE])
  })

  test('"NBD_OPT_INFO": a GO right behind it is told the same', async (scope) => {
    const session = await Session.open(scope, served.unix)
    await session.negotiate('structured')
    const data = infoData('disk', INFO.BLOCK_SIZE, INFO.NAME)
    const first = await session.accepted(OPT.INFO, data)
    assert.deepEqual(await session.accepted(OPT.GO, data), first)
    await session.serves()
  })

  test('"NBD_OPT_INFO": an unknown export is NBD_REP_ERR_UNKNOWN', async (scope) => {
    const session = await Session.open(scope, served.unix)
    for (const name of ['nobody', 'disk2', 'Disk', 'dis', 'x'.repeat(4096)]) {
      const replies = await session.option(OPT.INFO, infoData(name, INFO.NAME))
      assert.deepEqual(
        replies.map(({ type }) => type),
        [REP.ERR_UNKNOWN],
      )
    }
    await session.goesOn()
  })

  test('"NBD_OPT_GO": an unknown export is NBD_REP_ERR_UNKNOWN and the handshake goes on', async (scope) => {
    const session = await Session.open(scope, served.unix)
    assert.equal(await session.final(OPT.GO, infoData('nobody')), REP.ERR_UNKNOWN)
    await session.accepted(OPT.GO, infoData('other'))
    await session.serves()
  })

  test('"NBD_OPT_GO": no zeroes follow its acknowledgement', async (scope) => {
    const session = await Session.open(scope, served.unix, FLAGS_WITH_ZEROES)
    await session.accepted(OPT.GO, infoData('disk'))
    await session.serves()
  })

  test('"NBD_OPT_GO": requests may come in the same packet', async (scope) => {
    const session = await Session.open(scope, served.unix)
    const read = raw('25609513', be16(0), be16(0), be64(7), be64(0), be32(1))
    void session.client.send(raw('49484156454f5054', be32(OPT.GO), be32(10), infoData('disk'), read))
    assert.equal((await session.optionReplies(OPT.GO)).at(-1)?.type, REP.ACK)
    assert.equal(hex(await session.client.take(17)), `67446698${be32(0)}${be64(7)}00`)
  })

  test('"NBD_REP_ERR_INVALID": lengths and names that are not sound, in INFO and GO', async (scope) => {
    const session = await Session.open(scope, served.unix)
    for (const data of SAID_WRONG) {
      for (const type of [OPT.INFO, OPT.GO]) assert.equal(await session.final(type, data), REP.ERR_INVALID, hex(data))
    }
    await session.goesOn()
  })

  test('"NBD_REP_ERR_TOO_BIG": more data than 64 KiB is skipped', async (scope) => {
    const session = await Session.open(scope, served.unix)
    for (const type of [OPT.INFO, OPT.GO, OPT.LIST_META_CONTEXT, OPT.STRUCTURED_REPLY]) {
      assert.equal(await session.final(type, zeroes(65_537)), REP.ERR_TOO_BIG)
      assert.equal(await session.final(type, zeroes(MIB)), REP.ERR_TOO_BIG)
    }
    await session.goesOn()
  })
})

describe('"NBD_OPT_STRUCTURED_REPLY" and "NBD_OPT_EXTENDED_HEADERS"', { timeout }, () => {
  test('"NBD_OPT_STRUCTURED_REPLY": adds SEND_DF, may be repeated, and with data is INVALID', async (scope) => {
    const session = await Session.open(scope, served.unix)
    assert.equal(await session.final(OPT.STRUCTURED_REPLY, '00'), REP.ERR_INVALID)
    assert.equal((await flagsShown(session)) & HAS.DF, 0, 'what was refused is not negotiated')
    await session.accepted(OPT.STRUCTURED_REPLY)
    await session.accepted(OPT.STRUCTURED_REPLY)
    assert.equal((await flagsShown(session)) & HAS.DF, HAS.DF)
  })

  test('"NBD_OPT_EXTENDED_HEADERS": with data it is INVALID, and headers stay compact', async (scope) => {
    const session = await Session.open(scope, served.unix)
    assert.equal(await session.final(OPT.EXTENDED_HEADERS, '00'), REP.ERR_INVALID)
    await session.accepted(OPT.GO, infoData('disk'))
    await session.serves()
  })

  test('"NBD_OPT_EXTENDED_HEADERS": goes with and without structured replies before it', async (scope) => {
    for (const before of [[], [OPT.STRUCTURED_REPLY], [OPT.EXTENDED_HEADERS]]) {
      const session = await Session.open(scope, served.unix)
      for (const type of before) await session.accepted(type)
      await session.negotiate('extended')
      assert.equal((await flagsShown(session)) & HAS.DF, HAS.DF)
      await session.accepted(OPT.GO, infoData('disk'))
      await session.serves()
    }
  })

  test('"NBD_REP_ERR_EXT_HEADER_REQD": STRUCTURED_REPLY after EXTENDED_HEADERS changes nothing', async (scope) => {
    const session = await Session.open(scope, served.unix)
    await session.negotiate('extended')
    assert.equal(await session.final(OPT.STRUCTURED_REPLY), REP.ERR_EXT_HEADER_REQD)
    await session.accepted(OPT.GO, infoData('disk'))
    await session.serves()
  })
})
