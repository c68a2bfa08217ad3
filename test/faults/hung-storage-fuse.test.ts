// An image on a FUSE file system whose server is stopped: nothing that is asked of it comes back. Law: that is seen,
// it is nobody else's trouble, it is answered once when the server goes on, and it keeps nobody from stopping candor.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Client } from 'nbd-protocol'
import { temporaryFolder } from '../support/candor.js'
import { attach, command, KIB, lastFirst, logged, MIB, type Scope, serve, stamped } from '../support/faults.js'
import { type FuseDisk, mountFuse, needsFuse } from '../support/fuse-disk.js'
import { sparseFile } from '../support/loop-disk.js'

/** A server that does not show what it should fails the test instead of hanging it. */
const WATCHDOG_MS = 120_000
const AGE = 'candor_oldest_request_age_seconds{export="hung"}'
const IN_FLIGHT = 'candor_requests_in_flight{export="hung"}'

interface Scene {
  readonly fuse: FuseDisk
  readonly candor: Awaited<ReturnType<typeof serve>>
  readonly client: Client
  readonly neighbour: Client
  /** Where ctl asks. */
  readonly state: string
}

async function scene(scope: Scope, ...flags: readonly string[]): Promise<Scene> {
  const fuse = await mountFuse(scope, 64)
  const home = temporaryFolder()
  scope.after(() => home.remove())
  const state = join(home.path, 'state')
  const other = sparseFile(join(home.path, 'other.img'), 16 * MIB)
  const candor = await serve(scope, [`hung=${fuse.image}`, `other=${other}`, '--state-dir', state, ...flags])
  const client = await attach(candor)
  const neighbour = await attach(candor.uris.find((uri) => uri.includes('/other')) ?? '')
  await client.write(0, stamped(0, MIB))
  await client.flush()
  return { fuse, candor, client, neighbour, state }
}

/** One request of each kind that goes to storage; `answers` counts how many came back. */
function askEverything(client: Client): { readonly all: Promise<unknown>; answers: number } {
  const made = { all: Promise.resolve<unknown>(undefined), answers: 0 }
  const requests = [
    client.write(64 * KIB, stamped(64 * KIB, 4 * KIB, 1)),
    client.write(80 * KIB, stamped(80 * KIB, 4 * KIB, 1), 1),
    // A place that no page cache holds.
    client.read(32 * MIB, 4 * KIB),
    client.trim(8 * MIB, MIB),
    client.writeZeroes(10 * MIB, MIB),
    client.flush(),
  ]
  const counted = requests.map((request) =>
    request.then(() => {
      made.answers += 1
    }),
  )
  return Object.assign(made, { all: Promise.all(counted) })
}

test('requests to a file system whose server is stopped are seen, harm nobody else, and are answered once when it goes on', {
  skip: needsFuse(),
  timeout: WATCHDOG_MS,
}, async (t) => {
  const { fuse, candor, client, neighbour, state } = await scene(lastFirst(t))
  fuse.stop()
  const asked = askEverything(client)
  while (((await candor.metrics()).get(AGE) ?? 0) < 2) {}
  for (let index = 0; index < 200; index++) {
    await neighbour.write(index * 4 * KIB, stamped(index * 4 * KIB, 4 * KIB))
    if (index % 20 === 0) await neighbour.flush()
  }
  assert.equal((await candor.metrics()).get(IN_FLIGHT), 6)
  assert.equal((await fetch(`${candor.httpUrl}/healthz`)).status, 200)
  assert.match((await command(['ctl', 'exports', '--state-dir', state])).stdout, /^hung .*\nother +ok /m)
  while (logged(candor, /storage of export hung does not answer/).length === 0) await candor.metrics()
  const shown = (await (await fetch(`${candor.httpUrl}/api/exports/hung`)).json()) as { readonly health: string }
  assert.equal(shown.health, 'hanging')
  await (await attach(candor.uris[0] ?? '')).disconnect()
  assert.equal(asked.answers, 0)

  fuse.goOn()
  await asked.all
  await client.flush()
  assert.deepEqual(await client.read(64 * KIB, 4 * KIB), new Uint8Array(stamped(64 * KIB, 4 * KIB, 1)))
  while (((await candor.metrics()).get(IN_FLIGHT) ?? 1) !== 0) {}
  assert.equal((await candor.stop()).code, 0)
})

test('a candor whose storage hangs gives up at a second signal, and is gone when the kernel lets go of its requests', {
  skip: needsFuse(),
  timeout: WATCHDOG_MS,
}, async (t) => {
  const { fuse, candor, client } = await scene(lastFirst(t), '--shutdown-timeout', '1s')
  fuse.stop()
  const asked = askEverything(client)
  asked.all.catch(() => {})
  while (((await candor.metrics()).get(IN_FLIGHT) ?? 0) < 6) {}
  candor.kill('SIGTERM')
  while (logged(candor, /storage has not answered/).length === 0) await nextTurn()
  candor.kill('SIGTERM')
  while (!candor.stderr().includes('told twice to stop')) await nextTurn()
  assert.equal(asked.answers, 0)
  // No signal ends a thread that the kernel holds in a request to this file system.
  fuse.goOn()
  assert.equal((await candor.ended).code, 2)
  assert.equal(asked.answers, 0)
})
