// How tunnels end. Law under test: replies that were given to it reach a client that reads; a client that is gone
// is told of, whatever lies unread; and nothing of a tunnel is left behind.
import assert from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { after, describe, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { duplicateDescriptor, hungUp } from '../../backends/index.js'
import { WATCHDOG_MS } from '../support/conformance-server.js'
import { until } from '../support/controlled.js'
import { lastFirst } from '../support/faults.js'
import { patternBytes } from '../support/guest-images.js'
import { pattern } from '../support/large-writes.js'
import { openFiles } from '../support/open-files.js'
import { needs } from '../support/requirements.js'
import { credentials } from '../support/tls-client.js'
import { makeTlsMaterial, TLS_PROGRAMS } from '../support/tls-material.js'
import {
  connected,
  contextOf,
  type Entered,
  fill,
  flood,
  GONE,
  Heard,
  KIB,
  MIB,
  Scene,
  WIRES,
} from '../support/tls-tunnels.js'

const skip = needs(...TLS_PROGRAMS)
/** More than sockets of any kind hold. */
const REPLIES = 64 * MIB
const CROWD = 100
/** At least as many as the addon has threads for tunnels. */
const FEW = 8
const ENDINGS = ['client ends', 'export ends', 'client is gone', 'export is gone'] as const

const isSocket = (name: string) => name.startsWith('socket:')
const openSockets = () => openFiles('self').filter(isSocket).length
const openOthers = () => openFiles('self').filter((name) => !isSocket(name)).length

/** Says what is its own to an export that says all of it again, and ends as it is told to. */
async function live({ client, plain }: Entered, index: number, ending: (typeof ENDINGS)[number]): Promise<void> {
  const own = pattern(200 * KIB + 7 * index, 1000 * index + 1)
  const half = own.length >> 1
  const stream = plain.stream()
  stream.on('data', (bytes: Buffer) => stream.write(bytes)).on('end', () => stream.end())
  const heard = new Heard(client)
  client.write(own.subarray(0, half))
  await heard.reaches(half)
  client.write(own.subarray(half))
  if (ending === 'client is gone') client.destroy()
  else if (ending === 'export is gone') plain.close()
  else await heard.reaches(own.length)
  if (ending === 'client ends') client.end()
  else if (ending === 'export ends') stream.end()
  const came = await heard.whole()
  assert.ok(came.length >= half && came.equals(own.subarray(0, came.length)), `client ${index}, whose ${ending}`)
}

if (skip === false) {
  const material = makeTlsMaterial({ after })
  const context = contextOf(material.server)
  const trusting = credentials(material.trusting, false)

  describe('a client', { timeout: WATCHDOG_MS }, () => {
    for (const wire of WIRES) {
      test(`that reads late, and asks for more than is read, has its last replies when the export ends, over ${wire}`, async (t) => {
        const scene = new Scene(lastFirst(t), context)
        const { client, plain } = await scene.enter(trusting, wire)
        client.pause()
        await flood(client)
        const replies = patternBytes(REPLIES)
        const taken = await fill(plain.fd, replies)
        plain.close()
        const came = await new Heard(client).whole()
        assert.equal(came.length, taken)
        assert.ok(came.equals(replies.subarray(0, taken)))
        assert.ok(client.readableEnded)
        client.destroy()
        await scene.empty()
      })

      test(`that is gone is told of, though the pair is full of what nobody reads, over ${wire}`, async (t) => {
        const scene = new Scene(lastFirst(t), context)
        const [near, far] = await connected(scene.scope, wire)
        const { client, plain } = await scene.enter(trusting, [near, far])
        await flood(client)
        assert.equal(hungUp(plain.fd), 0)
        if (wire === 'TCP') near.resetAndDestroy()
        else near.destroy()
        await until(
          'hungUp',
          async () => hungUp(plain.fd),
          (state) => state === GONE,
        )
        await scene.empty()
      })
    }

    test('that ends its half without a word of TLS still has what it asked for', async (t) => {
      const scene = new Scene(lastFirst(t), context)
      const [near, far] = await connected(scene.scope)
      const { client, plain } = await scene.enter(trusting, [near, far])
      const [asked, answered] = [new Heard(plain.stream()), new Heard(client)]
      client.write('asked')
      await asked.reaches(5)
      near.end()
      assert.equal(String(await asked.whole()), 'asked')
      plain.stream().end('answered')
      await answered.reaches(8)
      assert.equal(String(answered.bytes), 'answered')
      client.destroy()
      await scene.empty()
    })

    test('that takes none of its last replies, and goes on asking, has an end', async (t) => {
      const scene = new Scene(lastFirst(t), context)
      const { client, plain } = await scene.enter(trusting)
      client.pause()
      await fill(plain.fd, patternBytes(REPLIES))
      plain.close()
      let asks = true
      const ended = scene.empty().finally(() => {
        asks = false
      })
      for (; asks; await turn()) if (client.writableLength === 0) client.write(Buffer.alloc(MIB))
      await ended
    })

    test('that chats on after its end, and never closes, is not heard any more, and has an end', async (t) => {
      const scene = new Scene(lastFirst(t), context)
      const { client, plain } = await scene.enter(trusting)
      const [asked, answered] = [new Heard(plain.stream()), new Heard(client)]
      client.write('asked')
      await asked.reaches(5)
      plain.stream().end('answered')
      assert.equal(String(await answered.whole()), 'answered')
      let chats = true
      const ended = scene.empty().finally(() => {
        chats = false
      })
      for (; chats; await turn()) if (client.writableLength === 0) client.write('chatter')
      await ended
      assert.equal(String(await asked.whole()), 'asked')
    })
  })

  test('a hundred at once have each its own, however they end, and leave nothing behind', {
    timeout: WATCHDOG_MS,
  }, async (t) => {
    const scene = new Scene(lastFirst(t), context)
    const before = openSockets()
    const crowd = (size: number) => Promise.all(Array.from({ length: size }, () => scene.enter(trusting)))
    for (const { client, plain } of await crowd(FEW)) {
      client.destroy()
      plain.close()
    }
    await scene.empty()
    const others = openOthers()
    const all = await crowd(CROWD)
    assert.equal(scene.tunnels.open, CROWD)
    await Promise.all(all.map((each, index) => live(each, index, ENDINGS[index % ENDINGS.length] ?? 'client ends')))
    for (const { client, plain } of all) {
      client.destroy()
      plain.close()
    }
    await scene.empty()
    await until(
      'sockets',
      async () => openSockets(),
      (count) => count <= before,
    )
    assert.equal(openOthers(), others)
  })

  // A child has a copy of every descriptor from fork(2) to exec(2): a socket that a tunnel closed goes on meanwhile.
  test('what comes over a socket that somebody else still has open disturbs nobody, once its tunnel has ended', {
    timeout: WATCHDOG_MS,
  }, async (t) => {
    const scene = new Scene(lastFirst(t), context)
    const ended = await Promise.all(
      Array.from({ length: CROWD }, async () => {
        const [near, far] = await connected(scene.scope)
        const copy = duplicateDescriptor(far)
        scene.scope.after(() => closeSync(copy))
        const { client, plain } = await scene.enter(trusting, [near, far])
        client.resume()
        plain.close()
        return near
      }),
    )
    await scene.empty()
    const others = await Promise.all(Array.from({ length: CROWD }, () => scene.enter(trusting)))
    for (const near of ended) near.destroy()
    await Promise.all(others.map((each, index) => live(each, index, ENDINGS[index % 2] ?? 'client ends')))
  })
} else test('the ends of tunnels', { skip })
