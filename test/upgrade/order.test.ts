// Which disk is which over upgrades. Law: a client that asks for no name gets the disk that it had before, whatever the
// configuration says by now: it would write its own blocks over another one's.
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { imageAt, until } from '../support/controlled.js'
import { assertHolds, attach, lastFirst, MIB, stamped } from '../support/faults.js'
import { startLineage } from '../support/lineage.js'

test('the empty name means the same disk after upgrades, with more exports in the configuration and others moved', async (t) => {
  let file = ''
  const server = await startLineage(lastFirst(t), (folder) => {
    file = join(folder, 'candor.yaml')
    for (const name of ['a', 'b', 'c']) imageAt(join(folder, name), 4 * MIB)
    configure(folder, 'a', 'b')
    return ['--config', file]
  })
  function configure(folder: string, ...names: readonly string[]) {
    const exports = names.map((name) => `  ${name}: { image: ${join(folder, name)} }\n`)
    writeFileSync(file, `listen: ['unix:${join(folder, 'nbd')}']\nexports:\n${exports.join('')}`)
  }
  // Whatever the threads are, `b` was there before `a` from here on.
  await server.told('remove', 'a')
  await server.told('add', server.path('a'))
  const before = await attach(server.uri(''))
  await before.write(0, stamped(0, MIB))
  configure(server.folder, 'c', 'a', 'b')
  for (let upgrade = 0; upgrade < 2; upgrade++) {
    await server.upgrade()
    await assertHolds(await attach(server.uri('')), 0, MIB)
    await assertHolds(await attach(server.uri('b')), 0, MIB)
    const names = async () => (await server.summaries()).map(({ name }) => name).join()
    await until('the exports', names, (found) => found === 'b,a,c')
  }
  assert.equal((await server.stop()).code, 0)
})
