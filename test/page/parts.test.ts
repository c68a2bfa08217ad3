// The parts of the HTTP side that need no server: what is bounded, what is counted, and what is escaped.
import assert from 'node:assert/strict'
import { EventEmitter } from 'node:events'
import { describe, test } from 'node:test'
import type { FastifyInstance } from 'fastify'
import { NBD_CMD_READ, NBD_CMD_WRITE } from 'nbd-protocol'
import { EINVAL, EIO, ENOSPC } from '../../backends/index.js'
import {
  type Counters,
  count,
  errorAt,
  exportCounters,
  pulseBlock,
  READ_BYTES_AT,
  REQUESTS_AT,
  STATE_AT,
  serverCounters,
} from '../../server/observe/counters.js'
import type { Observed, ObservedExport } from '../../server/observe/family.js'
import { Events } from '../../server/observe/http-events.js'
import { htmlOf, slugOf } from '../../server/observe/markdown.js'
import { allViews } from '../../server/observe/overview.js'
import { ranked } from '../../server/observe/problem.js'
import { problemsOf } from '../../server/observe/problems.js'
import { NoAnswer, QUESTIONS_MAX, QUESTIONS_PER_EXPORT_MAX, Questions } from '../../server/observe/questions.js'
import { matching } from '../../server/observe/rows.js'
import { HISTORY_SECONDS, Watch } from '../../server/observe/watch.js'

function observedExport(name: string, counters: Counters = exportCounters()): ObservedExport {
  const pulse = pulseBlock()
  pulse[0] = Date.now()
  return { name, size: 1 << 20, readOnly: false, path: `/srv/${name}`, device: undefined, counters, pulse }
}

function observed(...exports: ObservedExport[]): Observed {
  return { version: '0', server: serverCounters(), pulse: pulseBlock(), ioEngine: 'pool', backings: [], exports }
}

describe('questions to storage', () => {
  test('end with their time-out, and those about storage that hangs are bounded and harm no other', async () => {
    const posted: number[] = []
    const questions = new Questions((id) => posted.push(id), 1)
    const asked = Array.from({ length: QUESTIONS_PER_EXPORT_MAX }, () =>
      questions.ask({ command: 'map', name: 'hung' }),
    )
    for (const question of asked)
      await assert.rejects(question, (error) => error instanceof NoAnswer && error.status === 504)
    assert.throws(() => questions.ask({ command: 'map', name: 'hung' }), /has not answered earlier questions/)
    const other = questions.ask({ command: 'map', name: 'well' })
    questions.answered(posted.at(-1) ?? 0, { ok: true, result: 7 })
    assert.deepEqual(await other, { ok: true, result: 7 })
    questions.answered(posted[0] ?? 0, { ok: true, result: 'late' })
    questions.ask({ command: 'map', name: 'hung' }).catch(() => {})
  })

  test('are bounded together too', () => {
    const questions = new Questions(() => {}, 1)
    for (let index = 0; index < QUESTIONS_MAX; index++)
      questions.ask({ command: 'map', name: `${index}` }).catch(() => {})
    assert.throws(
      () => questions.ask({ command: 'map', name: 'one more' }),
      (error) => error instanceof NoAnswer && error.status === 503,
    )
  })
})

describe('what happened lately', () => {
  test('is kept second for second, bounded, from differences of the counters', () => {
    const disk = observedExport('disk')
    const watch = new Watch()
    const start = 1_700_000_000_000
    for (let second = 0; second < HISTORY_SECONDS + 5; second++) {
      count(disk.counters, READ_BYTES_AT, 1000)
      count(disk.counters, REQUESTS_AT, 2)
      if (second === HISTORY_SECONDS) count(disk.counters, errorAt(NBD_CMD_WRITE, ENOSPC), 3)
      watch.sample(observed(disk), start + second * 1000)
    }
    const series = watch.series('disk')
    assert.equal(series?.times.length, HISTORY_SECONDS)
    assert.deepEqual([series?.readBytes.at(-1), series?.requests.at(-1)], [1000, 2])
    assert.equal(series?.errors['ENOSPC']?.at(-5), 3)
    assert.equal(series?.errors['ENOSPC']?.length, HISTORY_SECONDS)
    assert.equal(series?.times.at(-1), start / 1000 + HISTORY_SECONDS + 4)
    assert.equal(watch.series('nope'), undefined)
  })

  test('tells when an error began and came last, and takes it for a new episode after a silence', () => {
    const disk = observedExport('disk')
    const watch = new Watch()
    const fail = (now: number) => {
      count(disk.counters, errorAt(NBD_CMD_READ, EIO))
      watch.sample(observed(disk), now)
    }
    fail(1000)
    fail(2000)
    const first = watch.errorsOf(disk)[0]
    assert.deepEqual([first?.since, first?.last, first?.count], [1000, 2000, 2])
    fail(2000 + 3_600_000)
    const later = watch.errorsOf(disk)[0]
    assert.deepEqual([later?.since, later?.count, later?.total], [3_602_000, 1, 3])
  })
})

describe('the feed of events', () => {
  test('lets a watcher go that leaves more than a MiB unread, and has room for another then', async () => {
    type Handler = (request: object, reply: object) => Promise<void>
    const handlers: Handler[] = []
    const app = { get: (_path: string, _options: object, handler: Handler) => handlers.push(handler) }
    const disk = observedExport('disk')
    const sources = { observed: () => observed(disk), watch: new Watch(), questions: new Questions(() => {}) }
    const events = new Events(sources, 1)
    events.route(app as unknown as FastifyInstance)
    const watcher = () => {
      const raw = new EventEmitter()
      const destroy = () => raw.emit('close')
      return Object.assign(raw, { writableLength: 0, writeHead: () => {}, write: () => raw, destroy })
    }
    const open = async (raw: object) => handlers[0]?.({ query: {} }, { hijack: () => {}, getHeaders: () => ({}), raw })
    const slow = watcher()
    await open(slow)
    await assert.rejects(open(watcher()), (error) => error instanceof NoAnswer && error.status === 503)
    slow.writableLength = 1 << 20
    events.tick()
    await assert.rejects(open(watcher()), NoAnswer)
    slow.writableLength += 1
    events.tick()
    await open(watcher())
  })
})

describe('a thousand exports', () => {
  const exports = Array.from({ length: 1000 }, (_, index) => observedExport(`disk${index}`))
  const watch = new Watch()
  watch.sample(observed(...exports))
  const broken = exports[700]
  if (broken !== undefined) broken.counters[STATE_AT] = 1

  test('are shown a page at a time, those in trouble first, and found by a part of their name', () => {
    const views = allViews(exports, watch)
    const rows = matching(views, { text: '', first: 0, count: 25 })
    assert.deepEqual(
      [rows.exports.length, rows.exports[0]?.name, rows.matching, rows.total],
      [25, 'disk700', 1000, 1000],
    )
    assert.equal(matching(views, { text: 'DISK99', first: 10, count: 25 }).exports.length, 1)
    assert.equal(matching(views, { text: 'x', first: 0, count: 25 }).matching, 0)
  })
})

describe('problems in words', () => {
  test('tell host errors that go on from those that are over, and from requests that were refused', () => {
    const disk = observedExport('disk')
    const watch = new Watch()
    const now = Date.now()
    count(disk.counters, errorAt(NBD_CMD_WRITE, ENOSPC))
    count(disk.counters, errorAt(NBD_CMD_READ, EINVAL))
    watch.sample(observed(disk), now)
    const told = (at: number) =>
      ranked(allViews([disk], watch, at).flatMap((view) => problemsOf(view, at))).map(({ severity, title }) => [
        severity,
        title,
      ])
    assert.deepEqual(told(now), [
      ['broken', "the host's disk is full"],
      ['notice', 'a client asked for what it may not have'],
    ])
    const [pulse] = [disk.pulse]
    pulse[0] = now + 120_000
    assert.ok(
      told(now + 120_000).some(
        ([severity, title]) => `${severity}: ${title}` === "notice: the host's disk was full, earlier",
      ),
    )
  })
})

describe('the handbook as HTML', () => {
  test('escapes everything, and links nowhere but to this server', () => {
    assert.equal(htmlOf('a <script>x</script> & "b"'), '<p>a &lt;script&gt;x&lt;/script&gt; &amp; &quot;b&quot;</p>')
    assert.equal(htmlOf('[x](javascript:alert(1)) [y](https://evil.example)'), '<p>x) y</p>')
    assert.equal(htmlOf('[e](errors.md#a-full-host)'), '<p><a href="/docs/errors#a-full-host">e</a></p>')
    assert.equal(htmlOf('```\n<b>\n```'), '<pre><code>&lt;b&gt;</code></pre>')
    assert.match(
      htmlOf('# One *two* `three`\n'),
      /^<h1 id="one-two-three">One <em>two<\/em> <code>three<\/code><\/h1>$/,
    )
    assert.equal(
      slugOf('What each error means, what the guest sees, and what to do'),
      'what-each-error-means-what-the-guest-sees-and-what-to-do',
    )
  })

  test('makes tables and lists', () => {
    assert.match(htmlOf('| a | b |\n|---|---|\n| 1 | `2` |'), /<th>a<\/th>.*<td>1<\/td><td><code>2<\/code><\/td>/)
    assert.equal(htmlOf('* one\n  more\n* two'), '<ul><li>one more</li><li>two</li></ul>')
  })
})
