// docs/errors.md: every sentence is held to a test that proves it (errors-proofs.ts), and what no other suite shows of
// it is shown here.
import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { NBD_EIO, NBD_ENOSPC, RequestError } from 'nbd-protocol'
import { Ledger } from '../../server/state/ledger.js'
import { formatSlot, newestSlot } from '../../server/state/record-format.js'
import { type RunningCandor, temporaryFolder } from '../support/candor.js'
import {
  attach,
  command,
  exportState,
  KIB,
  lastFirst,
  logged,
  MIB,
  refused,
  serve,
  stamped,
} from '../support/faults.js'
import { needs } from '../support/requirements.js'
import { PROOFS } from './errors-proofs.js'

const root = join(import.meta.dirname, '../../..')
// What to do about each alert is advice; that it is there is held by test/observe/rules.test.ts.
const [page = ''] = readFileSync(join(root, 'docs/errors.md'), 'utf8').split('\n## Alerts\n')
const skip = needs('setpriv')
const HELD = 'candor_requests_held{export="disk"}'

/** Rows of tables, points of lists, and the sentences of what stands between them. */
function sentences(): string[] {
  const blocks = page.split(/\n\n|\n(?=\| |\* )/).map((block) => block.replace(/\s+/g, ' ').trim())
  const told = blocks.filter((block) => !/^(#|\|-|\| (errno on the host|rule) \|)/.test(block) && block !== '')
  const all = told.flatMap((block) => (block.startsWith('|') ? [block] : block.split(/(?<=\.) (?=[A-Z`])/)))
  // Where to read on is no claim.
  return all.filter((sentence) => !sentence.startsWith('See ['))
}

describe('docs/errors.md', () => {
  test('has a test for every sentence', () => {
    const known = PROOFS.map(([words]) => words)
    const all = sentences()
    assert.ok(all.length > 35, `${all.length} sentences`)
    assert.deepEqual(
      all.filter((sentence) => !known.some((words) => sentence.includes(words))),
      [],
      'sentences that errors-proofs.ts names no test for',
    )
    assert.deepEqual(
      known.filter((words) => !all.some((sentence) => sentence.includes(words))),
      [],
      'words of errors-proofs.ts that the page does not have',
    )
  })

  test('names only tests that there are', () => {
    const missing = PROOFS.flatMap(([, ...tests]) => tests).filter((name) => {
      const [file = '', title = ''] = name.split(/: (.*)/s)
      return !readFileSync(join(root, 'test', `${file}.test.ts`), 'utf8').includes(title)
    })
    assert.deepEqual(missing, [])
    assert.ok(PROOFS.every(([, ...tests]) => tests.length > 0))
  })
})

interface Served {
  readonly home: string
  readonly image: string
  start(...flags: readonly string[]): Promise<RunningCandor>
  ctl(...words: readonly string[]): ReturnType<typeof command>
}

function scene(t: TestContext): Served {
  const scope = lastFirst(t)
  const folder = temporaryFolder()
  scope.after(() => folder.remove())
  const home = folder.path
  const image = join(home, 'disk.img')
  const state = ['--state-dir', join(home, 'state')]
  return {
    home,
    image,
    start: (...flags) => serve(scope, [`disk=${image}`, '--create', '4M', ...state, ...flags]),
    ctl: (...words) => command(['ctl', ...words, ...state]),
  }
}

test('an operator sees what is held and since when, and has it tried again or failed', { skip }, async (t) => {
  const { start, ctl } = scene(t)
  const candor = await start('--on-enospc', 'hold', '--inject', 'write:ENOSPC')
  const client = await attach(candor)
  for (const word of ['hold-fail', 'hold-release']) {
    const held = client.write(0, stamped(0, 4 * KIB))
    const answered = word === 'hold-fail' ? refused(held, NBD_ENOSPC) : held
    while ((await candor.metrics()).get(HELD) !== 1) {}
    assert.match((await ctl('exports')).stdout, /^disk +ok .* 1 writes held for want of space since 20\d\d-/m)
    if (word === 'hold-release') assert.equal((await ctl('inject', 'disk', 'off')).code, 0)
    assert.equal((await ctl(word, 'disk')).code, 0)
    await answered
  }
  assert.equal((await candor.metrics()).get(HELD), 0)
})

test('the map keeps the latest failures, also where the guest has written again', { skip }, async (t) => {
  const { start, home } = scene(t)
  const candor = await start('--inject', 'write:ENOSPC,count=1')
  const client = await attach(candor)
  await refused(client.write(0, stamped(0, 4 * KIB)), NBD_ENOSPC)
  await client.write(0, stamped(0, 4 * KIB))
  const map = await command(['map', 'disk', '--cells', '4', '--state-dir', join(home, 'state')])
  assert.match(map.stdout, /X/)
  const bound = Number(/latest ([\d,]+) runs of failures/.exec(page)?.[1]?.replace(',', ''))
  const ledger = new Ledger(join(home, 'ledger'), () => assert.fail('nothing may be lost'))
  for (let index = 0; index <= bound; index++) ledger.note('unix', 'write', 'EIO', index * 8192, 4096)
  await ledger.flush()
  assert.deepEqual([[...ledger.recent()].length, [...ledger.recent()][0]?.offset], [bound, 8192])
})

test('what a failed sync made suspect is told in words, with the first byte, and read by those who accept it', {
  skip,
}, async (t) => {
  const { start } = scene(t)
  const strict = await start('--inject', 'flush:EIO,count=1')
  const client = await attach(strict)
  await client.write(8 * KIB, stamped(8 * KIB, 4 * KIB))
  await assert.rejects(client.flush(), /EIO on the host/)
  await assert.rejects(client.read(0, MIB), (error) => error instanceof RequestError && error.offset === 8 * KIB)
  await strict.stop()

  const lenient = await start('--suspect-reads', 'allow')
  assert.deepEqual(Buffer.from(await (await attach(lenient)).read(8 * KIB, 4 * KIB)), stamped(8 * KIB, 4 * KIB))
})

test('an image that was renamed is known again, and one whose record cannot be made is not served', {
  skip,
}, async (t) => {
  const { start, home, image } = scene(t)
  const first = await start('--inject', 'flush:EIO,count=1')
  const client = await attach(first)
  await client.write(0, stamped(0, 4 * KIB))
  await refused(client.flush(), NBD_EIO)
  await first.stop()

  const renamed = join(home, 'other.img')
  renameSync(image, renamed)
  const state = join(home, 'state')
  const second = await serve(lastFirst(t), [`disk=${renamed}`, '--state-dir', state])
  assert.equal(await exportState(second, 'disk'), 'degraded')
  await second.stop()

  const record = recordIn(state)
  rmSync(record)
  mkdirSync(record)
  const { code, stderr } = await command(['serve', `disk=${renamed}`, '--state-dir', state, '--http', 'off'])
  assert.equal(code, 1)
  assert.match(stderr, /^candor: the record of .* cannot be kept in .*: make room there, or choose another folder/)
})

function recordIn(state: string): string {
  const [name = ''] = readdirSync(state).filter((each) => each.startsWith('image-'))
  return join(state, name)
}

test('after an unclean end the log says whether the host went down as well', { skip }, async (t) => {
  const { start, home } = scene(t)
  for (const hostWentDown of [false, true]) {
    const killed = await start()
    await (await attach(killed)).write(0, stamped(0, 4 * KIB))
    killed.kill('SIGKILL')
    await killed.ended
    if (hostWentDown) bootAgain(recordIn(join(home, 'state')))
    const next = await start()
    const why = hostWentDown ? /the host went down while it was served/ : /its last server was killed/
    assert.equal(logged(next, /^unclean end of export disk: /).length, 1)
    assert.equal(logged(next, why).length, 1)
    await next.stop()
  }
})

/** A record as another boot of the host would have left it. */
function bootAgain(record: string): void {
  const bytes = readFileSync(record)
  const stored = newestSlot(bytes)
  assert.ok(stored !== undefined)
  const slot = formatSlot({ ...stored, bootId: 'another', seq: stored.seq + 1 })
  slot.copy(bytes, 0)
  slot.copy(bytes, slot.length)
  writeFileSync(record, bytes)
}

test('every rule of the page does what its row says', { skip }, async (t) => {
  const rules = [...page.matchAll(/^\| `([a-z]+:[^`]+)` \|/gm)].map(([, rule = '']) => rule)
  const listed = /Commands are ([a-z, ]+) and any\./.exec(page)?.[1]?.split(', ') ?? []
  assert.deepEqual(rules.length, 5)
  assert.deepEqual(listed, ['read', 'write', 'zero', 'trim', 'flush', 'cache'])
  const { start, ctl } = scene(t)
  const candor = await start()
  const every = [...rules, ...[...listed, 'any'].map((name) => `${name}:EIO,rate=0`)]
  assert.equal((await ctl('inject', 'disk', ...every)).code, 0)
  const client = await attach(candor)
  assert.equal((await ctl('inject', 'disk', 'write:ENOSPC@1M-2M')).code, 0)
  await client.write(0, stamped(0, MIB))
  await refused(client.write(MIB - 4 * KIB, stamped(0, 8 * KIB)), NBD_ENOSPC)
  assert.equal((await ctl('inject', 'disk', 'write:EIO,short=512')).code, 0)
  await refused(client.write(0, Buffer.alloc(4 * KIB, 0xee)), NBD_EIO)
  const torn = Buffer.from(await client.read(0, 4 * KIB))
  assert.deepEqual([torn[511], torn.subarray(512)], [0xee, stamped(0, 4 * KIB).subarray(512)])
  assert.equal((await ctl('inject', 'disk', 'write:delay=2s')).code, 0)
  const order: string[] = []
  const slow = client.write(0, stamped(0, 4 * KIB)).then(() => order.push('the slow write'))
  await client.read(0, 4 * KIB)
  order.push('a read behind it')
  await slow
  assert.deepEqual(order, ['a read behind it', 'the slow write'])
  assert.equal((await ctl('inject', 'disk', 'flush:EIO,count=1')).code, 0)
  await refused(client.flush(), NBD_EIO)
  assert.equal(await exportState(candor, 'disk'), 'degraded')
  assert.equal((await ctl('inject', 'disk', 'off')).code, 0)
})
