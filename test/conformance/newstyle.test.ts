// "Newstyle negotiation", "Fixed newstyle negotiation" and the end of option haggling, over both kinds of socket.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { HAS, MIB, OPT, REP } from '../support/conformance-numbers.js'
import { serveImages, WATCHDOG_MS } from '../support/conformance-server.js'
import { Session } from '../support/conformance-session.js'
import { be16, be32, be64, FLAGS_WITH_ZEROES, hex, infoData, option, raw, text, zeroes } from '../support/raw-bytes.js'

const SIZE = 4 * MIB
const timeout = WATCHDOG_MS
const NO_FLAGS = '00000000'
/** FLUSH, FUA, TRIM, WRITE_ZEROES, CAN_MULTI_CONN, CACHE, FAST_ZERO. */
const FLAGS_OF_DISK =
  HAS.FLAGS | HAS.FLUSH | HAS.FUA | HAS.TRIM | HAS.WRITE_ZEROES | HAS.MULTI_CONN | HAS.CACHE | HAS.FAST_ZERO
const served = serveImages(SIZE)

for (const wire of ['unix', 'tcp'] as const) {
  describe(`over ${wire === 'tcp' ? 'TCP' : 'a Unix socket'}`, { timeout }, () => {
    test('"Newstyle negotiation": the greeting offers FIXED_NEWSTYLE and NO_ZEROES and nothing else', async (scope) => {
      await (await Session.open(scope, served[wire])).goesOn()
    })

    test('"Client flags": an unknown one ends the connection without a word', async (scope) => {
      for (let bit = 2; bit < 32; bit++) await (await Session.open(scope, served[wire], be32(2 ** bit + 3))).closes()
    })

    test('"Fixed newstyle negotiation": who does not ask for it is answered all the same', async (scope) => {
      await (await Session.open(scope, served[wire], NO_FLAGS)).goesOn()
    })

    test('"Fixed newstyle negotiation": an unknown option is UNSUP, and its data is skipped', async (scope) => {
      const session = await Session.open(scope, served[wire])
      for (const unknown of [0, 12, 0x7fffffff, 0x80000001, 0xffffffff]) {
        for (const bytes of [0, 1, 65_536, 100_001]) {
          assert.equal(await session.final(unknown, zeroes(bytes)), REP.ERR_UNSUP)
        }
      }
      await session.goesOn()
    })

    test('"Fixed newstyle negotiation": options may come in pieces of any size', async (scope) => {
      const session = await Session.open(scope, served[wire])
      session.client.socket.setNoDelay(true)
      for (const byte of option(OPT.INFO, infoData('disk'))) await session.client.send(Uint8Array.of(byte))
      assert.equal((await session.optionReplies(OPT.INFO)).at(-1)?.type, REP.ACK)
    })

    test('"Fixed newstyle negotiation": what is no IHAVEOPT ends the connection', async (scope) => {
      const session = await Session.open(scope, served[wire])
      void session.client.send(raw('49484156454f5055', be32(OPT.LIST), be32(0)))
      await session.closes()
    })

    test('"Newstyle negotiation": EXPORT_NAME is answered with size and flags', async (scope) => {
      const session = await Session.open(scope, served[wire])
      void session.client.send(option(OPT.EXPORT_NAME, text('disk')))
      assert.equal(hex(await session.client.take(10)), be64(SIZE) + be16(FLAGS_OF_DISK))
      await session.serves()
    })

    test('"Newstyle negotiation": 124 zeroes follow where NO_ZEROES was not set', async (scope) => {
      for (const flags of [NO_FLAGS, FLAGS_WITH_ZEROES]) {
        const session = await Session.open(scope, served[wire], flags)
        void session.client.send(option(OPT.EXPORT_NAME, text('disk')))
        assert.equal(hex(await session.client.take(134)), be64(SIZE) + be16(FLAGS_OF_DISK) + '00'.repeat(124))
        await session.serves()
      }
    })
  })
}

describe('"NBD_OPT_EXPORT_NAME"', { timeout }, () => {
  test('"NBD_OPT_EXPORT_NAME": the empty name is the first export', async (scope) => {
    const session = await Session.open(scope, served.unix)
    void session.client.send(option(OPT.EXPORT_NAME))
    assert.equal(hex(await session.client.take(8)), be64(SIZE))
    await session.client.take(2)
    await session.serves()
  })

  test('"NBD_OPT_EXPORT_NAME": a name that is not served, or is none, ends the session', async (scope) => {
    for (const name of [text('nobody'), zeroes(4), raw('ff'), text('x'.repeat(4097)), text('x'.repeat(70_000))]) {
      const session = await Session.open(scope, served.unix)
      void session.client.send(option(OPT.EXPORT_NAME, name))
      await session.closes()
    }
  })

  test('"NBD_OPT_EXPORT_NAME": after structured replies it shows SEND_DF', async (scope) => {
    const session = await Session.open(scope, served.unix)
    await session.negotiate('structured')
    void session.client.send(option(OPT.EXPORT_NAME, text('disk')))
    assert.equal(hex(await session.client.take(10)), be64(SIZE) + be16(FLAGS_OF_DISK | HAS.DF))
    await session.serves()
  })

  test('"NBD_OPT_EXPORT_NAME": after extended headers it ends the session', async (scope) => {
    const session = await Session.open(scope, served.unix)
    await session.negotiate('extended')
    void session.client.send(option(OPT.EXPORT_NAME, text('disk')))
    await session.closes()
  })
})

describe('"Termination of the session during option haggling"', { timeout }, () => {
  test('"NBD_OPT_ABORT": is acknowledged, and the connection ends', async (scope) => {
    const session = await Session.open(scope, served.unix)
    await session.accepted(OPT.ABORT)
    await session.closes()
  })

  test('"NBD_OPT_ABORT": data is ignored', async (scope) => {
    const session = await Session.open(scope, served.unix)
    await session.accepted(OPT.ABORT, zeroes(65_536))
    await session.closes()
  })

  test('"NBD_OPT_ABORT": data past the bound of options is ignored too', async (scope) => {
    const session = await Session.open(scope, served.unix)
    await session.accepted(OPT.ABORT, zeroes(65_537))
    await session.closes()
  })

  test('"Termination of the session during option haggling": a client may leave at any byte', async (scope) => {
    const whole = option(OPT.GO, infoData('disk'))
    for (let cut = 0; cut < whole.length; cut += 5) {
      const session = await Session.open(scope, served.unix)
      void session.client.send(whole.subarray(0, cut))
      await session.client.leave()
    }
    await (await Session.open(scope, served.unix)).goesOn()
  })

  test('"Termination of the session during option haggling": the 257th option ends it', async (scope) => {
    const session = await Session.open(scope, served.unix)
    for (let count = 0; count < 256; count++) assert.equal(await session.final(99), REP.ERR_UNSUP)
    void session.client.send(option(99))
    await session.closes()
  })
})
