// Fault injection: rules in words hit what they name, are counted and loud, and go away without a trace.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { NBD_EIO, NBD_ENOSPC } from 'nbd-protocol'
import { injectionPlan, type Operation } from '../../backends/index.js'
import { parseRule, UsageError } from '../../server/values.js'
import { runCandor, startCandor, temporaryFolder } from '../support/candor.js'
import { attach, errorsCounted, refused } from '../support/faults.js'
import { randomFrom } from '../support/random.js'

const GIB = 2 ** 30

function write(offset: number, length = 4096): Operation {
  return { command: 'write', offset, length, durable: false, now: true }
}

function hits(words: readonly string[], operations: readonly Operation[], random?: () => number): number {
  let count = 0
  const plan = injectionPlan(words.map(parseRule), () => count++, random)
  for (const operation of operations) plan(operation)
  return count
}

describe('an injection rule', () => {
  test('hits the requests that touch its range, and no others', () => {
    const rule = ['write:ENOSPC@1G-2G']
    assert.equal(hits(rule, [write(GIB), write(GIB - 1), write(2 * GIB - 1)]), 3)
    assert.equal(hits(rule, [write(GIB - 4096), write(2 * GIB), { ...write(GIB), command: 'read' }]), 0)
    assert.equal(hits(rule, [{ ...write(0), command: 'flush', length: 0 }]), 0)
  })

  test('rests after its count', () => {
    assert.equal(
      hits(
        ['write:EIO,count=3'],
        Array.from({ length: 10 }, () => write(0)),
      ),
      3,
    )
  })

  test('hits about as often as its rate says', () => {
    const random = randomFrom(42)
    const operations = Array.from({ length: 10_000 }, () => write(0))
    const share = hits(['any:EIO,rate=0.1'], operations, () => random.below(2 ** 30) / 2 ** 30) / 10_000
    assert.ok(share > 0.08 && share < 0.12, `${share}`)
  })

  for (const [text, why] of [
    ['write', /names no command/],
    ['wirte:EIO', /names no command/],
    ['write:EFOO', /'EFOO', which is no errno/],
    ['write:EIO@2G-1G', /a range that ends before it begins/],
    ['write:EIO@1Q-2G', /is '1Q', which is no size/],
    ['write:EIO,rate=2', /a rate that is not from 0 to 1/],
    ['write:EIO,count=0', /a count that is none/],
    ['write:delay=soon', /is 'soon', which is no time/],
    ['write:EIO,foo', /which means nothing|no errno/],
    ['write:count=2', /has no effect/],
  ] as const) {
    test(`'${text}' is refused with a sentence that names it`, () => {
      assert.throws(
        () => parseRule(text),
        (error) => error instanceof UsageError && why.test(error.message) && error.message.includes(text),
      )
    })
  }
})

describe('a server with injected faults', () => {
  test('fails what the rules name, counts it, says so aloud, and takes rules at run time', async (t) => {
    const folder = temporaryFolder()
    const state = join(folder.path, 'state')
    const image = `disk=${join(folder.path, 'disk.img')}`
    const listen = `unix:${join(folder.path, 'nbd')}`
    const words = ['serve', image, '--create', '3G', '--listen', listen, '--state-dir', state]
    const candor = await startCandor([...words, '--inject', 'write:ENOSPC@1G-2G'])
    t.after(async () => {
      await candor.stop()
      folder.remove()
    })
    const client = await attach(candor)
    await client.write(0, Buffer.alloc(4096))
    await refused(client.write(GIB, Buffer.alloc(4096)), NBD_ENOSPC)
    const metrics = await candor.metrics()
    assert.equal(metrics.get('candor_injected_faults_total{export="disk"}'), 1)
    assert.equal(metrics.get('candor_injection_rules{export="disk"}'), 1)
    assert.equal(await errorsCounted(candor, { export: 'disk', command: 'write', errno: 'ENOSPC' }), 1)
    assert.match(candor.stderr(), /FAULT INJECTION is on/)

    const ctl = (...rules: string[]) => runCandor(['ctl', 'inject', 'disk', ...rules, '--state-dir', state])
    assert.equal((await ctl('read:EIO,count=1', 'write:delay=10ms')).code, 0)
    await client.write(GIB, Buffer.alloc(4096))
    await refused(client.read(0, 4096), NBD_EIO)
    assert.equal((await client.read(0, 4096)).length, 4096)
    assert.equal((await ctl('write:EFOO')).code, 1)
    assert.equal((await ctl('off')).code, 0)
    assert.equal((await candor.metrics()).get('candor_injection_rules{export="disk"}'), 0)
    await client.flush()
  })
})
