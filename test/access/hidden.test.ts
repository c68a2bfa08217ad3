// An export that a client may not see does not exist for it: byte for byte what is said of a name that nobody has.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { OPT, REP } from '../support/conformance-numbers.js'
import { WATCHDOG_MS } from '../support/conformance-server.js'
import { serve } from '../support/faults.js'
import { scratchFolder } from '../support/guest-images.js'
import { contextData, hex, infoData, option, text } from '../support/raw-bytes.js'
import { TlsSession } from '../support/tls-client.js'
import { handshakeFailures, portOf, untilConnections } from '../support/tls-server.js'

/** Of one length, so that answers can be compared byte for byte. */
const HIDDEN = 'hidden'
const NOBODY = 'nobody'

const ASKING: readonly (readonly [what: string, type: number, data: (name: string) => Uint8Array])[] = [
  ['INFO', OPT.INFO, (name) => infoData(name)],
  ['INFO for all that there is', OPT.INFO, (name) => infoData(name, 0, 1, 2, 3)],
  ['GO', OPT.GO, (name) => infoData(name, 3)],
  ['LIST_META_CONTEXT', OPT.LIST_META_CONTEXT, (name) => contextData(name)],
  ['SET_META_CONTEXT', OPT.SET_META_CONTEXT, (name) => contextData(name, 'base:allocation')],
  ['SET_META_CONTEXT without a query', OPT.SET_META_CONTEXT, (name) => contextData(name)],
  ['SET_META_CONTEXT with a query that is none', OPT.SET_META_CONTEXT, (name) => contextData(name, 'what')],
  ['INFO with a byte too many', OPT.INFO, (name) => Buffer.concat([infoData(name), Buffer.alloc(1)])],
]

describe('an export that a client may not see', { timeout: WATCHDOG_MS }, async () => {
  const folder = scratchFolder({ after })
  const images = [HIDDEN, 'shown'].map((name) => `${name}=${join(folder, name)}`)
  const rules = ['--allow-clients', `${HIDDEN}=127.0.0.2`]
  const candor = await serve({ after }, [...images, '--create', '1M', ...rules, '--log-level', 'warn'])
  const port = portOf(candor)

  test('is not listed', async () => {
    const session = await TlsSession.open(port)
    const answers = await session.option(OPT.LIST)
    assert.doesNotMatch(Buffer.concat(answers.map(({ data }) => data)).toString('latin1'), new RegExp(HIDDEN))
    assert.deepEqual(
      answers.map(({ type }) => type),
      [REP.SERVER, REP.ACK],
    )
    session.leave()
  })

  for (const style of ['simple', 'structured', 'extended'] as const) {
    for (const [what, type, data] of ASKING) {
      test(`is answered ${what} like a name that nobody has, before ${style} replies`, async () => {
        const said: string[] = []
        for (const name of [HIDDEN, NOBODY]) {
          const session = await TlsSession.open(port)
          if (style === 'structured') assert.equal(await session.final(OPT.STRUCTURED_REPLY), REP.ACK)
          if (style === 'extended') assert.equal(await session.final(OPT.EXTENDED_HEADERS), REP.ACK)
          const answers = await session.option(type, data(name))
          said.push(
            JSON.stringify(answers.map(({ type, data }) => [type, hex(data).replaceAll(hex(text(name)), 'NAME')])),
          )
          assert.ok((answers.at(-1)?.type ?? 0) >= 2 ** 31, 'it is an error')
          session.leave()
        }
        assert.equal(said[0], said[1])
      })
    }
  }

  test('is refused to EXPORT_NAME without a word, and counted, like a name that nobody has', async () => {
    const counted: (number | undefined)[] = []
    for (const name of [HIDDEN, NOBODY]) {
      const before = (await handshakeFailures(candor))['export-refused'] ?? 0
      const session = await TlsSession.open(port)
      session.send(option(OPT.EXPORT_NAME, text(name)))
      await session.closes()
      await untilConnections(candor, 0)
      counted.push(((await handshakeFailures(candor))['export-refused'] ?? 0) - before)
    }
    assert.deepEqual(counted, [1, 1])
  })

  test('is not reached by the empty name, which stands for the first export', async () => {
    const stranger = await TlsSession.open(port)
    assert.equal(await stranger.final(OPT.GO, infoData('')), REP.ERR_UNKNOWN)
    stranger.leave()
    const known = await TlsSession.open({ host: '127.0.0.1', port, localAddress: '127.0.0.2' })
    assert.equal(await known.final(OPT.GO, infoData('')), REP.ACK)
    known.leave()
  })
})
