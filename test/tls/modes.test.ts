// --tls off, allow and require, and what a client is told in each before it has asked for TLS.
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { OPT, REP } from '../support/conformance-numbers.js'
import { useTool } from '../support/interop.js'
import { contextData, infoData, option, text } from '../support/raw-bytes.js'
import { needs } from '../support/requirements.js'
import { credentials, TlsSession } from '../support/tls-client.js'
import { makeTlsMaterial, TLS_PROGRAMS } from '../support/tls-material.js'
import { handshakeFailures, serveTls, untilFailed } from '../support/tls-server.js'

const skip = needs(...TLS_PROGRAMS, 'nbdinfo')

/** Every option but STARTTLS and ABORT that has a reply, with data that would be sound. */
const OPTIONS = [
  [OPT.LIST, ''],
  [OPT.INFO, infoData('disk')],
  [OPT.GO, infoData('disk')],
  [OPT.STRUCTURED_REPLY, ''],
  [OPT.LIST_META_CONTEXT, contextData('disk')],
  [OPT.SET_META_CONTEXT, contextData('disk', 'base:allocation')],
  [OPT.EXTENDED_HEADERS, ''],
] as const

if (skip === false) {
  const material = makeTlsMaterial({ after })
  const trusting = credentials(material.trusting, false)

  for (const words of [[], ['--tls', 'require']]) {
    describe(`with --tls-dir and ${words.join(' ') || 'no word on --tls'}, TLS is required`, async () => {
      const served = await serveTls({ after }, '1M', '--tls-dir', material.server, ...words)

      test('the URIs that are printed say so', () => {
        assert.deepEqual(
          served.candor.uris.map((uri) => uri.replace(/:.*/, '')),
          ['nbds', 'nbds+unix'],
        )
      })

      for (const place of [served.port, served.unix]) {
        const where = typeof place === 'number' ? 'TCP' : 'a Unix socket'
        test(`every option but STARTTLS and ABORT is TLS_REQD, over ${where}, and what was refused is not in force inside TLS`, async () => {
          const session = await TlsSession.open(place)
          for (const [type, data] of OPTIONS) {
            const answers = await session.option(type, data)
            assert.deepEqual(
              answers.map((answer) => answer.type),
              [REP.ERR_TLS_REQD],
              `option ${type}`,
            )
          }
          await session.startTls(trusting)
          assert.equal(
            await session.final(OPT.SET_META_CONTEXT, contextData('disk', 'base:allocation')),
            REP.ERR_INVALID,
          )
          assert.equal(await session.final(OPT.GO, infoData('disk')), REP.ACK)
          session.leave()
        })
      }

      test('whether an export exists is not told before TLS', async () => {
        const session = await TlsSession.open(served.port)
        for (const type of [OPT.INFO, OPT.GO]) {
          const [there] = await session.option(type, infoData('disk'))
          const [missing] = await session.option(type, infoData('none'))
          assert.deepEqual(there, missing)
        }
        session.leave()
      })

      test('ABORT is answered, and EXPORT_NAME ends the connection', async () => {
        const before = (await handshakeFailures(served.candor))['export-refused'] ?? 0
        const aborting = await TlsSession.open(served.port)
        assert.equal(await aborting.final(OPT.ABORT), REP.ACK)
        await aborting.closes()
        const naming = await TlsSession.open(served.port)
        naming.send(option(OPT.EXPORT_NAME, text('disk')))
        await naming.closes()
        assert.equal((await handshakeFailures(served.candor))['export-refused'], before + 1)
      })
    })
  }

  test('with --tls allow clients in the clear and clients inside TLS are both served', async (scope) => {
    const served = await serveTls(scope, '1M', '--tls-dir', material.server, '--tls', 'allow')
    assert.match(served.candor.uris[0] ?? '', /^nbd:/)
    const clear = await TlsSession.enter(served.port)
    const secured = await TlsSession.enter(served.port, trusting)
    for (const session of [clear, secured]) session.leave()
    await useTool('nbdinfo', ['--size', `nbd://127.0.0.1:${served.port}/disk`])
    await useTool('nbdinfo', ['--size', `nbds://127.0.0.1:${served.port}/disk?tls-certificates=${material.trusting}`])
  })

  for (const flags of [[], ['--tls-dir', material.server, '--tls', 'off']]) {
    const how = flags.length === 0 ? 'without credentials' : 'with --tls off beside them'
    test(`TLS is off ${how}: STARTTLS is refused with POLICY, and the connection goes on`, async (scope) => {
      const served = await serveTls(scope, '1M', ...flags)
      const session = await TlsSession.open(served.port)
      for (let times = 0; times < 3; times++) assert.equal(await session.final(OPT.STARTTLS), REP.ERR_POLICY)
      assert.equal(await session.final(OPT.STRUCTURED_REPLY), REP.ACK)
      assert.equal(await session.final(OPT.GO, infoData('disk')), REP.ACK)
      session.leave()
      await untilFailed(served.candor, {})
    })
  }
} else test('modes of TLS', { skip })
