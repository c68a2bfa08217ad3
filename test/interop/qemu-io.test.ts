// qemu-io, QEMU's own NBD client with the lid off: every command it can send, judged by what is in the image afterwards.
import assert from 'node:assert/strict'
import { readFileSync, truncateSync } from 'node:fs'
import { eachAttachment, type InteropCase, MIB, runTool, useTool } from '../support/interop.js'
import { allocatedBytes, assertAbout, makeImage } from '../support/interop-images.js'

const SIZE = 16 * MIB
/** What candor ends with when an export lost data. */
const EXIT_SYNC_FAILED = 2

/** Discards reach the server, and FUA is sent where a command asks for it alone: qemu-io's default is everywhere. */
const SESSION = ['-f', 'raw', '-d', 'unmap', '-t', 'writeback']

/** Runs commands in one session, all of which have to succeed. */
async function qemuIo(uri: string, ...commands: readonly string[]): Promise<string> {
  const words = commands.flatMap((command) => ['-c', command])
  const output = await useTool('qemu-io', [...SESSION, ...words, uri])
  assert.doesNotMatch(output, /fail/i)
  return output
}

/** A disk that is full of data, so that every hole in it is somebody's doing. */
async function serveFullDisk(scope: InteropCase): Promise<{ readonly uri: string; readonly image: string }> {
  const image = scope.path('disk.img')
  makeImage(image, SIZE, [{ offset: 0, length: SIZE }])
  const served = await scope.serve([`disk=${image}`])
  assertAbout(allocatedBytes(image), SIZE)
  return { uri: served.uri('disk'), image }
}

interface Pattern {
  readonly byte: number
  readonly offset: number
  readonly length: number
}

const PATTERNS: readonly Pattern[] = [
  { byte: 0x11, offset: 0, length: 4096 },
  { byte: 0x22, offset: 64 * 1024, length: MIB },
  { byte: 0x33, offset: SIZE - 512, length: 512 },
  { byte: 0x44, offset: 3 * MIB - 100, length: 200 },
  { byte: 0x55, offset: 1000, length: 513 },
  { byte: 0x66, offset: 5 * MIB + 1, length: 1 },
  { byte: 0x77, offset: 6 * MIB - 1, length: 2 * MIB + 2 },
]

eachAttachment.test(
  'what qemu-io wrote, aligned or not, with and without FUA, it reads back, and so does the host',
  ['qemu-io'],
  async (scope) => {
    const { uri, image } = await serveFullDisk(scope)
    const expected = readFileSync(image)
    for (const { byte, offset, length } of PATTERNS) expected.fill(byte, offset, offset + length)
    const writes = PATTERNS.map(
      ({ byte, offset, length }, index) => `write ${index % 2 === 0 ? '-f' : ''} -P ${byte} ${offset} ${length}`,
    )
    await qemuIo(uri, ...writes, 'flush')
    const output = await qemuIo(
      uri,
      'read -P 0x11 0 1000',
      'read -P 0x55 1000 513',
      'read -P 0x11 1513 2583',
      ...PATTERNS.slice(1).map(({ byte, offset, length }) => `read -P ${byte} ${offset} ${length}`),
    )
    assert.equal(output.match(/^read \d+\/\d+ bytes at offset/gm)?.length, 9)
    assert.deepEqual(readFileSync(image), expected)
  },
)

eachAttachment.test(
  'many writes and reads that qemu-io has in flight at once all arrive where they belong',
  ['qemu-io'],
  async (scope) => {
    const image = scope.path('disk.img')
    const served = await scope.serve([`disk=${image}`, '--create', String(SIZE)])
    const places = Array.from({ length: 48 }, (_, index) => ({ byte: index + 1, offset: index * 300_000 + index }))
    const writes = places.map(({ byte, offset }) => `aio_write -P ${byte} ${offset} 262147`)
    await qemuIo(served.uri('disk'), ...writes, 'aio_flush')
    const reads = places.map(({ byte, offset }) => `aio_read -P ${byte} ${offset} 262147`)
    const output = await qemuIo(served.uri('disk'), ...reads, 'aio_flush')
    assert.equal(output.match(/^read 262147\/262147 bytes at offset/gm)?.length, places.length)
    const expected = Buffer.alloc(SIZE)
    for (const { byte, offset } of places) expected.fill(byte, offset, offset + 262147)
    assert.deepEqual(readFileSync(image), expected)
  },
)

eachAttachment.test(
  'zeroes keep their space by default, and give it back when qemu-io allows that or discards',
  ['qemu-io'],
  async (scope) => {
    const { uri, image } = await serveFullDisk(scope)
    const expected = readFileSync(image)
    const zeroed = async (command: string, offset: number, length: number, freed: number) => {
      const before = allocatedBytes(image)
      await qemuIo(uri, `${command} ${offset} ${length}`, `read -P 0 ${offset} ${length}`)
      expected.fill(0, offset, offset + length)
      assertAbout(before - allocatedBytes(image), freed)
      assert.deepEqual(readFileSync(image), expected, command)
    }
    await zeroed('write -z', 0, MIB, 0)
    await zeroed('write -z -f', 2 * MIB, MIB, 0)
    await zeroed('write -z -n', 3 * MIB, MIB, 0)
    await zeroed('write -z -u', 4 * MIB, MIB, MIB)
    await zeroed('write -z -u -n', 5 * MIB, MIB, MIB)
    await zeroed('write -z -u -f', 6 * MIB, MIB, MIB)
    await zeroed('discard', 8 * MIB, 2 * MIB, 2 * MIB)
    // Blocks that are zeroed in part only keep their space, and the bytes around the range keep their content.
    await zeroed('write -z', 11 * MIB + 1000, 513, 0)
    await zeroed('write -z -u', 12 * MIB + 1, MIB, MIB - 4096)
  },
)

eachAttachment.test('qemu-io reads a read-only export and cannot write to it', ['qemu-io'], async (scope) => {
  const image = scope.path('disk.img')
  makeImage(image, SIZE, [{ offset: 0, length: MIB }])
  const before = readFileSync(image)
  const served = await scope.serve([`disk=${image}`, '--read-only'])
  const refused = await runTool('qemu-io', ['-f', 'raw', '-c', 'write -P 1 0 512', served.uri('disk')])
  assert.notEqual(refused.code, 0, refused.stdout)
  const output = await useTool('qemu-io', ['-f', 'raw', '-r', '-c', `read -P 0 ${MIB} ${MIB}`, served.uri('disk')])
  assert.match(output, /^read 1048576\/1048576 bytes/m)
  assert.deepEqual(readFileSync(image), before)
})

eachAttachment.test(
  'an error that storage reports reaches qemu-io, whose next command is served',
  ['qemu-io'],
  async (scope) => {
    const image = scope.path('disk.img')
    makeImage(image, SIZE, [{ offset: 0, length: SIZE }])
    const served = await scope.serve([`disk=${image}`])
    truncateSync(image, 8 * MIB)
    const words = ['-c', `read ${12 * MIB} 4096`, '-c', 'write -P 7 0 4096', '-c', 'read -P 7 0 4096']
    const { stdout, stderr } = await runTool('qemu-io', [...SESSION, ...words, served.uri('disk')])
    assert.match(stdout + stderr, /read failed: Input\/output error/)
    assert.match(stdout, /^read 4096\/4096 bytes at offset 0/m)
    assert.doesNotMatch(stdout, /Pattern verification failed/)
    await served.stop(EXIT_SYNC_FAILED)
  },
)
