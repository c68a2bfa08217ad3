// Exports that come and go on a real server, by `candor ctl`. Law: who is connected to an export that stays notices
// nothing; what is removed is synced, and nobody's.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { NBD_EIO, NBD_ESHUTDOWN } from 'nbd-protocol'
import type { ExportSummary } from '../../server/control/export-summary.js'
import { type Controlled, imageAt, twoExports, until } from '../support/controlled.js'
import { attach, MIB, refused, stamped } from '../support/faults.js'
import { runTool, useTool } from '../support/interop.js'
import { needs } from '../support/requirements.js'

async function api<Result>({ candor }: Controlled, path: string): Promise<Result> {
  return (await (await fetch(`${candor.httpUrl}${path}`)).json()) as Result
}

const namesOf = (views: readonly { readonly name: string }[]) => views.map(({ name }) => name).sort()

async function observedNames(controlled: Controlled): Promise<string[]> {
  return namesOf((await api<{ exports: { name: string }[] }>(controlled, '/api/exports')).exports)
}

describe('an export that is added', () => {
  test('is served to new clients and shown everywhere, and is gone everywhere when it is removed', {
    skip: needs('nbdinfo', 'qemu-img'),
  }, async (t) => {
    const served = await twoExports(t)
    const resident = await attach(served.uri('a'))
    const image = imageAt(served.path('c.img'), 2 * MIB)
    const words = ['--on-enospc', 'hold=5m', '--reserve', '1M']
    const [added] = await served.told<ExportSummary[]>('add', `c=${image}`, ...words)
    assert.deepEqual([added?.name, added?.state, added?.reserve, added?.onEnospc], ['c', 'ok', MIB, 'hold=300s'])
    assert.equal(await useTool('nbdinfo', ['--size', served.uri('c')]), `${2 * MIB}\n`)
    assert.deepEqual(
      await until(
        'the API',
        () => observedNames(served),
        (names) => names.includes('c'),
      ),
      ['a', 'b', 'c'],
    )
    assert.equal((await served.candor.metrics()).get('candor_export_state{export="c",state="ok"}'), 1)

    const client = await attach(served.uri('c'))
    await client.write(0, stamped(0, MIB))
    const removed = await served.ctl('remove', 'c')
    assert.deepEqual([removed.code, removed.stdout], [0, 'c is removed\n'])
    await assert.rejects(client.read(0, 512), 'its connection is over')
    assert.match((await runTool('nbdinfo', [served.uri('c')])).stderr, /No such file or directory/)
    assert.deepEqual(
      await until(
        'the API',
        () => observedNames(served),
        (names) => !names.includes('c'),
      ),
      ['a', 'b'],
    )
    assert.equal((await served.candor.metrics()).get('candor_export_state{export="c",state="ok"}'), undefined)
    assert.equal((await fetch(`${served.candor.httpUrl}/api/exports/c`)).status, 404)
    // The image is whole, and nobody's: QEMU's own tool may have it, which takes both kinds of lock.
    assert.equal(stamped(0, MIB).compare(readFileSync(image).subarray(0, MIB)), 0)
    await useTool('qemu-io', ['-f', 'raw', '-c', 'write 0 512', image])
    assert.equal((await resident.read(0, 512)).length, 512, 'the other export never noticed')
  })

  test('comes back with what its record knows, and without an unclean end', async (t) => {
    const served = await twoExports(t)
    const image = served.path('b')
    await served.told('remove', 'b')
    await served.told('add', `b=${image}`)
    assert.equal((await served.candor.metrics()).get('candor_unclean_end{export="b"}') ?? 0, 0)
    await served.told('inject', 'b', 'flush:EIO')
    const client = await attach(served.uri('b'))
    await client.write(0, stamped(0, MIB))
    await refused(client.flush(), NBD_EIO)
    const failing = await served.ctl('remove', 'b')
    assert.match(failing.stderr, /^candor: export b is removed, but its final sync failed: /)
    assert.equal(failing.code, 1)
    const [again] = await served.told<{ state: string; suspectBytes: number }[]>('add', `b=${image}`)
    assert.deepEqual([again?.state, again?.suspectBytes], ['degraded', MIB])
  })

  test('takes the words that the server was started with for all, unless it has its own', async (t) => {
    const served = await twoExports(t, '--on-enospc', 'hold=1m', '--reserve', 'a=1M', '--suspect-reads', 'allow')
    const image = imageAt(served.path('c'), MIB)
    await served.told('add', image, '--suspect-reads', 'refuse')
    const summary = await served.summary('c')
    assert.deepEqual([summary?.onEnospc, summary?.reserve, summary?.suspectReads], ['hold=60s', 0, 'refuse'])
  })
})

describe('an export that is removed', () => {
  test('answers what is in flight, refuses what is new, and lets nobody in meanwhile', async (t) => {
    const served = await twoExports(t, '--inject', 'b=write:delay=2s')
    const client = await attach(served.uri('b'))
    const inFlight = client.write(0, stamped(0, 4096))
    const isWaiting = (sessions: readonly { inFlight?: number }[]) => sessions.some((each) => each.inFlight === 1)
    await until('the write', () => served.sessions(), isWaiting)
    const removal = served.ask({ command: 'remove', name: 'b' })
    await until(
      'the state',
      () => served.summary('b'),
      (summary) => summary?.state === 'leaving',
    )
    await refused(client.write(4096, stamped(4096, 4096)), NBD_ESHUTDOWN)
    await assert.rejects(attach(served.uri('b')))
    await inFlight
    assert.deepEqual(await removal, { ok: true, result: { name: 'b', synced: true } })
    assert.equal(stamped(0, 4096).compare(readFileSync(served.path('b')).subarray(0, 4096)), 0)
  })

  test('by force ends its connections first, whatever they wait for', async (t) => {
    const served = await twoExports(t, '--on-enospc', 'hold', '--inject', 'b=write:ENOSPC')
    const client = await attach(served.uri('b'))
    const held = assert.rejects(client.write(0, stamped(0, 4096)))
    await until(
      'the write',
      () => served.summary('b'),
      (summary) => summary?.held === 1,
    )
    await served.told('remove', 'b', '--force')
    await held
    assert.deepEqual(namesOf(await served.summaries()), ['a'])
  })

  test('stays, and says so, while storage keeps its requests; it can be asked again', async (t) => {
    const served = await twoExports(t, '--shutdown-timeout', '100ms', '--inject', 'b=write:delay=3s,count=1')
    const client = await attach(served.uri('b'))
    const slow = client.write(0, stamped(0, 4096))
    await until(
      'the write',
      () => served.sessions(),
      (sessions) => sessions.some((each) => each.inFlight === 1),
    )
    const early = await served.ask({ command: 'remove', name: 'b' })
    assert.match(
      early.ok ? 'removed' : early.error,
      /^export b is leaving, .* its storage has 1 requests, and does not answer: mend it/,
    )
    assert.equal((await served.summary('b'))?.state, 'leaving')
    const upgrade = await served.ask({ command: 'upgrade' })
    assert.match(upgrade.ok ? 'upgraded' : upgrade.error, /export b is leaving, and waits for its storage/)
    await slow
    await served.told('remove', 'b')
  })

  test('leaves the empty name to the next one', { skip: needs('nbdinfo') }, async (t) => {
    const served = await twoExports(t)
    await served.told('add', imageAt(served.path('c'), MIB))
    await served.told('remove', 'a')
    await served.told('remove', 'b')
    assert.equal(await useTool('nbdinfo', ['--size', served.uri('')]), `${MIB}\n`)
    await served.told('remove', 'c')
    assert.equal((await served.ctl('exports')).stdout, 'nothing is served\n')
    assert.equal((await served.candor.stop()).code, 0)
  })
})
