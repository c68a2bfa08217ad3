// nbdinfo, libnbd's window into a server: exports, sizes, flags, layout, and what becomes of names that are unknown.
import assert from 'node:assert/strict'
import { eachAttachment, MIB, runTool, useTool } from '../support/interop.js'
import { everySecond, makeImage } from '../support/interop-images.js'

const SIZE = 32 * MIB

interface ExportInfo {
  readonly [property: string]: unknown
  readonly 'export-name': string
  readonly contexts: readonly string[]
}

interface ServerInfo {
  readonly protocol: string
  readonly TLS: boolean
  readonly structured: boolean
  readonly exports: readonly ExportInfo[]
}

function parseInfo(text: string): ServerInfo {
  return JSON.parse(text)
}

async function infoOf(uri: string, ...flags: readonly string[]): Promise<ServerInfo> {
  return parseInfo(await useTool('nbdinfo', ['--json', ...flags, uri]))
}

function theOnly(exports: readonly ExportInfo[]): ExportInfo {
  const [first, second] = exports
  assert.ok(first !== undefined && second === undefined, `${exports.length} exports are described`)
  return first
}

/** A row of `nbdinfo --map`: 0 is data, 1 a hole, 2 zeroes that take up space, 3 a hole that reads as zeroes. */
interface MapRow {
  readonly offset: number
  readonly length: number
  readonly type: number
}

async function mapOf(uri: string, context = 'base:allocation'): Promise<MapRow[]> {
  const rows: readonly MapRow[] = JSON.parse(await useTool('nbdinfo', [`--map=${context}`, '--json', uri]))
  return rows.map(({ offset, length, type }) => ({ offset, length, type }))
}

eachAttachment.test('nbdinfo describes a writable export whole', ['nbdinfo'], async (scope) => {
  const served = await scope.serve([`disk=${scope.path('disk.img')}`, '--create', String(SIZE)])
  const { protocol, TLS, structured, exports } = await infoOf(served.uri('disk'))
  assert.deepEqual({ protocol, TLS, structured }, { protocol: 'newstyle-fixed', TLS: false, structured: true })
  // What nbdinfo 1.22 tells besides.
  const { uri, description, contexts, content, can_block_status_payload: _, ...rest } = theOnly(exports)
  assert.ok(contexts.includes('base:allocation'))
  assert.deepEqual(rest, {
    'export-name': 'disk',
    is_rotational: false,
    is_read_only: false,
    can_cache: true,
    can_df: true,
    can_fast_zero: true,
    can_flush: true,
    can_fua: true,
    can_multi_conn: true,
    can_trim: true,
    can_zero: true,
    block_size_minimum: 1,
    block_size_preferred: 4096,
    block_size_maximum: 32 * MIB,
    'export-size': SIZE,
    'export-size-str': '32M',
  })
})

eachAttachment.test('a read-only export says so, and offers nothing that writes', ['nbdinfo'], async (scope) => {
  const image = scope.path('disk.img')
  makeImage(image, SIZE, [])
  const served = await scope.serve([`disk=${image}`, '--read-only'])
  const { exports } = await infoOf(served.uri('disk'))
  const { is_read_only, can_trim, can_zero, can_fast_zero, can_multi_conn } = theOnly(exports)
  assert.deepEqual(
    { is_read_only, can_trim, can_zero, can_fast_zero, can_multi_conn },
    { is_read_only: true, can_trim: false, can_zero: false, can_fast_zero: false, can_multi_conn: true },
  )
  await useTool('nbdinfo', ['--is', 'read-only', served.uri('disk')])
})

eachAttachment.test('nbdinfo lists all exports, each with its size', ['nbdinfo'], async (scope) => {
  const sizes: Readonly<Record<string, number>> = { 'a.img': MIB, 'b ü.img': 2 * MIB, 'c.img': 1536 }
  for (const [name, size] of Object.entries(sizes)) makeImage(scope.path(name), size, [])
  const served = await scope.serve(Object.keys(sizes).map((name) => scope.path(name)))
  const { exports } = await infoOf(served.uri('a.img'), '--list')
  const listed = Object.fromEntries(exports.map((entry) => [entry['export-name'], entry['export-size']]))
  assert.deepEqual(listed, sizes)
  for (const [name, size] of Object.entries(sizes)) {
    const uri = served.uri(encodeURIComponent(name))
    assert.equal(await useTool('nbdinfo', ['--size', uri]), `${size}\n`)
  }
})

eachAttachment.test('nbdinfo maps data and holes as they are', ['nbdinfo'], async (scope) => {
  const image = scope.path('disk.img')
  makeImage(image, SIZE, everySecond(SIZE, MIB))
  const served = await scope.serve([`disk=${image}`])
  const expected = Array.from({ length: 32 }, (_, index) => ({
    offset: index * MIB,
    length: MIB,
    type: 3 * (index % 2),
  }))
  assert.deepEqual(await mapOf(served.uri('disk')), expected)
  // In this context of QEMU's 1 stands for data and 0 for what the image does not hold.
  const depths = expected.map((row) => ({ ...row, type: row.type === 0 ? 1 : 0 }))
  assert.deepEqual(await mapOf(served.uri('disk'), 'qemu:allocation-depth'), depths)
})

eachAttachment.test(
  'a layout of 10,000 runs is told whole, in as many requests as it takes',
  ['nbdinfo'],
  async (scope) => {
    const image = scope.path('disk.img')
    makeImage(image, 10_000 * 4096, everySecond(10_000 * 4096, 4096))
    const served = await scope.serve([`disk=${image}`])
    const expected = Array.from({ length: 10_000 }, (_, index) => ({
      offset: index * 4096,
      length: 4096,
      type: 3 * (index % 2),
    }))
    assert.deepEqual(await mapOf(served.uri('disk')), expected)
  },
)

eachAttachment.test(
  'space that was allocated in advance is told as zeroes, not as a hole',
  ['nbdinfo', 'fallocate'],
  async (scope) => {
    const image = scope.path('disk.img')
    makeImage(image, 4 * MIB, [{ offset: 0, length: MIB }])
    await useTool('fallocate', ['--keep-size', '--offset', String(2 * MIB), '--length', String(MIB), image])
    const served = await scope.serve([`disk=${image}`])
    assert.deepEqual(await mapOf(served.uri('disk')), [
      { offset: 0, length: MIB, type: 0 },
      { offset: MIB, length: MIB, type: 3 },
      { offset: 2 * MIB, length: MIB, type: 2 },
      { offset: 3 * MIB, length: MIB, type: 3 },
    ])
  },
)

eachAttachment.test('the empty name leads to the first export', ['nbdinfo'], async (scope) => {
  for (const [name, size] of [['first', MIB] as const, ['second', 2 * MIB] as const]) {
    makeImage(scope.path(name), size, [])
  }
  const served = await scope.serve([scope.path('first'), scope.path('second')])
  const unnamed = served.uriBeside('first', '')
  assert.equal(await useTool('nbdinfo', ['--size', unnamed]), `${MIB}\n`)
  assert.equal(await useTool('nbdinfo', ['--size', served.uri('second')]), `${2 * MIB}\n`)
})

eachAttachment.test('an unknown name is refused by its name, and the server lives on', ['nbdinfo'], async (scope) => {
  makeImage(scope.path('disk.img'), MIB, [])
  const served = await scope.serve([`disk=${scope.path('disk.img')}`])
  for (const name of ['nobody', 'Disk', 'disk/', 'x'.repeat(4096)]) {
    const { code, stderr } = await runTool('nbdinfo', ['--size', served.uriBeside('disk', name)])
    assert.equal(code, 1)
    // nbdinfo 1.22 has forgotten why when it comes to tell.
    assert.match(stderr, /server has no export named|No such file or directory|not returned export size/)
  }
  assert.equal(await useTool('nbdinfo', ['--size', served.uri('disk')]), `${MIB}\n`)
})

/** What peers say of the same image, by servers that live no longer than the question. */
const PEERS: Readonly<Record<string, (image: string) => Promise<string>>> = {
  nbdkit: (image) => useTool('nbdkit', ['-U', '-', 'file', image, '--run', 'nbdinfo --json "$uri"']),
  'qemu-nbd': (image) => useTool('nbdinfo', ['--json', '--', '[', 'qemu-nbd', '-A', '-f', 'raw', image, ']']),
}

async function offersWhat(
  peer: string,
  scope: Parameters<Parameters<typeof eachAttachment.test>[2]>[0],
): Promise<void> {
  const image = scope.path('disk.img')
  makeImage(image, SIZE, everySecond(SIZE, MIB))
  const theirs = parseInfo((await PEERS[peer]?.(image)) ?? '')
  const served = await scope.serve([`disk=${image}`])
  const ours = await infoOf(served.uri('disk'))
  assert.equal(ours.structured, theirs.structured)
  assert.equal(ours.protocol, theirs.protocol)
  const [their, our] = [theOnly(theirs.exports), theOnly(ours.exports)]
  assert.equal(our['export-size'], their['export-size'])
  assert.equal(our['is_read_only'], their['is_read_only'])
  const offered = Object.keys(their).filter((property) => property.startsWith('can_') && their[property] === true)
  assert.ok(offered.length >= 5, `${peer} offers ${offered}`)
  assert.deepEqual(
    offered.filter((property) => our[property] !== true),
    [],
  )
  assert.deepEqual(
    their.contexts.filter((context) => !our.contexts.includes(context)),
    [],
  )
}

for (const peer of Object.keys(PEERS)) {
  eachAttachment.test(`whatever ${peer} offers for an image, candor offers too`, ['nbdinfo', peer], (scope) =>
    offersWhat(peer, scope),
  )
}
