// Storage that does not come back: visible from outside, and nobody else's trouble. fsfreeze makes the kernel hold
// every write to one file system.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { type RunningCandor, runCandor, temporaryFolder } from '../support/candor.js'
import { attach, lastFirst, MIB, serve, stamped } from '../support/faults.js'
import { freeze } from '../support/hostile-freeze.js'
import { mountLoopDisk, sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'

const AGE = 'candor_oldest_request_age_seconds{export="frozen"}'
const IN_FLIGHT = 'candor_requests_in_flight{export="frozen"}'

async function accepts({ uris: [uri = ''] }: RunningCandor): Promise<boolean> {
  return attach(uri).then(
    () => true,
    () => false,
  )
}

test('while one file system is frozen, its requests show their age, and an export on another one does not notice', {
  skip: needsRoot('mkfs.ext4', 'losetup', 'setpriv', 'fsfreeze'),
}, async (t) => {
  const scope = lastFirst(t)
  const [frozenDisk, otherDisk] = [
    mountLoopDisk(scope, { type: 'ext4', sizeMiB: 64 }),
    mountLoopDisk(scope, { type: 'ext4', sizeMiB: 64 }),
  ]
  const frozen = sparseFile(join(frozenDisk.folder, 'disk.img'), 32 * MIB)
  const other = sparseFile(join(otherDisk.folder, 'disk.img'), 32 * MIB)
  const candor = await serve(scope, [`frozen=${frozen}`, `other=${other}`])
  const client = await attach(candor.uris[0] ?? '')
  const neighbour = await attach(candor.uris.find((uri) => uri.includes('/other')) ?? '')
  await client.write(0, stamped(0, MIB))
  await client.flush()

  const thaw = await freeze(scope, frozenDisk.folder)
  // FUA and trim go to the pool by themselves; a plain write would be tried inline, which the kernel would hold too.
  const held = [client.write(4096, stamped(4096, 4096, 1), 1), client.trim(8 * MIB, MIB)]
  while (((await candor.metrics()).get(AGE) ?? 0) < 2) {}
  assert.equal((await candor.metrics()).get(IN_FLIGHT), 2)
  for (let index = 0; index < 50; index++) {
    await neighbour.write(index * 4096, stamped(index * 4096, 4096))
    await neighbour.flush()
  }
  assert.equal((await client.read(0, MIB)).length, MIB)
  assert.equal((await fetch(`${candor.httpUrl}/healthz`)).status, 200)

  await thaw()
  await Promise.all(held)
  await client.flush()
  while (((await candor.metrics()).get(AGE) ?? 1) !== 0) {}
  assert.equal((await candor.stop()).code, 0)
})

test('a plain write into a frozen file system stalls nobody on another device, nor ctl, metrics and the log', {
  skip: needsRoot('mkfs.ext4', 'losetup', 'setpriv', 'fsfreeze'),
}, async (t) => {
  const scope = lastFirst(t)
  const [frozenDisk, otherDisk] = [
    mountLoopDisk(scope, { type: 'ext4', sizeMiB: 64 }),
    mountLoopDisk(scope, { type: 'ext4', sizeMiB: 64 }),
  ]
  const frozen = sparseFile(join(frozenDisk.folder, 'disk.img'), 32 * MIB)
  const other = sparseFile(join(otherDisk.folder, 'disk.img'), 32 * MIB)
  const state = temporaryFolder()
  scope.after(state.remove)
  const candor = await serve(scope, [`frozen=${frozen}`, `other=${other}`, '--state-dir', state.path])
  const client = await attach(candor.uris[0] ?? '')
  const neighbour = await attach(candor.uris.find((uri) => uri.includes('/other')) ?? '')

  const thaw = await freeze(scope, frozenDisk.folder)
  const held = client.write(4096, stamped(4096, 4096, 1))
  while (((await candor.metrics()).get('candor_thread_pulse_age_seconds{export="frozen"}') ?? 0) < 4) {
    await neighbour.write(4096, stamped(4096, 4096))
    await neighbour.flush()
  }
  const asked = await runCandor(['ctl', 'exports', '--json', '--state-dir', state.path])
  const states = (JSON.parse(asked.stdout) as { name: string; state: string }[]).map(({ name, state }) => [name, state])
  assert.deepEqual(states, [
    ['frozen', 'stalled'],
    ['other', 'ok'],
  ])
  const refused = await runCandor(['ctl', 'forget', 'frozen', '--state-dir', state.path])
  assert.match(refused.stderr, /export frozen does not answer: its thread waits for its storage/)
  assert.match(candor.stderr(), /a thread waits for its storage: frozen/)
  const late = await attach(candor.uris.find((uri) => uri.includes('/other')) ?? '')
  assert.equal((await late.read(4096, 4096)).length, 4096)

  await thaw()
  await held
  await client.flush()
  assert.ok(stamped(4096, 4096, 1).equals(await client.read(4096, 4096)))
  assert.equal((await candor.stop()).code, 0)
})

test('a second signal ends a server whose thread is held by a frozen file system as soon as the kernel lets it go', {
  skip: needsRoot('mkfs.ext4', 'losetup', 'setpriv', 'fsfreeze'),
}, async (t) => {
  const scope = lastFirst(t)
  const disk = mountLoopDisk(scope, { type: 'ext4', sizeMiB: 64 })
  const candor = await serve(scope, [`frozen=${sparseFile(join(disk.folder, 'disk.img'), 32 * MIB)}`])
  const client = await attach(candor.uris[0] ?? '')
  const thaw = await freeze(scope, disk.folder)
  const lost = client.write(0, stamped(0, 4096)).catch((error: Error) => error)
  while (((await candor.metrics()).get('candor_thread_pulse_age_seconds{export="frozen"}') ?? 0) < 2) {}
  candor.kill('SIGTERM')
  // Accepting no more is the first thing that the first signal does.
  while (await accepts(candor)) {}
  candor.kill('SIGTERM')
  while (!/told twice to stop/.test(candor.stderr())) await new Promise((resolve) => setTimeout(resolve, 20))
  await thaw()
  assert.equal((await candor.ended).code, 2)
  assert.ok((await lost) instanceof Error)
})
