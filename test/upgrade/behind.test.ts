// What an operator asks for while an upgrade is under way. Law: the process that was succeeded changes nothing any more: its
// images are another's, and what storage tells one of them the other does not hear.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { imageAt, until } from '../support/controlled.js'
import { assertHolds, attach, lastFirst, logged, MIB, stamped } from '../support/faults.js'
import { startLineage, untilGone } from '../support/lineage.js'

test('what is asked for behind an upgrade is refused by the process that was succeeded, and nothing of it is done', async (t) => {
  const server = await startLineage(lastFirst(t), (folder) =>
    ['a', 'b'].map((name) => `${name}=${imageAt(join(folder, name), 4 * MIB)}`),
  )
  const client = await attach(server.uri('a'))
  await client.write(0, stamped(0, MIB))
  imageAt(server.path('c'), MIB)
  const upgraded = server.upgrade()
  const starting = async () => logged(server.candor, /^upgrade: a new process starts$/)
  await until('the new process', starting, (lines) => lines.length === 1)
  const behind = await Promise.all([
    server.ask({ command: 'remove', name: 'b' }),
    server.ask({ command: 'add', name: server.path('c') }),
    server.ask({ command: 'set', name: 'a', flags: { reserve: ['1M'] } }),
    server.ask({ command: 'reload' }),
  ])
  for (const reply of behind) assert.match(reply.ok ? 'done' : reply.error, /on its way out: ask again/)
  const { pid } = await upgraded
  assert.deepEqual(logged(server.candor, /is removed|came with its image/), [])
  assert.deepEqual(
    (await server.summaries()).map(({ name, reserve }) => [name, reserve]),
    [
      ['a', 0],
      ['b', 0],
    ],
  )
  await assertHolds(client, 0, MIB)
  await client.flush()
  for (const command of ['remove', 'add'] as const) {
    const reply = await server.ask({ command, name: command === 'add' ? server.path('c') : 'b' })
    assert.ok(reply.ok, JSON.stringify(reply))
  }
  assert.equal((await server.stop()).code, 0)
  await untilGone(pid)
})
