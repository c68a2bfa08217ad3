// --allow-subjects: which certificates see which exports.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { WATCHDOG_MS } from '../support/conformance-server.js'
import { type Scope, serve } from '../support/faults.js'
import { scratchFolder } from '../support/guest-images.js'
import { needs } from '../support/requirements.js'
import { credentials } from '../support/tls-client.js'
import { CLIENT_SUBJECT, makeClient, makeTlsMaterial, TLS_PROGRAMS } from '../support/tls-material.js'
import { portOf } from '../support/tls-server.js'
import { visible } from '../support/tls-visibility.js'

const skip = needs(...TLS_PROGRAMS)
const NAMES = ['first', 'second'] as const
const ALL = [...NAMES]

if (skip === false) {
  const material = makeTlsMaterial({ after })
  const authority = join(material.folder, 'ca')
  const certified = (name: string, subject: string) => credentials(makeClient(material, name, subject, authority), true)
  const guest = credentials(material.client, true)
  const other = certified('other', '/O=us/CN=other')
  const serveTwo = async (scope: Scope, ...flags: readonly string[]): Promise<number> => {
    const folder = scratchFolder(scope)
    const images = NAMES.map((name) => `${name}=${join(folder, name)}`)
    const tls = ['--tls-dir', material.server, '--tls-verify-client', '--http', 'off']
    return portOf(await serve(scope, [...images, '--create', '1M', ...tls, ...flags]))
  }

  describe('--allow-subjects', { timeout: WATCHDOG_MS, concurrency: 2 }, () => {
    test('SUBJECT holds for all exports', async (scope) => {
      const port = await serveTwo(scope, '--allow-subjects', CLIENT_SUBJECT)
      assert.deepEqual([await visible(port, NAMES, guest), await visible(port, NAMES, other)], [ALL, []])
    })

    test('EXPORT=SUBJECT holds for that export, and leaves the others to all who have a certificate', async (scope) => {
      const port = await serveTwo(scope, '--allow-subjects', `first=${CLIENT_SUBJECT}`)
      assert.deepEqual([await visible(port, NAMES, guest), await visible(port, NAMES, other)], [ALL, ['second']])
    })

    test('several subjects are alternatives, and those for all are added to those of an export', async (scope) => {
      const rules = ['O=us,CN=third', `first=${CLIENT_SUBJECT}`, 'second=O=us,CN=other']
      const port = await serveTwo(scope, ...rules.flatMap((rule) => ['--allow-subjects', rule]))
      const third = certified('third', '/O=us/CN=third')
      const seen = [
        await visible(port, NAMES, guest),
        await visible(port, NAMES, other),
        await visible(port, NAMES, third),
      ]
      assert.deepEqual(seen, [['first'], ['second'], ALL])
    })

    test('a subject is compared whole: no part of it, no other order, and no comma inside of a name will do', async (scope) => {
      const port = await serveTwo(scope, '--allow-subjects', CLIENT_SUBJECT)
      const alike = [
        '/CN=guest',
        '/CN=guest/O=us',
        '/O=us/CN=guest/CN=guest',
        '/O=us,CN=guest',
        '/O=us/CN=Guest',
        '/O=us+CN=guest',
      ]
      for (const [index, subject] of alike.entries()) {
        assert.deepEqual(await visible(port, NAMES, certified(`alike-${index}`, subject)), [], subject)
      }
    })

    test('a certificate of another authority with the right subject gets no further than TLS', async (scope) => {
      const port = await serveTwo(scope, '--allow-subjects', CLIENT_SUBJECT)
      await assert.rejects(visible(port, NAMES, credentials(material.foreign, true)))
    })

    test('a client in the clear has no subject', async (scope) => {
      const port = await serveTwo(scope, '--tls', 'allow', '--allow-subjects', `first=${CLIENT_SUBJECT}`)
      assert.deepEqual([await visible(port, NAMES), await visible(port, NAMES, guest)], [['second'], ALL])
    })

    test('beside --allow-clients both have to be right', async (scope) => {
      const rules = ['--allow-subjects', `first=${CLIENT_SUBJECT}`, '--allow-clients', '127.0.0.2']
      const port = await serveTwo(scope, ...rules)
      const from = (localAddress: string, tls: typeof guest) =>
        visible({ host: '127.0.0.1', port, localAddress }, NAMES, tls)
      const seen = [await from('127.0.0.1', guest), await from('127.0.0.2', guest), await from('127.0.0.2', other)]
      assert.deepEqual(seen, [[], ALL, ['second']])
    })
  })
} else test('subjects', { skip })
