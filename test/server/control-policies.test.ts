// `candor ctl` on a real server: sessions, policies and the log at run time, and what is asked wrongly. Law: what is
// refused changes nothing, and says why in one sentence.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { NBD_EIO, NBD_ENOSPC } from 'nbd-protocol'
import { control, folderOf, imageAt, twoExports, until } from '../support/controlled.js'
import { attach, lastFirst, logged, MIB, refused, serve, stamped } from '../support/faults.js'

describe('a policy at run time', () => {
  test('holds what was reported before, and answers what is held when it is reported again', async (t) => {
    const served = await twoExports(t, '--inject', 'a=write:ENOSPC')
    const client = await attach(served.uri('a'))
    await refused(client.write(0, stamped(0, 4096)), NBD_ENOSPC)
    await served.told('set', 'a', '--on-enospc', 'hold=1m')
    const held = refused(client.write(0, stamped(0, 4096)), NBD_ENOSPC)
    await until(
      'the write',
      () => served.summary('a'),
      (summary) => summary?.held === 1,
    )
    await served.told('set', 'a', '--on-enospc', 'report')
    await held
  })

  test('keeps a reserve, or gives it up, and reads what is suspect, or does not', async (t) => {
    const served = await twoExports(t, '--inject', 'b=flush:EIO,count=1')
    const client = await attach(served.uri('a'))
    await served.told('set', 'a', '--reserve', '1000T')
    await refused(client.write(0, stamped(0, 4096)), NBD_ENOSPC)
    await served.told('set', 'a', '--reserve', '0')
    await client.write(0, stamped(0, 4096))

    const other = await attach(served.uri('b'))
    await other.write(0, stamped(0, 4096))
    await refused(other.flush(), NBD_EIO)
    await refused(other.read(0, 4096), NBD_EIO)
    await served.told('set', 'b', '--suspect-reads', 'allow')
    assert.equal(stamped(0, 4096).compare(await other.read(0, 4096)), 0)
  })
})

describe('sessions', () => {
  test('are listed with who they are, and ended by their number', async (t) => {
    const served = await twoExports(t)
    const [one, two] = [await attach(served.uri('a')), await attach(served.uri('b'))]
    const sessions = await served.told<{ id: number; peer: string; export: string; tls: boolean }[]>('sessions')
    assert.deepEqual(
      sessions.map((session) => [session.export, session.peer, session.tls]),
      [
        ['a', 'unix', false],
        ['b', 'unix', false],
      ],
    )
    assert.match((await served.ctl('sessions')).stdout, /^ID +PEER +EXPORT .*\n\d+ +unix +a +no +\d+ s +0\n/)
    const id = String(sessions.find((session) => session.export === 'b')?.id)
    assert.equal((await served.ctl('disconnect', id)).stdout, `session ${id} is ended\n`)
    await assert.rejects(two.read(0, 512))
    await one.read(0, 512)
    await until(
      'the sessions',
      () => served.sessions(),
      (left) => left.length === 1,
    )
    await one.disconnect()
    await until(
      'the sessions',
      () => served.sessions(),
      (left) => left.length === 0,
    )
    assert.equal((await served.ctl('sessions')).stdout, 'nobody is connected\n')
  })
})

test('the log level changes at run time', async (t) => {
  const served = await twoExports(t)
  await served.told('log-level', 'error')
  await served.told('remove', 'a')
  await served.told('log-level', 'info')
  await served.told('remove', 'b')
  await until(
    'the log',
    async () => logged(served.candor, /is removed/),
    (lines) => lines.length > 0,
  )
  assert.deepEqual(logged(served.candor, /is removed/), ['export b is removed'])
})

test('what is asked wrongly is refused with a sentence that names it, and changes nothing', async (t) => {
  const served = await twoExports(t)
  const before = await served.summaries()
  const image = imageAt(served.path('c'), MIB)
  const wrong: readonly (readonly [words: readonly string[], sentence: RegExp])[] = [
    [['frobnicate'], /ctl knows no 'frobnicate': it knows exports, add, remove/],
    [['add'], /ctl add needs \[NAME=\]IMAGE/],
    [['add', `a=${image}`], /there is an export 'a' already: remove it first, or give the image another name/],
    [['add', `d=${served.path('a')}`], /is served already, as export 'a'/],
    [['add', served.path('none')], /there is no image at .*none: give the right path, or --create SIZE/],
    [['add', image, '--reserve', 'lots'], /--reserve is 'lots', which is no size/],
    [['add', image, '--allow-subjects', 'CN=x'], /--allow-subjects looks at client certificates/],
    [['add', image, '--force'], /ctl add takes no --force/],
    [['remove', 'nobody'], /there is no export 'nobody': 'candor ctl exports' lists them/],
    [['remove', ''], /there is no export ''/],
    [['set', 'a'], /ctl set changes nothing: give --on-enospc, --reserve or --suspect-reads/],
    [['set', 'a', '--on-enospc', 'wait'], /--on-enospc is 'wait': write report, hold or hold=10m/],
    [['set', 'a', '--read-only'], /ctl set takes no --read-only/],
    [['disconnect', '77'], /there is no session 77: 'candor ctl sessions' lists them/],
    [['disconnect', 'x'], /there is no session x/],
    [['log-level', 'loud'], /log-level is 'loud': write debug, info, warn, error/],
  ]
  for (const [words, sentence] of wrong) {
    const { code, stdout, stderr } = await served.ctl(...words)
    assert.deepEqual([code, stdout], [1, ''], words.join(' '))
    assert.match(stderr, new RegExp(`^candor: .*${sentence.source}`), words.join(' '))
    assert.equal(stderr.split('\n').length, 2, 'one sentence')
  }
  const raw = await served.ask({ command: 'set', name: 'a', flags: { constructor: true } })
  assert.deepEqual(raw, { ok: false, error: "--constructor is no word of an export: see 'candor ctl --help'" })
  assert.deepEqual(await served.summaries(), before)
})

test('without a running server ctl says so; a second server does not start on the same state', async (t) => {
  const scope = lastFirst(t)
  const folder = folderOf(scope)
  const [image, other] = [imageAt(join(folder, 'a'), MIB), imageAt(join(folder, 'b'), MIB)]
  const served = await control(scope, folder, { words: [image] })
  await assert.rejects(
    serve(scope, [other, '--state-dir', served.state]),
    /the state directory .*state is in use by another candor: stop that one, or choose another with --state-dir/,
  )
  assert.deepEqual(
    (await served.summaries()).map(({ name }) => name),
    ['a'],
    'the first one goes on',
  )
  await served.candor.stop()
  const { code, stderr } = await served.ctl('exports')
  assert.equal(code, 1)
  assert.match(stderr, /^candor: no candor answers in .*state: is it running, and with this --state-dir\?\n$/)
})
