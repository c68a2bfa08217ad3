// What a tunnel carries. Law under test: everything, whole and in order, in both directions; of a stream that was cut or
// tampered with what came before, and nothing else; and a client that asks for other keys changes nothing but its keys.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable, type Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { after, describe, test } from 'node:test'
import { WATCHDOG_MS } from '../support/conformance-server.js'
import { lastFirst, type Scope } from '../support/faults.js'
import { patternBytes, scratchFolder } from '../support/guest-images.js'
import { needs } from '../support/requirements.js'
import { credentials } from '../support/tls-client.js'
import { makeTlsMaterial, TLS_PROGRAMS } from '../support/tls-material.js'
import { enterThroughRelay } from '../support/tls-relay.js'
import { atMost, contextOf, type Entered, Heard, MIB, port, Scene, VERSIONS, WIRES } from '../support/tls-tunnels.js'

const skip = needs(...TLS_PROGRAMS)
const MUCH = 24 * MIB + 11
/** Around records and pieces, and far from both. */
const SIZES = [1, 16_383, 4099, 131_073, 17, 16_385, 300_007, 65_536, 2]
const WORDS = ['first', 'second', 'third', 'fourth']
const SOUND = 'firstsecond'

function* inOddPieces(content: Buffer): IterableIterator<Buffer> {
  for (let at = 0, index = 0; at < content.length; index++) {
    const end = at + (SIZES[index % SIZES.length] ?? 1)
    yield content.subarray(at, end)
    at = end
  }
}

const say = (content: Buffer, stream: Writable) => pipeline(Readable.from(inOddPieces(content)), stream, { end: false })

/** Asserts that a client is served: what it says comes, and what is answered. */
async function assertServed({ client, plain }: Entered): Promise<void> {
  const [asked, answered] = [new Heard(plain.stream()), new Heard(client)]
  client.write('is anybody there')
  await asked.reaches(16)
  plain.stream().end('somebody is')
  assert.equal(String(await answered.whole()), 'somebody is')
  client.end()
}

/** A client of OpenSSL's own, which changes keys where it is told to. */
async function startClient(scope: Scope, version: string, authority: string) {
  const { number, accepted } = await port(scope)
  const messages = join(scratchFolder(scope), 'messages')
  const words = ['-connect', `127.0.0.1:${number}`, '-CAfile', authority, '-brief', '-msg', '-msgfile', messages]
  const child = spawn('openssl', ['s_client', version, ...words], { stdio: 'pipe' })
  scope.after(() => child.kill('SIGKILL'))
  child.stdin.on('error', () => {})
  const ended = once(child, 'close')
  /** How many such messages of TLS it received, once it has ended. */
  const received = async (what: RegExp) => {
    await ended
    const lines = readFileSync(messages, 'utf8').split('\n')
    return lines.filter((line) => line.startsWith('<<<') && what.test(line)).length
  }
  const [said, remarks] = [new Heard(child.stdout), new Heard(child.stderr)]
  return { stdin: child.stdin, said, remarks, socket: await accepted, received }
}

if (skip === false) {
  const material = makeTlsMaterial({ after })
  const context = contextOf(material.server)
  const trusting = credentials(material.trusting, false)
  const authority = join(material.trusting, 'ca-cert.pem')
  const content = patternBytes(MUCH)
  const mirrored = Buffer.from(content).reverse()

  const sceneOf = (scope: Scope) => new Scene(scope, context)

  describe('a tunnel carries', { timeout: WATCHDOG_MS }, () => {
    for (const version of VERSIONS) {
      for (const wire of WIRES) {
        test(`much in both directions at once, whole and in order, over ${version} and ${wire}`, async (t) => {
          const scene = sceneOf(lastFirst(t))
          const { client, plain } = await scene.enter({ ...trusting, ...atMost(version) }, wire)
          assert.equal(client.getProtocol(), version)
          const [requests, replies] = [new Heard(plain.stream()), new Heard(client)]
          await Promise.all([say(content, client), say(mirrored, plain.stream())])
          client.end()
          assert.ok((await requests.whole()).equals(content), 'requests')
          plain.stream().end()
          assert.ok((await replies.whole()).equals(mirrored), 'replies')
          await scene.empty()
        })
      }
    }
  })

  describe('of a stream that', { timeout: WATCHDOG_MS }, () => {
    for (const version of VERSIONS) {
      for (const how of ['says no more', 'is gone'] as const) {
        test(`${how} in the middle of a record, the whole records before it come, and the end, over ${version}`, async (t) => {
          const scene = sceneOf(lastFirst(t))
          const { client, plain, relay } = await enterThroughRelay(scene, { ...trusting, ...atMost(version) })
          const cut = Buffer.concat(await relay.keep(client, WORDS.slice(0, 3))).subarray(0, -1)
          relay.onward.write(cut)
          if (how === 'is gone') relay.onward.destroySoon()
          else relay.onward.end()
          assert.equal(String(await new Heard(plain.stream()).whole()), SOUND)
          plain.close()
          await scene.empty()
        })
      }

      test(`was tampered with, what came before comes, and the end, while others go on, over ${version}`, async (t) => {
        const scene = sceneOf(lastFirst(t))
        const other = await scene.enter(trusting)
        const { client, plain, relay } = await enterThroughRelay(scene, { ...trusting, ...atMost(version) })
        const records = await relay.keep(client, WORDS)
        const [spoilt = Buffer.alloc(0)] = records.slice(2)
        spoilt.writeUInt8(spoilt.readUInt8(spoilt.length - 1) ^ 1, spoilt.length - 1)
        relay.onward.write(Buffer.concat(records))
        assert.equal(String(await new Heard(plain.stream()).whole()), SOUND)
        await scene.only(1)
        await assertServed(other)
        await scene.empty()
      })
    }
  })

  describe('a client of OpenSSL that asks', { timeout: WATCHDOG_MS }, () => {
    test('for new keys gets them, and data go on with them in both directions', async (t) => {
      const scene = sceneOf(lastFirst(t))
      const { stdin, said, remarks, socket, received } = await startClient(scene.scope, '-tls1_3', authority)
      const plain = scene.secure(socket)
      assert.equal((await plain.outcome()).failure, undefined)
      const [asked, stream] = [new Heard(plain.stream()), plain.stream()]
      let [requests, replies] = ['', '']
      for (const [index, round] of ['one', 'two', 'three'].entries()) {
        // A line of its own is a command where it is read alone.
        stdin.write('K\n')
        await remarks.says((text) => text.split('KEYUPDATE').length === index + 2)
        stdin.write(`ask ${round}\n`)
        requests += `ask ${round}\n`
        await asked.reaches(requests.length)
        stream.write(`say ${round}\n`)
        replies += `say ${round}\n`
        await said.reaches(replies.length)
      }
      stream.end()
      assert.equal(String(await said.whole()), replies)
      assert.equal(String(await asked.whole()), requests)
      assert.equal(await received(/KeyUpdate/), 3)
      assert.equal(await received(/warning close_notify/), 1)
      await scene.empty()
    })

    test('to negotiate once more is refused, which ends it and nobody else', async (t) => {
      const scene = sceneOf(lastFirst(t))
      const other = await scene.enter({ ...trusting, ...atMost('TLSv1.2') })
      const { stdin, said, socket, received } = await startClient(scene.scope, '-tls1_2', authority)
      const plain = scene.secure(socket)
      assert.equal((await plain.outcome()).failure, undefined)
      const asked = new Heard(plain.stream())
      stdin.write('asked\n')
      await asked.reaches(6)
      plain.stream().write('answered\n')
      await said.reaches(9)
      stdin.write('R\n')
      assert.equal(await received(/warning no_renegotiation/), 1)
      assert.equal(String(await asked.whole()), 'asked\n')
      assert.equal(String(await said.whole()), 'answered\n')
      plain.close()
      await scene.only(1)
      await assertServed(other)
    })
  })
} else test('tunnels', { skip })
