// How a handshake ends. Law under test: the first that comes out of a tunnel is a sentence with the reason, or that there is a
// secured connection and whose; settings that are of no use are refused in OpenSSL's words before anybody connects.
import assert from 'node:assert/strict'
import { closeSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { type ConnectionOptions, connect } from 'node:tls'
import { hungUp, socketIo, socketPair, TLS_1_2, TLS_1_3, tlsContext } from '../../backends/index.js'
import { WATCHDOG_MS } from '../support/conformance-server.js'
import { until } from '../support/controlled.js'
import { lastFirst, type Scope } from '../support/faults.js'
import { needs } from '../support/requirements.js'
import { credentials } from '../support/tls-client.js'
import { CLIENT_SUBJECT, makeTlsMaterial, TLS_PROGRAMS } from '../support/tls-material.js'
import { atMost, connected, contextOf, GONE, KIB, type PlainEnd, Scene, VERSIONS } from '../support/tls-tunnels.js'

const skip = needs(...TLS_PROGRAMS)
const LEFT = 'the client left during the TLS handshake'

/** Waits until something has come, and takes no more of it than there is room for. */
async function receive(fd: number, room: number): Promise<Buffer> {
  const bytes = Buffer.alloc(room)
  const length = await until(
    'bytes',
    async () => socketIo.receiveNow(fd, bytes, 0),
    (came) => came > 0,
  )
  return bytes.subarray(0, length)
}

/** What a client says before it has heard anything. */
async function firstWords(scope: Scope, options: ConnectionOptions): Promise<Buffer> {
  const [near, far] = await connected(scope)
  const client = connect({ ...options, socket: near }).on('error', () => {})
  const words = await receive(far, 4 * KIB)
  client.destroy()
  closeSync(far)
  return words
}

/** Sends all of it, which a pair of sockets takes at once. */
function say(fd: number, words: Buffer): void {
  assert.equal(socketIo.sendNow(fd, words, 0, words.length), words.length)
}

/** Asserts that the handshake failed for this reason, and that there is nothing behind it. */
async function assertFailed(scene: Scene, plain: PlainEnd, reason: RegExp): Promise<void> {
  assert.match((await plain.outcome()).failure ?? 'no failure', reason)
  await scene.empty()
  assert.equal(hungUp(plain.fd), GONE)
  assert.equal(socketIo.receiveNow(plain.fd, new Uint8Array(1), 0), 0)
}

if (skip === false) {
  const material = makeTlsMaterial({ after })
  const trusting = credentials(material.trusting, false)
  const known = credentials(material.client, true)
  const foreign = credentials(material.foreign, true)
  // OpenSSL has none of it any more unless it is asked for nothing better.
  const outdated = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const
  const sceneOf = (scope: Scope, verifies = false) => new Scene(scope, contextOf(material.server, verifies))

  describe('a handshake tells of its reason when the client', { timeout: WATCHDOG_MS }, () => {
    for (const [what, words, reason] of [
      ['says something that is no TLS', 'a client in the clear, by mistake', /^wrong version number$/],
      ['is a browser in the clear', 'GET / HTTP/1.1\r\n\r\n', /^http request$/],
    ] as const) {
      test(what, async (t) => {
        const scene = sceneOf(lastFirst(t))
        const [near, far] = await connected(scene.scope)
        const plain = scene.secure(far)
        near.write(words)
        await assertFailed(scene, plain, reason)
      })
    }

    for (const [what, options, reason] of [
      ['shows no certificate', trusting, /^peer did not return a certificate$/],
      ["shows another authority's", foreign, /^certificate verify failed: unable to get local issuer certificate$/],
      ['speaks TLS 1.1 at most', { ...known, ...outdated }, /^unsupported protocol$/],
    ] as const) {
      test(what, async (t) => {
        const scene = sceneOf(lastFirst(t), true)
        const [near, far] = await connected(scene.scope)
        const plain = scene.secure(far)
        connect({ ...options, socket: near }).on('error', () => {})
        await assertFailed(scene, plain, reason)
      })
    }

    // What comes before it leaves, how much of that the client takes, and whether it is there when the tunnel begins.
    for (const [what, part] of [
      ['leaves without a word', 0],
      ['leaves in the middle of its ClientHello', 0.5],
      ['leaves behind its ClientHello', 1],
    ] as const) {
      for (const when of ['', ', before anybody has looked'] as const) {
        test(`${what}${when}`, async (t) => {
          const scene = sceneOf(lastFirst(t))
          const [client, far] = socketPair()
          const words = await firstWords(scene.scope, trusting)
          const leave = () => {
            if (part > 0) say(client, words.subarray(0, words.length * part))
            closeSync(client)
          }
          if (when !== '') leave()
          const plain = scene.secure(far)
          if (when === '') leave()
          await assertFailed(scene, plain, new RegExp(`^${LEFT}$`))
        })
      }
    }

    test('leaves without having taken what it was answered', async (t) => {
      const scene = sceneOf(lastFirst(t))
      const [client, far] = socketPair()
      const plain = scene.secure(far)
      say(client, await firstWords(scene.scope, trusting))
      await receive(client, 1)
      closeSync(client)
      await assertFailed(scene, plain, new RegExp(`^${LEFT}$`))
    })
  })

  describe('a secured connection', { timeout: WATCHDOG_MS }, () => {
    for (const version of VERSIONS) {
      for (const [what, verifies, subject] of [
        ['has the subject of the certificate that was asked for', true, CLIENT_SUBJECT],
        ['has no subject where none was asked for', false, undefined],
      ] as const) {
        test(`${what}, over ${version}`, async (t) => {
          const scene = sceneOf(lastFirst(t), verifies)
          const [near, far] = await connected(scene.scope)
          const plain = scene.secure(far)
          connect({ ...known, ...atMost(version), socket: near }).on('error', () => {})
          const outcome = await plain.outcome()
          assert.equal(outcome.failure, undefined)
          assert.equal(outcome.subject, subject)
        })
      }
    }
  })

  describe('settings are refused', () => {
    const read = (folder: string, name: string) => readFileSync(join(folder, name), 'utf8')
    const sound = {
      cert: read(material.server, 'server-cert.pem'),
      key: read(material.server, 'server-key.pem'),
      ca: read(material.server, 'ca-cert.pem'),
      versionMin: TLS_1_2,
      versionMax: TLS_1_3,
    }
    tlsContext(sound)
    for (const [what, wrong, words] of [
      ["another certificate's key", { key: read(material.client, 'client-key.pem') }, 'key values mismatch'],
      ['a certificate that is something else', { cert: 'no certificate' }, 'no start line'],
      ['an empty certificate', { cert: '' }, 'no start line'],
      ['a key that is something else', { key: 'no key' }, 'unsupported'],
      ['an empty authority', { ca: '' }, 'no start line'],
      ['an authority that is no text', { ca: Buffer.from('bytes') as unknown as string }, 'OpenSSL does not take them'],
      ['ciphers that nobody knows', { ciphers: 'NONE-OF-THESE' }, 'no cipher match'],
    ] as const) {
      test(`with ${what}`, () => {
        assert.throws(() => tlsContext({ ...sound, ...wrong }), { message: words })
      })
    }
  })
} else test('the outcomes of handshakes', { skip })
