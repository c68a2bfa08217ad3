// Bytes cut into frames while whoever takes them is slower than they come. Law: what waits is nobody else's memory.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { frameSize } from 'nbd-protocol'
import type { FrameSink } from '../../server/nbd/frame-sink.js'
import type { PayloadSink } from '../../server/nbd/payload-feed.js'
import { ReceiveBuffer } from '../../server/nbd/receive-buffer.js'
import { KIB, MIB, pattern } from '../support/large-writes.js'
import { writeRequest } from '../support/raw-bytes.js'

const HEADER_BYTES = 28

/** Takes so many pieces of a payload and then none until it is told to go on. */
class SlowTaker implements PayloadSink {
  readonly bytes: number
  readonly taken: Uint8Array[] = []
  busy = false

  constructor(bytes: number) {
    this.bytes = bytes
  }

  came(): void {}

  take(bytes: Uint8Array, at: number, length: number): boolean {
    this.taken.push(Uint8Array.prototype.slice.call(bytes, at, at + length))
    this.busy = this.taken.length % 2 === 0
    return false
  }
}

/** Serves whole frames, and hands large payloads on. */
function sinkOf(own: Partial<FrameSink>): FrameSink {
  return {
    frameBytesMax: 32 * MIB + HEADER_BYTES,
    headerBytes: HEADER_BYTES,
    streams: true,
    halted: false,
    keeps: false,
    frameBytes: (view, at, end) => (end - at < HEADER_BYTES ? undefined : frameSize(view, at, false)),
    serve: (_bytes, _view, at) => at,
    hold: () => undefined,
    answerSkipped: () => assert.fail('nothing is too large'),
    openPayload: () => assert.fail('no payload is handed on'),
    ...own,
  }
}

test('behind a header that waits, much is read at once, though the frame before it had a buffer of its own', () => {
  let halted = false
  const serve: FrameSink['serve'] = (_bytes, view, at, end) =>
    halted || end - at < HEADER_BYTES + 128 * KIB ? at : at + frameSize(view, at, false)
  const sink: FrameSink = {
    ...sinkOf({ serve }),
    get halted() {
      return halted
    },
  }
  const receive = new ReceiveBuffer(sink)
  const come = (bytes: Uint8Array) => {
    const { target } = receive
    assert.ok(target.length >= bytes.length, `room for ${target.length} bytes`)
    target.set(bytes)
    receive.arrived(bytes.length)
  }
  const large = writeRequest('simple', 1n, 0, pattern(128 * KIB, 1))
  come(large.subarray(0, 80 * KIB))
  come(large.subarray(80 * KIB))
  assert.equal(receive.target.length, HEADER_BYTES)
  halted = true
  come(writeRequest('simple', 2n, 0, pattern(2 * MIB, 2)).subarray(0, HEADER_BYTES))
  assert.ok(receive.waiting)
  come(pattern(MIB, 3))
  assert.equal(receive.ahead, HEADER_BYTES + MIB)
})

test('between large frames a small one is read as they are: its header alone; behind two small ones much is read at once', () => {
  const receive = new ReceiveBuffer(
    sinkOf({
      serve: (_bytes, view, at, end) =>
        end - at < HEADER_BYTES || end - at < frameSize(view, at, false) ? at : at + frameSize(view, at, false),
    }),
  )
  const come = (bytes: Uint8Array) => {
    receive.target.set(bytes)
    receive.arrived(bytes.length)
  }
  const small = writeRequest('simple', 1n, 0, new Uint8Array(0))
  const large = writeRequest('simple', 2n, 0, pattern(128 * KIB, 1))
  for (let time = 0; time < 2; time++) {
    come(large.subarray(0, HEADER_BYTES))
    assert.equal(receive.target.length, 128 * KIB)
    come(large.subarray(HEADER_BYTES))
    assert.equal(receive.target.length, HEADER_BYTES)
    come(small)
    assert.equal(receive.target.length, HEADER_BYTES)
  }
  come(small)
  assert.ok(receive.target.length > MIB)
})

test('large WRITEs that came in one piece are handed on whole, however often they have to wait', () => {
  const takers: SlowTaker[] = []
  const sink = sinkOf({
    openPayload: (view, at) => {
      const taker = new SlowTaker(frameSize(view, at, false) - HEADER_BYTES)
      takers.push(taker)
      return taker
    },
  })
  const receive = new ReceiveBuffer(sink)
  const payloads = [MIB + 64 * KIB, MIB + 128 * KIB, MIB + 256 * KIB].map((length, index) => pattern(length, index + 1))
  const sent = Buffer.concat(payloads.map((payload, index) => writeRequest('simple', BigInt(index), 0, payload)))
  const { target } = receive
  assert.ok(target.length >= sent.length, 'all of it comes at once')
  target.set(sent)
  receive.arrived(sent.length)
  while (receive.waiting) {
    for (const taker of takers) taker.busy = false
    receive.resume()
  }
  assert.equal(takers.length, payloads.length)
  for (const [index, payload] of payloads.entries()) {
    assert.ok(payload.equals(Buffer.concat(takers[index]?.taken ?? [])), `payload ${index}`)
  }
})

test('a frame that passed whole before a move is answered before what came behind it is served', () => {
  const order: string[] = []
  const sink = sinkOf({
    frameBytes: () => HEADER_BYTES,
    serve: (_bytes, _view, _at, end) => {
      order.push('served')
      return end
    },
    answerSkipped: (_header, verdict) => order.push(`answered: ${verdict?.kind}`),
  })
  const header = new Uint8Array(HEADER_BYTES)
  const verdict = { kind: 'failed', outcome: 5 } as const
  new ReceiveBuffer(sink).goOn({ bytes: new Uint8Array(HEADER_BYTES), skip: 0, skippedHeader: header, verdict })
  assert.deepEqual(order, ['answered: failed', 'served'])
})
