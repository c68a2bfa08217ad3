// Large buffers and where they begin. Law: what the kernel copies to or from in bulk begins at a line of the processor's cache.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { emptyRequest, NBD_CMD_READ, type ReplyStyle } from 'nbd-protocol'
import { DONE, LINE_BYTES, openBackend, socketIo } from '../../backends/index.js'
import { giveBuffer, headAt, takeBuffer } from '../../server/nbd/buffer-pool.js'
import { KeptFrame } from '../../server/nbd/kept-frame.js'
import { readReply } from '../../server/nbd/read-reply.js'
import { readHeaderBytes } from '../../server/nbd/replies.js'
import { temporaryFolder } from '../support/candor.js'
import { imageAt } from '../support/controlled.js'
import { KIB, MIB, pattern } from '../support/large-writes.js'
import { changed } from '../support/linux-disk-media.js'

const STYLES: readonly ReplyStyle[] = ['simple', 'structured', 'extended']

function beginsLine(bytes: Uint8Array): boolean {
  return socketIo.toLine(bytes, LINE_BYTES) === 0
}

test('the way to the next line is told of every place in a buffer', () => {
  const bytes = takeBuffer(KIB)
  for (let at = 0; at <= 2 * LINE_BYTES; at++) {
    assert.equal(
      socketIo.toLine(bytes.subarray(at), LINE_BYTES),
      (LINE_BYTES - (at % LINE_BYTES)) % LINE_BYTES,
      `${at}`,
    )
  }
  giveBuffer(bytes)
})

describe('a buffer of the pool', () => {
  for (const [needed, size] of [
    [1, 128 * KIB],
    [128 * KIB + 128, 128 * KIB],
    [128 * KIB + 129, 256 * KIB],
    [256 * KIB + 128, 256 * KIB],
    [256 * KIB + 129, 512 * KIB],
    [4 * MIB + 128, 4 * MIB],
    [4 * MIB + 129, 5 * MIB],
    [32 * MIB, 32 * MIB],
  ] as const) {
    test(`of ${needed} bytes has room for ${size / KIB} KiB and a header, and begins a line`, () => {
      const bytes = takeBuffer(needed)
      assert.equal(bytes.length, size + 2 * LINE_BYTES)
      assert.ok(beginsLine(bytes))
      giveBuffer(bytes)
    })
  }

  test('is the same memory when it is taken again', () => {
    const first = takeBuffer(256 * KIB)
    giveBuffer(first)
    const second = takeBuffer(256 * KIB)
    assert.equal(second.buffer, first.buffer)
    assert.ok(beginsLine(second))
    giveBuffer(second)
  })
})

describe('a payload begins a line', () => {
  for (const headerBytes of [28, 32]) {
    test(`behind a request's header of ${headerBytes} bytes, in a buffer of the payload's own size`, () => {
      const sent = pattern(headerBytes + 256 * KIB, 7)
      const frame = new KeptFrame(sent.length, headerBytes, sent.subarray(0, headerBytes), undefined)
      frame.target.set(sent.subarray(headerBytes))
      const region = frame.arrived(sent.length - headerBytes)
      assert.ok(region !== undefined && sent.equals(region.bytes))
      assert.ok(beginsLine(region.bytes.subarray(headerBytes)))
      assert.equal(region.pooled?.length, 256 * KIB + 2 * LINE_BYTES)
      frame.drop()
    })
  }

  for (const style of STYLES) {
    test(`where a READ waits for storage that tells no holes, with ${style} replies`, async () => {
      const memory = await openBackend('memory', { size: MIB })
      const lines: boolean[] = []
      const read: typeof memory.read = async (target, start) => {
        lines.push(beginsLine(target.subarray(start)))
        return DONE
      }
      // As one whole, which is read without a look for holes.
      const request = { ...emptyRequest(), type: NBD_CMD_READ, length: 256 * KIB, flags: 1 << 2 }
      const reply = await readReply(changed(memory, { read }), style, request)
      assert.ok(typeof reply !== 'number')
      assert.equal(reply.parts[0]?.length, readHeaderBytes(style) + 256 * KIB)
      assert.deepEqual(lines, [true])
    })

    test(`where it waits for a sparse file, with ${style} replies`, async (scope) => {
      const folder = temporaryFolder()
      scope.after(() => folder.remove())
      const path = imageAt(join(folder.path, 'image'), MIB)
      const backend = await openBackend('sparse-file', { path, readOnly: false })
      scope.after(() => backend.close())
      const read = await backend.readSparse(readHeaderBytes(style), 256 * KIB, 0, takeBuffer)
      assert.ok(typeof read !== 'number')
      assert.ok(beginsLine(read.buffer.subarray(read.start)))
      assert.deepEqual(read.runs, [{ length: 256 * KIB, hole: true, zero: true }])
    })
  }

  test('however long the header', () => {
    for (let bytes = 1; bytes <= LINE_BYTES; bytes++) assert.equal((headAt(bytes) + bytes) % LINE_BYTES, 0, `${bytes}`)
  })
})
