// "Terminating the transmission phase", the server's own end, and messages after which nothing can be understood.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { describe, test } from 'node:test'
import { CMD, E, FLAG, MIB, OPT, REP } from '../support/conformance-numbers.js'
import { serveImages, WATCHDOG_MS } from '../support/conformance-server.js'
import { Session } from '../support/conformance-session.js'
import { filled, infoData, option, raw, request, STYLES, text, writeRequest, zeroes } from '../support/raw-bytes.js'

const timeout = WATCHDOG_MS
const SIZE = 16 * MIB
const served = serveImages(SIZE)

for (const wire of ['unix', 'tcp'] as const) {
  describe(`DISC over ${wire === 'tcp' ? 'TCP' : 'a Unix socket'}`, { timeout }, () => {
    test('"NBD_CMD_DISC": what is in flight is answered, then the connection ends', async (scope) => {
      for (const style of STYLES) {
        const session = await Session.enter(scope, served[wire], style)
        for (let at = 0; at < 16; at++) session.send(session.writing(at * 65_536, filled(65_536, 1), FLAG.FUA))
        session.send({ type: CMD.FLUSH })
        session.send({ type: CMD.READ, offset: 0, length: MIB })
        session.send({ type: CMD.DISC })
        const answers = await session.answers(18)
        assert.ok([...answers.values()].every(({ error }) => error === 0))
        await session.closes()
      }
    })
  })
}

describe('"NBD_CMD_DISC"', { timeout }, () => {
  test('"NBD_CMD_DISC": with flags, an offset or a length it is still the end, without an answer', async (scope) => {
    for (const style of STYLES) {
      for (const odd of [{ flags: 0xffdf }, { offset: 4096 }, { length: 4096 }]) {
        const session = await Session.enter(scope, served.unix, style)
        session.send({ type: CMD.DISC, ...odd })
        await session.closes()
      }
    }
  })

  test('"NBD_CMD_DISC": what comes after it is not served', async (scope) => {
    for (const style of STYLES) {
      const session = await Session.enter(scope, served.unix, style)
      await session.write(8 * MIB, zeroes(512))
      const disc = request(style, { type: CMD.DISC, cookie: 1n })
      void session.client.send(raw(disc, writeRequest(style, 2n, 8 * MIB, filled(512, 0xee))))
      await session.closes()
      const after = await Session.enter(scope, served.unix, 'simple')
      const { chunks } = await after.request({ type: CMD.READ, offset: 8 * MIB, length: 512 })
      assert.equal(Buffer.compare(chunks[0]?.payload ?? raw(), zeroes(512)), 0)
    }
  })
})

describe('hard disconnects', { timeout }, () => {
  test('"Request message": a wrong magic ends the connection after what came before is answered', async (scope) => {
    for (const style of STYLES) {
      const session = await Session.enter(scope, served.unix, style)
      const first = session.send({ type: CMD.READ, offset: 0, length: 4096 })
      void session.client.send(zeroes(64))
      assert.equal((await session.answers(1)).get(first)?.error, 0)
      await session.closes()
    }
  })

  test('"Request message": a WRITE that announces more than 128 MiB ends the connection', async (scope) => {
    for (const length of [128 * MIB + 1, 2 ** 32 - 1]) {
      const session = await Session.enter(scope, served.unix, 'structured')
      session.send({ type: CMD.WRITE, offset: 0, length })
      await session.closes()
    }
  })

  test('"Terminating the transmission phase": a client may leave at any byte of a request', async (scope) => {
    for (const style of STYLES) {
      const write = writeRequest(style, 1n, 12 * MIB, filled(100, 0xcc))
      for (let cut = 1; cut < write.length; cut += 9) {
        const session = await Session.enter(scope, served.unix, style)
        void session.client.send(write.subarray(0, cut))
        await session.client.leave()
      }
    }
    const session = await Session.enter(scope, served.unix, 'simple')
    const { chunks } = await session.request({ type: CMD.READ, offset: 12 * MIB, length: 100 })
    assert.equal(Buffer.compare(chunks[0]?.payload ?? raw(), zeroes(100)), 0, 'no part of a write was served')
  })
})

/** Resolves once the server takes no new connections: it is on its way out. */
async function draining(path: string): Promise<void> {
  for (;;) {
    const socket = connect(path)
    const open = await once(socket, 'connect').then(
      () => true,
      () => false,
    )
    socket.destroy()
    if (!open) return
  }
}

describe('shutdown', { timeout }, () => {
  const stopping = serveImages(SIZE)

  test('"NBD_REP_ERR_SHUTDOWN" and "NBD_ESHUTDOWN": a stop answers what is in flight, refuses the rest', async (scope) => {
    const holding = await Session.enter(scope, stopping.unix, 'structured')
    holding.client.socket.pause()
    const count = 4
    for (let index = 0; index < count; index++) holding.send({ type: CMD.READ, offset: 0, length: 8 * MIB })
    const busy = []
    for (const style of STYLES) busy.push(await Session.enter(scope, stopping.unix, style))
    const haggling = await Session.open(scope, stopping.unix)
    const naming = await Session.open(scope, stopping.unix)
    await haggling.goesOn()
    await naming.goesOn()
    stopping.candor.kill('SIGTERM')
    await draining(stopping.unix)
    for (const type of [OPT.LIST, OPT.INFO, OPT.GO, OPT.STRUCTURED_REPLY, OPT.STARTTLS]) {
      const data = type === OPT.INFO || type === OPT.GO ? infoData('disk') : ''
      assert.equal(await haggling.final(type, data), REP.ERR_SHUTDOWN)
    }
    await haggling.accepted(OPT.ABORT)
    await haggling.closes()
    void naming.client.send(option(OPT.EXPORT_NAME, text('disk')))
    await naming.closes()
    for (const session of busy) {
      assert.equal(await session.error({ type: CMD.READ, offset: 0, length: 512 }), E.SHUTDOWN)
      assert.equal(await session.error(session.writing(0, filled(512, 1))), E.SHUTDOWN)
      assert.equal(await session.error({ type: CMD.FLUSH }), E.SHUTDOWN)
    }
    holding.client.socket.resume()
    const answers = await holding.answers(count)
    const errors = [...answers.values()].map(({ error }) => error)
    assert.ok(errors.includes(0), 'what was in flight is answered')
    assert.ok(
      errors.every((error) => error === 0 || error === E.SHUTDOWN),
      `${errors}`,
    )
    for (const session of [holding, ...busy]) await session.closes()
    assert.equal((await stopping.candor.ended).code, 0)
  })
})
