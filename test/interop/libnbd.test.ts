// libnbd by its Python door: the flags, options and mistakes that the ready-made clients never send. The scripts beside
// this file speak; what they report is judged here, and what they wrote is looked at on the host.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { eachAttachment, MIB, useTool } from '../support/interop.js'
import { assertAbout, everySecond, makeImage } from '../support/interop-images.js'

/** Debian's libnbd is built for Debian's Python; nbdsh comes in the same package as the module. */
const PYTHON = '/usr/bin/python3'
const PROGRAMS = [PYTHON, 'nbdsh']

/** Runs a script out of the source tree and returns the JSON that it prints. */
async function script<Report>(name: string, ...words: readonly string[]): Promise<Report> {
  const path = fileURLToPath(new URL(`../../../test/interop/libnbd_${name}.py`, import.meta.url))
  return JSON.parse(await useTool(PYTHON, ['-B', path, ...words]))
}

interface FlagsReport {
  readonly commands: Readonly<Record<string, { readonly outcome: string; readonly freed: number }>>
  readonly alive: boolean
}

/** What each command of libnbd_flags.py frees of a disk that is full of data; the others free nothing. */
const FREED: Readonly<Record<string, number>> = {
  trim: MIB,
  'trim FUA': MIB,
  zero: MIB,
  'zero FUA': MIB,
  'zero FAST_ZERO': MIB,
  'zero a hole with NO_HOLE': -MIB,
}

eachAttachment.test(
  'every command succeeds with every flag it may carry, and does what it says',
  PROGRAMS,
  async (scope) => {
    const size = 32 * MIB
    const image = scope.path('disk.img')
    makeImage(image, size, [{ offset: 0, length: size }])
    const expected = readFileSync(image)
    const served = await scope.serve([`disk=${image}`])
    const { commands, alive } = await script<FlagsReport>('flags', served.uri('disk'), image)
    assert.equal(Object.keys(commands).length, 16)
    for (const [title, { outcome, freed }] of Object.entries(commands)) {
      assert.equal(outcome, 'ok', title)
      assertAbout(freed, FREED[title] ?? 0, title)
    }
    assert.ok(alive)
    expected.fill(0x5a, 0, 8192).fill(0x5b, 8192, 16384)
    for (let at = 1; at <= 17; at += 2) expected.fill(0, at * MIB, (at + 1) * MIB)
    assert.deepEqual(readFileSync(image), expected)
  },
)

interface ReadingReport {
  readonly [title: string]: unknown
}

eachAttachment.test('DF brings a read in one chunk, and REQ_ONE one run of block status', PROGRAMS, async (scope) => {
  const image = scope.path('disk.img')
  makeImage(image, 32 * MIB, everySecond(32 * MIB, MIB))
  const served = await scope.serve([`disk=${image}`])
  const [data, hole] = [0, 3]
  const runs = (allocation: readonly (readonly [number, number])[]) => ({
    'base:allocation': allocation,
    'qemu:allocation-depth': allocation.map(([length, state]) => [length, state === data ? 1 : 0]),
  })
  const { chunks, ...report } = await script<ReadingReport>('reading', served.uri('disk'))
  assert.equal((chunks as { readonly same: boolean }).same, true)
  assert.deepEqual(report, {
    'chunks DF': { chunks: [['data', 0, 4 * MIB]], same: true },
    'largest chunk DF': { chunks: [['data', 0, 32 * MIB]], same: true },
    runs: runs([
      [MIB, data],
      [MIB, hole],
      [MIB, data],
      [MIB, hole],
    ]),
    'runs within': runs([
      [MIB / 2, data],
      [MIB / 2, hole],
    ]),
    'runs REQ_ONE': runs([[MIB, data]]),
    'runs REQ_ONE in a hole': runs([[512, hole]]),
    alive: true,
  })
})

const PLAIN = { structured: false, df: false, same: true, past: 'EINVAL', status: 'EINVAL', alive: true }
const STRUCTURED = { ...PLAIN, structured: true, df: true }

eachAttachment.test('every way through the handshake ends where it should', PROGRAMS, async (scope) => {
  const [first, second] = [scope.path('first'), scope.path('second')]
  makeImage(first, MIB, [])
  makeImage(second, 2 * MIB, [])
  const served = await scope.serve([first, second])
  const uris = [served.uri('first'), served.uri('second'), served.uriBeside('first', 'nobody')]
  assert.deepEqual(await script('handshake', ...uris), {
    fixed: { ...STRUCTURED, protocol: 'newstyle-fixed', size: MIB },
    simple: { ...PLAIN, protocol: 'newstyle-fixed', size: MIB },
    EXPORT_NAME: { ...PLAIN, protocol: 'newstyle', size: MIB },
    'EXPORT_NAME NO_ZEROES': { ...PLAIN, protocol: 'newstyle', size: 2 * MIB },
    // The option has no error reply: the server hangs up.
    'EXPORT_NAME unknown': 'lost',
    unknown: 'ENOENT',
    options: {
      listed: ['first', 'second'],
      told: 2 * MIB,
      refused: ['ENOENT', 'ENOENT'],
      contexts: ['base:allocation', 'qemu:allocation-depth'],
      'went to': MIB,
      'may ask': true,
      alive: true,
    },
    aborted: true,
    unnamed: ['first', MIB, true],
    'after all': { ...STRUCTURED, protocol: 'newstyle-fixed', size: 2 * MIB },
  })
})

/** The answers to what is not EINVAL among the mistakes of libnbd_refusals.py. */
const REFUSED: Readonly<Record<string, string>> = {
  'write past the end': 'ENOSPC',
  'write behind the end': 'ENOSPC',
  'write when read-only': 'EPERM',
  'write with FUA when read-only': 'EPERM',
  'trim when read-only': 'EPERM',
  'zero when read-only': 'EPERM',
  'zero with FAST_ZERO when read-only': 'EPERM',
}

eachAttachment.test('each mistake is refused with its errno, and the connection goes on', PROGRAMS, async (scope) => {
  const [writable, readable] = [scope.path('writable'), scope.path('readable')]
  for (const image of [writable, readable]) makeImage(image, 64 * MIB, [{ offset: 0, length: MIB }])
  const before = readFileSync(writable)
  const [served, reader] = [await scope.serve([writable]), await scope.serve([readable, '--read-only'])]
  const uris = [served.uri('writable'), reader.uri('readable')]
  const report = await script<Readonly<Record<string, readonly [string, boolean]>>>('refusals', ...uris)
  assert.equal(Object.keys(report).length, 28)
  const expected = Object.fromEntries(Object.keys(report).map((title) => [title, [REFUSED[title] ?? 'EINVAL', true]]))
  assert.deepEqual(report, expected)
  assert.ok(readFileSync(writable).equals(before), 'a refused request changed the image')
  assert.ok(readFileSync(readable).equals(before), 'a read-only image was changed')
})

eachAttachment.test('a read of no bytes gets an answer that libnbd understands', PROGRAMS, async (scope) => {
  const served = await scope.serve([`disk=${scope.path('disk.img')}`, '--create', '1M'])
  const { alive } = await script<{ readonly alive: boolean }>('nothing', served.uri('disk'))
  assert.ok(alive, 'libnbd gave the connection up')
})

interface Tally {
  readonly issued: number
  readonly 'answered once': number
  readonly errors: number
  readonly 'most in flight': number
}

interface BulkReport {
  readonly largest: boolean
  readonly parallel: { readonly writes: Tally; readonly reads: Tally; readonly wrong: readonly number[] }
  readonly alive: boolean
}

eachAttachment.test(
  '32 MiB go in one request, and of 64 requests and more in flight each is answered once, rightly',
  PROGRAMS,
  async (scope) => {
    const served = await scope.serve([`disk=${scope.path('disk.img')}`, '--create', '64M'])
    const { largest, parallel, alive } = await script<BulkReport>('bulk', served.uri('disk'))
    assert.ok(largest, '32 MiB came back as something else')
    const { writes, reads, wrong } = parallel
    for (const { issued, errors, ...tally } of [writes, reads]) {
      assert.ok(issued >= 64 && tally['most in flight'] >= 64, `${tally['most in flight']} requests were in flight`)
      assert.equal(tally['answered once'], issued)
      assert.equal(errors, 0)
    }
    assert.deepEqual(wrong, [])
    assert.ok(alive)
  },
)

/** The calls on the image: the offset that a change was made at, or `sync`; a change that syncs itself is both. */
function readTrace(file: string, image: string): (number | 'sync')[] {
  const calls: (number | 'sync')[] = []
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    const [, call, path, rest = ''] = /^\d+ +(\w+)\(\d+<([^>]*)>(.*)/.exec(line) ?? []
    if (path !== image) continue
    const numbers = [...rest.replace(/\[.*\]/, '').matchAll(/\b\d+\b/g)].map(([digits]) => Number(digits))
    const offset = numbers.find((number) => number >= MIB && number % MIB === 0)
    if (call === 'fdatasync') calls.push('sync')
    else if (offset !== undefined) calls.push(offset, ...(rest.includes('RWF_DSYNC') ? (['sync'] as const) : []))
  }
  return calls
}

eachAttachment.test('FUA syncs before the answer, and nothing else does', [...PROGRAMS, 'strace'], async (scope) => {
  const [image, trace] = [scope.path('disk.img'), scope.path('trace')]
  makeImage(image, 16 * MIB, [{ offset: 0, length: 16 * MIB }])
  const calls = 'trace=fdatasync,fsync,pwrite64,pwritev2,fallocate'
  const wrapper = ['strace', '-D', '-f', '-qq', '-y', '-s', '0', '-e', calls, '-e', 'signal=none', '-o', trace]
  const served = await scope.serve([`disk=${image}`], { wrapper })
  await script('durable', served.uri('disk'))
  await served.stop()
  const seen = readTrace(trace, image)
  const synced = new Map<number, boolean>()
  seen.forEach((call, index) => {
    if (call !== 'sync') synced.set(call / MIB, seen[index + 1] === 'sync')
  })
  // Every second command carried FUA; the flush is the sync after the ninth, the end of the server that after the tenth.
  const expected = Array.from({ length: 10 }, (_, index) => [index + 1, index % 2 === 1 || index === 8] as const)
  assert.deepEqual([...synced], expected)
})
