// The address of HTTP over upgrades. Law: where the configuration says another one, nobody listens on the old one any more,
// and the new one is had also where the old process stood in its way.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { imageAt, until } from '../support/controlled.js'
import { lastFirst, logged, MIB } from '../support/faults.js'
import { startLineage } from '../support/lineage.js'

/** Leaves `--http ADDRESS` out, which tests add, and which goes before the configuration. */
const WITHOUT_HTTP = [
  'sh',
  '-c',
  'for word do shift; if [ "$left" ]; then left=; elif [ "$word" = --http ]; then left=1; else set -- "$@" "$word"; fi; done; exec "$@"',
  'sh',
]

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** What is answered at /healthz; what happened where nothing is. */
async function health(port: number): Promise<number | string> {
  try {
    return (await fetch(`http://127.0.0.1:${port}/healthz`, { signal: AbortSignal.timeout(5000) })).status
  } catch (error) {
    return ((error as Error).cause as NodeJS.ErrnoException | undefined)?.code ?? (error as Error).name
  }
}

test('HTTP follows its address in the configuration over upgrades, and the old one is refused', async (t) => {
  const [one, two] = [await freePort(), await freePort()]
  let file = ''
  const makeWords = (folder: string) => {
    file = join(folder, 'candor.yaml')
    imageAt(join(folder, 'disk'), MIB)
    configure(folder, `127.0.0.1:${one}`)
    return ['--config', file]
  }
  const server = await startLineage(lastFirst(t), makeWords, { wrapper: () => WITHOUT_HTTP })
  function configure(folder: string, http: string) {
    const lines = [`listen: ['unix:${join(folder, 'nbd')}']`, `http: '${http}'`, 'exports:', '  disk:']
    writeFileSync(file, `${lines.join('\n')}\n    image: ${join(folder, 'disk')}\n`)
  }
  const upgrade = async (http: string) => {
    configure(server.folder, http)
    await server.upgrade()
  }
  const becomes = (port: number, wanted: number | string) =>
    until(
      `port ${port}`,
      () => health(port),
      (found) => found === wanted,
    )
  assert.equal(await health(one), 200)
  await upgrade(`127.0.0.1:${two}`)
  await becomes(two, 200)
  assert.equal(await health(one), 'ECONNREFUSED')
  await upgrade(`127.0.0.1:${two}`)
  await becomes(two, 200)
  await upgrade(`0.0.0.0:${two}`)
  await becomes(two, 200)
  assert.deepEqual(logged(server.candor, /in use by another program/), [])
  await upgrade('off')
  await becomes(two, 'ECONNREFUSED')
  assert.equal((await server.stop()).code, 0)
})
