// The operator's socket, spoken to by somebody who cannot speak. Law: whatever is said there gets one answer and costs nobody
// else anything: the server goes on.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test } from 'node:test'
import { askServer } from '../../server/cli/ask-server.js'
import { ACTIONS } from '../../server/cli/ctl.js'
import { EXPORT_FLAGS } from '../../server/config-added.js'
import { controlSocketPath, openControl } from '../../server/control/control-server.js'
import type { ControlReply } from '../../server/control/export-actions.js'
import { type Controlled, folderOf, imageAt, twoExports } from '../support/controlled.js'
import { attach, lastFirst, MIB, stamped } from '../support/faults.js'

interface Answer {
  readonly ok: boolean
  readonly error?: string
}

/** Every line that came back for these chunks, each sent when the one before it has gone. */
async function answersTo({ state }: Controlled, ...chunks: readonly string[]): Promise<Answer[]> {
  const socket = connect(controlSocketPath(state))
  let text = ''
  socket.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
  })
  await once(socket, 'connect')
  for (const chunk of chunks) await new Promise((resolve) => socket.write(chunk, resolve))
  await once(socket, 'close')
  const lines = text.split('\n').filter((line) => line !== '')
  return lines.map((line) => JSON.parse(line) as Answer)
}

async function answerTo(served: Controlled, request: unknown): Promise<Answer> {
  const [answer, ...others] = await answersTo(served, `${JSON.stringify(request)}\n`)
  assert.ok(answer !== undefined && others.length === 0, JSON.stringify(request))
  return answer
}

const VALUES: readonly unknown[] = [null, 5, true, 'word', '', [], {}, [5], [null], [[]], { force: 5 }, 'a\0b']
const INHERITED = ['constructor', 'toString', 'hasOwnProperty', '__proto__']

test('garbage of every type in each field is answered with a sentence, and the exports go on', async (t) => {
  const served = await twoExports(t)
  const client = await attach(served.uri('a'))
  await client.write(0, stamped(0, 4096))
  const commands = [...Object.keys(ACTIONS), 'map', 'errors', ...INHERITED].filter((each) => each !== 'upgrade')
  for (const command of commands) {
    for (const value of VALUES) {
      for (const field of ['words', 'flags', 'policy', 'name']) {
        const request = { command, name: 'b', [field]: value }
        // What is well-formed is done as it says: the export goes, and is served again.
        const { ok, error } = await answerTo(served, request)
        assert.ok(ok || (error ?? '').length > 0, JSON.stringify(request))
        assert.doesNotMatch(error ?? '', /is not a function|Cannot read|undefined|has a fault/, JSON.stringify(request))
      }
    }
    if ((await served.summary('b')) === undefined) await served.told('add', `b=${served.path('b')}`)
  }
  assert.equal(stamped(0, 4096).compare(await client.read(0, 4096)), 0)
})

test('a flag of every type is answered with a sentence', async (t) => {
  const served = await twoExports(t)
  const image = imageAt(served.path('c'), MIB)
  for (const command of ['add', 'set', 'remove', 'resize']) {
    for (const flag of [...EXPORT_FLAGS, 'force']) {
      for (const value of [...VALUES, ['word', 'word'], ['c=5', 5]]) {
        const name = command === 'add' ? `c=${image}` : 'c'
        const request = { command, name, flags: { [flag]: value } }
        const { ok, error } = await answerTo(served, request)
        assert.ok(ok || (error ?? '').length > 0, JSON.stringify(request))
        assert.doesNotMatch(error ?? '', /is not a function|Cannot read|undefined|has a fault/, JSON.stringify(request))
        if (ok && command === 'add') await served.ask({ command: 'remove', name: 'c', flags: {} })
      }
    }
  }
  assert.deepEqual((await served.summaries()).map(({ name }) => name).sort(), ['a', 'b'])
})

test('what is no request at all is answered too', async (t) => {
  const served = await twoExports(t)
  const lines = [
    '',
    'null',
    '5',
    '"exports"',
    '[]',
    '{}',
    '{"command":5}',
    '{"command":null}',
    '{',
    '\0',
    '[["command"]]',
  ]
  for (const line of lines) assert.equal((await answersTo(served, `${line}\n`))[0]?.ok, false, line)
  assert.equal((await served.summaries()).length, 2)
})

test('a request is carried out once, whatever comes behind it', async (t) => {
  const folder = folderOf(lastFirst(t))
  const asked: string[] = []
  let settle = (_reply: ControlReply) => {}
  let begun = () => {}
  const first = new Promise<void>((resolve) => {
    begun = resolve
  })
  const door = await openControl(folder, ({ command }) => {
    asked.push(command)
    begun()
    if (command === 'other') return Promise.resolve({ ok: true, result: undefined })
    return new Promise((resolve) => {
      settle = resolve
    })
  })
  t.after(() => door.close())
  const socket = connect(controlSocketPath(folder)).resume()
  socket.write('{"command":"upgrade"}\n')
  await first
  for (const chunk of ['{"command":"upgrade"}\n', '\n', 'x'.repeat(4096)]) {
    await new Promise((resolve) => socket.write(chunk, resolve))
    // Whoever comes later is heard later.
    await askServer(folder, { command: 'other' })
  }
  settle({ ok: true, result: undefined })
  await once(socket, 'close')
  assert.deepEqual(asked, ['upgrade', 'other', 'other', 'other'])
})

test('a line that is too long by one byte is refused, and not carried out', async (t) => {
  const served = await twoExports(t)
  const [head, tail] = ['{"command":"remove","name":"b","pad":"', '"}']
  const ofLength = (length: number) => `${head}${'x'.repeat(length - head.length - tail.length)}${tail}\n`
  const [refused] = await answersTo(served, ofLength((64 << 10) + 1))
  assert.deepEqual(refused, { ok: false, error: 'that is no question: a line has 65536 characters at most' })
  assert.equal((await served.summaries()).length, 2)
  assert.equal((await answersTo(served, ofLength(64 << 10)))[0]?.ok, true)
  assert.equal((await served.summaries()).length, 1)
})
