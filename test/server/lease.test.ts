// How many may share an export: one writer at a time, or a bound of its own. Laws: who comes too late is refused in the
// handshake with a sentence; a seat ends with its session, however that ends.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { test } from 'node:test'
import { NBD_FLAG_CAN_MULTI_CONN } from 'nbd-protocol'
import { control, folderOf, imageAt, twoExports, until } from '../support/controlled.js'
import { attach, lastFirst, logged, MIB, stamped } from '../support/faults.js'
import { runTool, useTool } from '../support/interop.js'
import { needs } from '../support/requirements.js'

/** Nobody has the seat; a client that was refused may still be about to go. */
const isLeft = (sessions: readonly { export?: string }[]) => sessions.every((session) => session.export !== 'a')
const isAlone = (sessions: readonly unknown[]) => sessions.length === 0
const sharesIt = ({ info }: { readonly info: { readonly transmissionFlags?: number } }) =>
  ((info.transmissionFlags ?? 0) & NBD_FLAG_CAN_MULTI_CONN) !== 0

test('with --writers 1 the second client is refused with a sentence, and let in when the first has gone', {
  skip: needs('nbdinfo', 'qemu-io'),
}, async (t) => {
  const served = await twoExports(t, '--writers', 'a=1')
  const writer = await attach(served.uri('a'))
  assert.ok(!sharesIt(writer.negotiation), 'it may not be shared by several connections')
  await writer.write(0, stamped(0, 4096))
  const sentence = /export 'a' is in use by another client, and takes no more \(--writers 1\)/
  await assert.rejects(attach(served.uri('a')), sentence)
  assert.notEqual((await runTool('nbdinfo', ['--size', served.uri('a')])).code, 0)
  assert.notEqual((await runTool('qemu-io', ['-f', 'raw', '-c', 'read 0 512', served.uri('a')])).code, 0)
  assert.deepEqual(logged(served.candor, /refused/), ['client refused at export a: --writers 1'])
  const [one, two] = await Promise.all([attach(served.uri('b')), attach(served.uri('b'))])
  assert.ok(sharesIt(one.negotiation) && sharesIt(two.negotiation))

  await writer.read(0, 512)
  await writer.disconnect()
  await until('the sessions', () => served.sessions(), isLeft)
  const next = await attach(served.uri('a'))
  await served.told('disconnect', String((await served.sessions()).find((session) => session.export === 'a')?.id))
  await assert.rejects(next.read(0, 512))
  await until('the sessions', () => served.sessions(), isLeft)
  await useTool('qemu-io', ['-f', 'raw', '-c', 'write -P 7 0 512', served.uri('a')])
  await until('the sessions', () => served.sessions(), isLeft)
  assert.equal(await useTool('nbdinfo', ['--size', served.uri('a')]), `${4 * MIB}\n`)
})

test('of many clients at once one is let in', async (t) => {
  const served = await twoExports(t, '--writers', '1')
  const tried = await Promise.allSettled(Array.from({ length: 20 }, () => attach(served.uri('a'))))
  assert.equal(tried.filter(({ status }) => status === 'fulfilled').length, 1)
})

test('an export that is read-only has readers, and any number of them', async (t) => {
  const served = await twoExports(t, '--writers', '1', '--read-only-export', 'a')
  const readers = await Promise.all([attach(served.uri('a')), attach(served.uri('a'))])
  assert.ok(readers.every((reader) => sharesIt(reader.negotiation)))
})

test('a handshake that comes to nothing takes no seat', async (t) => {
  const served = await twoExports(t, '--writers', '1')
  await useTool('nbdinfo', ['--list', served.uri('')])
  await until('the sessions', () => served.sessions(), isAlone)
  await attach(served.uri('a'))
})

test('an export has as many connections as its own bound says, and one more is refused; the others have the bound of all', async (t) => {
  const scope = lastFirst(t)
  const folder = folderOf(scope)

  for (const name of ['a', 'b']) imageAt(`${folder}/${name}`, MIB)
  const words = ['connections-per-export-max: 1', `listen: [unix:${folder}/nbd]`, 'http: off', 'exports:']
  const exports = ['  a:', '    image: a', '    connections-per-export-max: 2', '  b:', '    image: b', '']
  writeFileSync(`${folder}/candor.yaml`, [...words, ...exports].join('\n'))
  const served = await control(scope, folder, { words: ['--config', `${folder}/candor.yaml`] })
  await Promise.all([attach(served.uri('a')), attach(served.uri('a'))])
  const sentence = /export 'a' is in use by 2 clients, and takes no more \(--connections-per-export-max 2\)/
  await assert.rejects(attach(served.uri('a')), sentence)
  await attach(served.uri('b'))
  await assert.rejects(attach(served.uri('b')), /in use by another client, .*--connections-per-export-max 1\)/)
})

test('an export has requests in flight by its own bound, and the others by the bound of all', async (t) => {
  const scope = lastFirst(t)
  const folder = folderOf(scope)
  for (const name of ['a', 'b']) imageAt(`${folder}/${name}`, MIB)
  const top = [
    `listen: [unix:${folder}/nbd]`,
    'http: off',
    "inject: ['write:delay=500ms']",
    'in-flight-max: 3',
    'exports:',
  ]
  const exports = ['  a:', '    image: a', '    in-flight-max: 1', '  b:', '    image: b', '']
  writeFileSync(`${folder}/candor.yaml`, [...top, ...exports].join('\n'))
  const served = await control(scope, folder, { words: ['--config', `${folder}/candor.yaml`] })
  const most = { a: 0, b: 0 }
  const write = async (name: 'a' | 'b') => {
    const client = await attach(served.uri(name))
    await Promise.all([0, 1, 2, 3].map((page) => client.write(page * 4096, stamped(page * 4096, 4096))))
  }
  let done = false
  const writing = Promise.all([write('a'), write('b')]).then(() => {
    done = true
  })
  while (!done) {
    for (const { export: name, inFlight = 0 } of await served.sessions()) {
      if (name === 'a' || name === 'b') most[name] = Math.max(most[name], inFlight)
    }
  }
  await writing
  assert.deepEqual(most, { a: 1, b: 3 })
})

test("a guest's vhost-user session is a writer as any other", async (t) => {
  const scope = lastFirst(t)
  const folder = folderOf(scope)
  const path = `${folder}/vhost`
  const words = ['--writers', '1', '--listen', `vhost-user:a@${path}`]
  const served = await control(scope, folder, { words: [`a=${imageAt(`${folder}/a`, MIB)}`, ...words] })
  const guest = connect(path)
  const isThere = (sessions: readonly { export?: string }[]) => sessions.some((session) => session.export === 'a')
  await until('the guest', () => served.sessions(), isThere)
  await assert.rejects(attach(served.uri('a')), /--writers 1/)
  guest.destroy()
  await until('the sessions', () => served.sessions(), isLeft)
  const client = await attach(served.uri('a'))
  const late = connect(path)
  await once(late.resume(), 'close')
  await client.read(0, 512)
})
