// qemu-img: images with holes go through the server both ways, and stay what they are: the same bytes, the same holes.
import assert from 'node:assert/strict'
import { eachAttachment, type InteropCase, MIB, runTool, type Served, useTool } from '../support/interop.js'
import {
  allocatedBytes,
  assertAbout,
  everySecond,
  makeImage,
  mappedData,
  type Range,
} from '../support/interop-images.js'

const SIZE = 64 * MIB
/** Data at both ends, a short run, a long hole; all on bounds that both QEMU and file systems keep. */
const LAYOUT: readonly Range[] = [
  { offset: 0, length: MIB },
  { offset: 2 * MIB, length: 64 * 1024 },
  { offset: 20 * MIB, length: 8 * MIB },
  { offset: SIZE - MIB, length: MIB },
]

interface Pair {
  readonly plain: string
  readonly image: string
  readonly served: Served
  readonly uri: string
}

/** A plain file with the one layout, and an export whose image has the other. */
async function makePair(scope: InteropCase, plainLayout: readonly Range[], layout: readonly Range[]): Promise<Pair> {
  const plain = scope.path('plain.img')
  const image = scope.path('disk.img')
  makeImage(plain, SIZE, plainLayout)
  makeImage(image, SIZE, layout)
  const served = await scope.serve([`disk=${image}`])
  return { plain, image, served, uri: served.uri('disk') }
}

const RAW_TO_RAW = ['-f', 'raw', '-O', 'raw']
const RAW_AND_RAW = ['-f', 'raw', '-F', 'raw']

eachAttachment.test(
  'qemu-img convert brings a sparse image in over old data, and its holes stay holes',
  ['qemu-img'],
  async (scope) => {
    const { plain, image, uri } = await makePair(scope, LAYOUT, [{ offset: 0, length: SIZE }])
    await useTool('qemu-img', ['convert', '-n', ...RAW_TO_RAW, plain, uri])
    assert.match(await useTool('qemu-img', ['compare', ...RAW_AND_RAW, plain, uri]), /^Images are identical/)
    assert.match(await useTool('qemu-img', ['compare', ...RAW_AND_RAW, plain, image]), /^Images are identical/)
    assert.deepEqual(await mappedData(image), LAYOUT)
    assertAbout(allocatedBytes(image), allocatedBytes(plain))
  },
)

eachAttachment.test(
  'qemu-img convert with sixteen requests out of order brings in the same image',
  ['qemu-img'],
  async (scope) => {
    const { plain, image, uri } = await makePair(scope, LAYOUT, everySecond(SIZE, 4 * MIB))
    await useTool('qemu-img', ['convert', '-n', '-W', '-m', '16', ...RAW_TO_RAW, plain, uri])
    assert.match(await useTool('qemu-img', ['compare', ...RAW_AND_RAW, plain, image]), /^Images are identical/)
    assert.deepEqual(await mappedData(image), LAYOUT)
  },
)

eachAttachment.test('qemu-img convert takes an image out with its holes', ['qemu-img'], async (scope) => {
  const { plain, image, uri } = await makePair(scope, [], LAYOUT)
  await useTool('qemu-img', ['convert', ...RAW_TO_RAW, uri, plain])
  assert.match(await useTool('qemu-img', ['compare', ...RAW_AND_RAW, uri, plain]), /^Images are identical/)
  assert.match(await useTool('qemu-img', ['compare', ...RAW_AND_RAW, image, plain]), /^Images are identical/)
  assert.deepEqual(await mappedData(plain), LAYOUT)
  assertAbout(allocatedBytes(plain), allocatedBytes(image))
})

eachAttachment.test('qemu-img compare sees a single byte that differs', ['qemu-img', 'qemu-io'], async (scope) => {
  const { plain, uri } = await makePair(scope, LAYOUT, LAYOUT)
  assert.match(await useTool('qemu-img', ['compare', ...RAW_AND_RAW, plain, uri]), /^Images are identical/)
  await useTool('qemu-io', ['-f', 'raw', '-c', `write -P 1 ${40 * MIB} 1`, uri])
  const { code, stdout } = await runTool('qemu-img', ['compare', ...RAW_AND_RAW, plain, uri])
  assert.equal(code, 1)
  assert.match(stdout, new RegExp(`^Content mismatch at offset ${40 * MIB}!`))
})

eachAttachment.test('qemu-img map and info tell layout and size as they are', ['qemu-img'], async (scope) => {
  const { image, uri } = await makePair(scope, [], LAYOUT)
  assert.deepEqual(await mappedData(uri), LAYOUT)
  const mapped: readonly { data: boolean; zero: boolean; start: number; length: number }[] = JSON.parse(
    await useTool('qemu-img', ['map', '--output=json', '-f', 'raw', uri]),
  )
  assert.ok(mapped.every(({ data, zero }) => data !== zero))
  assert.equal(
    mapped.reduce((sum, { length }) => sum + length, 0),
    SIZE,
  )
  const info: Readonly<Record<string, unknown>> = JSON.parse(await useTool('qemu-img', ['info', '--output=json', uri]))
  assert.equal(info['virtual-size'], SIZE)
  assert.equal(info['format'], 'raw')
  assert.deepEqual(await mappedData(image), LAYOUT)
})

eachAttachment.test('qemu-img map is right beyond 4 GiB', ['qemu-img'], async (scope) => {
  const image = scope.path('large.img')
  const layout = [
    { offset: 0, length: MIB },
    { offset: 4096 * MIB - MIB, length: 2 * MIB },
    { offset: 9000 * MIB, length: MIB },
  ]
  makeImage(image, 9216 * MIB, layout)
  const served = await scope.serve([`large=${image}`])
  assert.deepEqual(await mappedData(served.uri('large')), layout)
})

eachAttachment.test(
  'a qcow2 image lives inside an export: made, filled, checked, and converted out',
  ['qemu-img', 'qemu-io'],
  async (scope) => {
    const { plain, uri, image } = await makePair(scope, LAYOUT, [])
    await useTool('qemu-img', ['create', '-f', 'qcow2', uri, String(SIZE / 2)])
    await useTool('qemu-io', ['-f', 'qcow2', '-c', `write -P 9 ${MIB} 65536`, '-c', `write -z ${4 * MIB} ${MIB}`, uri])
    assert.match(await useTool('qemu-img', ['check', '-f', 'qcow2', uri]), /^No errors were found/)
    await useTool('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', uri, plain])
    const read = ['-c', `read -P 9 ${MIB} 65536`, '-c', `read -P 0 ${4 * MIB} ${MIB}`]
    await useTool('qemu-io', ['-f', 'raw', '-r', ...read, plain])
    await useTool('qemu-io', ['-f', 'qcow2', '-r', '-U', ...read, image])
  },
)
