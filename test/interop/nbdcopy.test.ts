// nbdcopy: a half-sparse image goes each way, by every kind of parallelism, and arrives the same with its holes.
import assert from 'node:assert/strict'
import { sha256OfFile } from '../support/guest-images.js'
import { eachAttachment, type InteropCase, MIB, useTool } from '../support/interop.js'
import { allocatedBytes, assertAbout, everySecond, makeImage, mappedData } from '../support/interop-images.js'

const SIZE = 64 * MIB
const LAYOUT = everySecond(SIZE, 2 * MIB)

/** One by one, over one connection, and over four by as many threads; nbdcopy's own default is a mix. */
const MODES: Readonly<Record<string, readonly string[]>> = {
  'by default': [],
  synchronously: ['--synchronous'],
  'over one connection': ['--connections=1', '--requests=64'],
  'over four connections': ['--connections=4', '--threads=4', '--requests=64'],
}

async function assertSameImage(copy: string, original: string): Promise<void> {
  assert.equal(sha256OfFile(copy), sha256OfFile(original))
  assert.deepEqual(await mappedData(copy), LAYOUT)
  assertAbout(allocatedBytes(copy), allocatedBytes(original))
}

for (const [words, flags] of Object.entries(MODES)) {
  eachAttachment.test(
    `nbdcopy ${words} brings a sparse image in over old data and takes it out again, holes and all`,
    ['nbdcopy', 'qemu-img'],
    async (scope) => {
      const [original, image, back] = [scope.path('original'), scope.path('disk.img'), scope.path('back')]
      makeImage(original, SIZE, LAYOUT)
      makeImage(image, SIZE, [{ offset: 0, length: SIZE }])
      const served = await scope.serve([`disk=${image}`])
      await useTool('nbdcopy', [...flags, '--flush', original, served.uri('disk')])
      await assertSameImage(image, original)
      await useTool('nbdcopy', [...flags, served.uri('disk'), back])
      await assertSameImage(back, original)
    },
  )
}

eachAttachment.test(
  'nbdcopy --allocated leaves no hole, and reading without extents finds them again',
  ['nbdcopy', 'qemu-img'],
  async (scope) => {
    const [original, image, back] = [scope.path('original'), scope.path('disk.img'), scope.path('back')]
    makeImage(original, SIZE, LAYOUT)
    const served = await scope.serve([`disk=${image}`, '--create', String(SIZE)])
    await useTool('nbdcopy', ['--allocated', original, served.uri('disk')])
    assert.equal(sha256OfFile(image), sha256OfFile(original))
    assertAbout(allocatedBytes(image), SIZE)
    await useTool('nbdcopy', ['--no-extents', served.uri('disk'), back])
    await assertSameImage(back, original)
  },
)

async function copyBetween(scope: InteropCase, sameServer: boolean): Promise<void> {
  const [original, copy] = [scope.path('original'), scope.path('copy')]
  makeImage(original, SIZE, LAYOUT)
  makeImage(copy, SIZE, [{ offset: MIB, length: SIZE / 2 }])
  const first = await scope.serve(sameServer ? [original, copy] : [original, '--read-only'])
  const second = sameServer ? first : await scope.serve([copy])
  await useTool('nbdcopy', [first.uri('original'), second.uri('copy')])
  await assertSameImage(copy, original)
}

eachAttachment.test('nbdcopy copies between two exports of one server', ['nbdcopy', 'qemu-img'], (scope) =>
  copyBetween(scope, true),
)

eachAttachment.test('nbdcopy copies from a read-only server to another', ['nbdcopy', 'qemu-img'], (scope) =>
  copyBetween(scope, false),
)
