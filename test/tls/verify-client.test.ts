// --tls-verify-client: who has no certificate of the right authority gets no further, and nobody else notices.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { OPT, REP } from '../support/conformance-numbers.js'
import { WATCHDOG_MS } from '../support/conformance-server.js'
import { logged } from '../support/faults.js'
import { runTool, useTool } from '../support/interop.js'
import { infoData, option, request } from '../support/raw-bytes.js'
import { needs } from '../support/requirements.js'
import { credentials, TlsSession } from '../support/tls-client.js'
import { CLIENT_SUBJECT, makeClient, makeTlsMaterial, PSK_USER, TLS_PROGRAMS } from '../support/tls-material.js'
import { handshakeFailures, serveTls, untilConnections, untilFailed } from '../support/tls-server.js'

const skip = needs(...TLS_PROGRAMS, 'nbdinfo', 'qemu-img')

if (skip === false) {
  const material = makeTlsMaterial({ after })
  const verifying = ['--tls-dir', material.server, '--tls-verify-client']
  const strangers = [
    { what: 'no certificate', tls: credentials(material.trusting, false), folder: material.trusting },
    { what: 'a certificate of another authority', tls: credentials(material.foreign, true), folder: material.foreign },
  ]

  describe('a client with', { timeout: WATCHDOG_MS }, () => {
    for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
      for (const { what, tls } of strangers) {
        test(`${what} is refused and counted, over ${version}, while another is served`, async (scope) => {
          const { candor, port } = await serveTls(scope, '1M', ...verifying)
          const known = await TlsSession.enter(port, credentials(material.client, true))
          const stranger = await TlsSession.open(port)
          // Under TLS 1.3 a client learns only after its own handshake that the server did not like its certificate.
          const upgrade = stranger.startTls({ ...tls, minVersion: version, maxVersion: version })
          const secured = await upgrade.then(
            () => true,
            () => false,
          )
          if (secured) stranger.send(option(OPT.GO, infoData('disk')))
          assert.equal(secured ? await stranger.tryTake(1) : undefined, undefined, 'nothing was answered')
          stranger.leave()
          await untilFailed(candor, { 'tls-failed': 1 })
          known.send(request('simple', { type: 0, cookie: 5n, offset: 0, length: 1 }))
          assert.deepEqual(await known.simpleReply(), { error: 0, cookie: 5n })
          known.leave()
          await untilConnections(candor, 0)
          await candor.stop()
          assert.equal(logged(candor, /handshake failed/).length, 1)
        })
      }
    }

    test('the right certificate is served, and its subject stands in the log', async (scope) => {
      const { candor, port } = await serveTls(scope, '1M', ...verifying, '--log-level', 'info')
      const known = await TlsSession.enter(port, credentials(material.client, true))
      known.leave()
      await untilConnections(candor, 0)
      await candor.stop()
      assert.match(candor.stderr(), new RegExp(`"subject":"${CLIENT_SUBJECT}"[^}]*"msg":"client attached"`))
    })

    test('a certificate whose subject is empty is served, as all of its names may be alternative ones', async (scope) => {
      const nameless = makeClient(material, 'nameless', '/', join(material.folder, 'ca'))
      const { candor, port } = await serveTls(scope, '1M', ...verifying, '--log-level', 'info')
      const known = await TlsSession.enter(port, credentials(nameless, true))
      known.leave()
      await untilConnections(candor, 0)
      await candor.stop()
      assert.match(candor.stderr(), /"msg":"client attached"/)
      assert.doesNotMatch(candor.stderr(), /"subject"/)
    })
  })

  test('QEMU and libnbd are refused without the right certificate, and served with it', async (scope) => {
    const { candor, port } = await serveTls(scope, '1M', ...verifying)
    const qemu = (folder: string) => [
      ...['info', '--object', `tls-creds-x509,id=t,dir=${folder},endpoint=client,sanity-check=off`, '--image-opts'],
      `driver=nbd,host=127.0.0.1,port=${port},export=disk,tls-creds=t`,
    ]
    const uri = (folder: string) => `nbds://127.0.0.1:${port}/disk?tls-certificates=${folder}`
    for (const { folder } of strangers) {
      assert.equal((await runTool('nbdinfo', ['--size', uri(folder)])).code, 1)
      assert.equal((await runTool('qemu-img', qemu(folder))).code, 1)
    }
    await useTool('nbdinfo', ['--size', uri(material.client)])
    await useTool('qemu-img', qemu(material.client))
    assert.deepEqual(await handshakeFailures(candor), { 'tls-failed': 4 })
  })

  test('without --tls-verify-client no certificate is asked for, and a foreign one makes no subject', async (scope) => {
    const { port } = await serveTls(scope, '1M', '--tls-dir', material.server)
    for (const { tls } of strangers) (await TlsSession.enter(port, tls)).leave()
  })

  test('a pre-shared key stands for a certificate, but is no subject', async (scope) => {
    const rule = ['--allow-subjects', CLIENT_SUBJECT]
    const { port } = await serveTls(scope, '1M', ...verifying, '--tls-psk', material.pskFile, ...rule)
    const uri = `nbds://${PSK_USER}@127.0.0.1:${port}/disk?tls-psk-file=${material.pskFile}`
    const { stderr } = await runTool('nbdinfo', ['--size', uri])
    assert.match(stderr, /no export named|No such file/)
    const session = await TlsSession.open(port)
    await session.startTls(credentials(material.client, true))
    assert.equal(await session.final(OPT.GO, infoData('disk')), REP.ACK)
    session.leave()
  })
} else test('verified clients', { skip })
