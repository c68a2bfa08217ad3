// candor inside another Node program, as its users have it: the example runs, and real clients talk to it.
import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type LogLine, OpenError, openBackend, serve } from 'candor'
import { temporaryFolder } from '../support/candor.js'
import { attach } from '../support/faults.js'
import { needs } from '../support/requirements.js'

const EXAMPLE = fileURLToPath(new URL('../../examples/own-storage.js', import.meta.url))

test('the example serves a disk of its own, and its quota is ENOSPC in the guest', {
  skip: needs('qemu-io'),
}, async (t) => {
  const { path, remove } = temporaryFolder()
  t.after(remove)
  const example = spawn(process.execPath, [EXAMPLE, `unix:${path}/nbd`], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => example.kill('SIGKILL'))
  const ended = once(example, 'exit')
  const [uri] = (await once(example.stdout.setEncoding('utf8'), 'data')) as [string]
  const words = ['-f', 'raw', '-c', 'write -P 7 0 4M', '-c', 'read -P 7 4095 2M', uri.trim()]
  assert.match(execFileSync('qemu-io', words, { encoding: 'utf8' }), /read 2097152\/2097152/)
  const over = spawnSync('qemu-io', ['-f', 'raw', '-c', 'write 4M 4k', uri.trim()], { encoding: 'utf8' })
  assert.match(over.stdout + over.stderr, /No space left on device/)
  example.kill('SIGTERM')
  assert.deepEqual(await ended, [0, null])
})

test('a program serves images and hears the log; what it opened stays open for it', async (t) => {
  const { path, remove } = temporaryFolder()
  t.after(remove)
  const image = { path: join(path, 'disk.img'), readOnly: false, create: 1 << 20 }
  const backend = await openBackend('sparse-file', image)
  const lines: LogLine[] = []
  const listen = [`unix:${path}/a`, 'tcp:127.0.0.1:0']
  const { uris, close } = await serve({ exports: [{ name: 'd', backend }], listen, onLog: (line) => lines.push(line) })
  for (const uri of uris) {
    const client = await attach(uri)
    await client.write(0, new Uint8Array(512).fill(uris.indexOf(uri) + 1))
    await client.flush()
    await client.disconnect()
  }
  assert.deepEqual(await close(), { synced: true })
  assert.equal(lines.filter(({ message }) => message === 'client attached').length, 2)
  const bytes = new Uint8Array(512)
  assert.equal(await backend.read(bytes, 0, 512, 0), 0)
  assert.equal(bytes[511], 2)
  await backend.close()
})

test('an address that cannot be listened on is refused in a sentence, and nothing stays behind', async () => {
  const backend = await openBackend('memory', { size: 512 })
  const listen = ['unix:/nowhere/at/all']
  await assert.rejects(serve({ exports: [{ name: 'd', backend }], listen }), OpenError)
})
