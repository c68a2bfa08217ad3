// The server's half of the handshake under any bytes. An input is one byte of circumstances (TLS, shutting down), then
// what the client says. Law: the answers are the same however the bytes are cut, in proportion to them, and silent
// where TLS is demanded or the server leaves.
import assert from 'node:assert/strict'
import { encodeInfoRequest, encodeMetaContextRequest, encodeOption, Handshake, ProtocolError } from 'nbd-protocol'
import { AllocationMeter } from './coverage-allocations.js'
import type { Target } from './coverage-explorer.js'
import { be32, contextData, FLAGS, FLAGS_WITH_ZEROES, hex, infoData, option, raw, text, zeroes } from './raw-bytes.js'
import { EXPORTS, HOST, LIMITS } from './raw-conversation.js'

/** Bytes that an option may be answered with, beside what it brought: everything known of an export, or all exports. */
const REPLY_BYTES_MAX = 256
/** Memory for one option at its bound, and for the first buffer. */
const ALLOCATED_FREE = 20_000
const MODES = ['off', 'allow', 'require', 'allow'] as const

interface Result {
  readonly replies: string
  readonly used: number
  readonly ends: readonly unknown[]
  readonly lost: string | undefined
}

/** Circumstances: bits 0 and 1 choose the TLS mode, bit 2 says that the server shuts down. */
function circumstances(byte: number) {
  return { tls: MODES[byte & 3] ?? 'off', shuttingDown: (byte & 4) !== 0 }
}

class Listener {
  readonly #host
  readonly #handshake: Handshake
  readonly #replies: Uint8Array[] = []
  readonly #ends: unknown[] = []
  #secure = false
  #lost: string | undefined
  #used = 0

  constructor(byte: number) {
    this.#host = { ...HOST, ...circumstances(byte) }
    this.#handshake = new Handshake(this.#host, LIMITS)
  }

  hear(bytes: Uint8Array, piece: number): Result {
    try {
      for (let at = 0; at < bytes.length && this.#hearPiece(bytes.subarray(at, at + piece)); ) at += piece
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      this.#lost = `${error.code}: ${error.message}`
      // How much of the last piece was used nobody says, and nobody needs.
      this.#used = -1
      this.#collect()
    }
    return { replies: hex(raw(...this.#replies)), used: this.#used, ends: this.#ends, lost: this.#lost }
  }

  /** False once nothing more is to be said. */
  #hearPiece(piece: Uint8Array): boolean {
    for (let rest = piece; ; ) {
      const taken = this.#handshake.receive(rest)
      this.#used += taken
      this.#collect()
      const { outcome } = this.#handshake
      if (outcome === undefined) {
        assert.equal(taken, rest.length, 'every byte is used while there is no outcome')
        return true
      }
      rest = rest.subarray(taken)
      this.#ends.push(outcome)
      this.#assertEnd(outcome.kind)
      this.#assertDeaf(rest)
      if (outcome.kind !== 'starttls') return false
      this.#secure = true
      this.#handshake.secured()
    }
  }

  #collect(): void {
    this.#replies.push(...this.#handshake.takeReplies())
  }

  #assertEnd(kind: string): void {
    assert.ok(kind !== 'starttls' || (!this.#secure && this.#host.tls !== 'off'), 'TLS begins once, where there is any')
    if (kind !== 'transmission') return
    assert.ok(!this.#host.shuttingDown, 'nobody is let in while the server leaves')
    assert.ok(this.#secure || this.#host.tls !== 'require', 'nobody is let in without the TLS that is demanded')
    const { outcome } = this.#handshake
    assert.ok(outcome?.kind === 'transmission' && EXPORTS.some(({ name }) => name === outcome.exportName))
    assert.ok(outcome.contexts.length === 0 || outcome.replyStyle !== 'simple', 'contexts need structured replies')
  }

  #assertDeaf(rest: Uint8Array): void {
    for (const bytes of [rest, zeroes(40), raw(FLAGS, option(3))]) assert.equal(this.#handshake.receive(bytes), 0)
    assert.equal(this.#handshake.takeReplies().length, 0, 'nothing is said after the outcome')
  }
}

const meter = new AllocationMeter()

function measured(listener: Listener, bytes: Uint8Array, piece: number): Result {
  meter.start()
  try {
    return listener.hear(bytes, piece)
  } finally {
    meter.stop()
  }
}

function run(input: Uint8Array): void {
  const [byte = 0] = input
  const bytes = input.subarray(1)
  const options = Math.min(LIMITS.optionsMax, Math.floor(bytes.length / 16))
  const results = [bytes.length + 1, 1, 61].map((piece) => {
    const result = measured(new Listener(byte), bytes, piece)
    const replied = result.replies.length / 2
    const bound = options * REPLY_BYTES_MAX + bytes.length
    assert.ok(replied <= bound, `${replied} bytes of replies; ${bound} is the bound`)
    const room = ALLOCATED_FREE + 8 * (bytes.length + replied)
    assert.ok(meter.bytes <= room, `${meter.bytes} bytes of memory; ${room} is the bound`)
    return result
  })
  assert.deepEqual(results[1], results[0], 'byte by byte is as whole')
  assert.deepEqual(results[2], results[0], 'in pieces is as whole')
}

const LONG = 'x'.repeat(4096)
const STRUCTURED = option(8)
const EXTENDED = option(11)
const go = (name: string) => option(7, infoData(name, 1, 2, 3))
const select = (name: string, ...queries: string[]) => option(10, contextData(name, ...queries))

const CONVERSATIONS: readonly (readonly [circumstances: number, ...parts: (string | Uint8Array)[]])[] = [
  [0, FLAGS, option(3), option(6, infoData('disk', 0, 1, 2, 3)), go('disk')],
  [0, FLAGS_WITH_ZEROES, option(1, text('größe'))],
  [0, FLAGS, STRUCTURED, option(9, contextData('disk')), select('disk', 'base:allocation'), go('disk')],
  [0, FLAGS, STRUCTURED, select('', 'base:allocation', 'qemu:allocation-depth'), go('disk'), EXTENDED],
  [0, FLAGS, EXTENDED, STRUCTURED, option(9, contextData('disk', 'base:', 'x:')), select('disk', 'base:allocation')],
  [0, FLAGS, EXTENDED, select('disk', 'qemu:allocation-depth'), select('größe', 'none'), go('')],
  [0, FLAGS, option(6, infoData('nobody')), option(6, infoData(LONG)), option(6, infoData(`${LONG}y`)), go('')],
  [0, FLAGS, option(99, zeroes(700)), option(4), option(3, zeroes(9000)), option(2, text('bye'))],
  [0, FLAGS, option(6, be32(7), text('disk')), option(6, be32(2 ** 32 - 1), text('disk'), '0000'), option(2)],
  [0, FLAGS, ...Array.from({ length: 21 }, () => option(3))],
  [0, FLAGS, EXTENDED, option(1, text('disk'))],
  [0, FLAGS, option(1, zeroes(8193))],
  [0, FLAGS, option(1, text(LONG))],
  [1, FLAGS, EXTENDED, option(5), option(5), option(3), go('disk')],
  [2, FLAGS, option(3), go('disk'), option(5, '00'), option(5), STRUCTURED, option(1, text('disk'))],
  [2, FLAGS, option(1, text('disk'))],
  [4, FLAGS, go('disk'), option(5), option(3), option(2)],
  [4, FLAGS, option(1, text('disk'))],
]

function encoded(): Uint8Array {
  const info = encodeInfoRequest({ name: 'größe', requests: [1, 3, 999] })
  const contexts = encodeMetaContextRequest({ name: 'disk', queries: ['base:allocation', 'a:b', 'ü:ü'] })
  return raw('00', FLAGS, STRUCTURED, encodeOption(6, info), encodeOption(10, contexts), encodeOption(7, info))
}

/** Circumstances, client flags and options. */
export const handshakeTarget: Target = {
  name: 'handshake',
  seconds: 14,
  seeds: [...CONVERSATIONS.map(([byte, ...parts]) => raw(Uint8Array.of(byte), ...parts)), encoded()],
  stepsPerByteMax: 16,
  batch: 64,
  run,
}
