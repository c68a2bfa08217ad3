// One conversation with the server's half of the handshake, told in raw bytes, and the law that the answer does not
// depend on how the bytes were cut on their way.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  Handshake,
  type HandshakeExport,
  type HandshakeHost,
  type HandshakeLimits,
  type HandshakeOutcome,
  ProtocolError,
  type ProtocolErrorCode,
} from 'nbd-protocol'
import { hex, raw, text } from './raw-bytes.js'

/** HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM. */
export const EXPORT_FLAGS = 0x2d
export const EXPORTS: readonly HandshakeExport[] = [
  {
    name: 'disk',
    description: 'the first',
    size: 0x1234_5678_9a00,
    transmissionFlags: EXPORT_FLAGS,
    blockSizes: { minimum: 1, preferred: 4096, maximum: 0x2000000 },
    contexts: ['base:allocation', 'qemu:allocation-depth'],
  },
  {
    name: 'größe',
    description: '',
    size: 512,
    transmissionFlags: 3,
    blockSizes: { minimum: 512, preferred: 512, maximum: 65536 },
    contexts: [],
  },
]

/** The empty name finds the first export. */
export const HOST: HandshakeHost = {
  tls: 'off',
  shuttingDown: false,
  list: () => EXPORTS,
  find: (name) => EXPORTS.find((entry) => entry.name === name || (name === '' && entry.name === 'disk')),
}

export const LIMITS: HandshakeLimits = { optionLengthMax: 8192, optionsMax: 20 }

/** One answer: an option reply (errors with 'text' for a message that people read), or bytes without a frame. */
export type Answer =
  | { readonly option: number; readonly type: number; readonly data: string }
  | { readonly bytes: string }

export interface Conversation {
  readonly title: string
  readonly host?: Partial<HandshakeHost>
  readonly limits?: Partial<HandshakeLimits>
  /** What the client sends: client flags and options. */
  readonly sends: Uint8Array
  readonly answers: readonly Answer[]
  /** How it ends; absent where it goes on. */
  readonly outcome?: HandshakeOutcome
  readonly lost?: ProtocolErrorCode
}

export const ack = (option: number): Answer => ({ option, type: 1, data: '' })
export const says = (option: number, type: number, ...data: readonly (string | Uint8Array)[]): Answer => ({
  option,
  type,
  data: hex(raw(...data)),
})
/** An error reply by the spec's number without bit 31, such as 3 for NBD_REP_ERR_INVALID. */
export const refuses = (option: number, error: number): Answer => ({ option, type: 2 ** 31 + error, data: 'text' })

interface Result {
  readonly replies: string
  readonly used: number
  readonly outcome: HandshakeOutcome | undefined
  readonly lost: ProtocolErrorCode | undefined
}

function converse(conversation: Conversation, pieces: Iterable<Uint8Array>): Result {
  const host = { ...HOST, ...conversation.host }
  const handshake = new Handshake(host, { ...LIMITS, ...conversation.limits })
  const replies: Uint8Array[] = []
  let used = 0
  let lost: ProtocolErrorCode | undefined
  try {
    for (const piece of pieces) {
      const taken = handshake.receive(piece)
      used += taken
      replies.push(...handshake.takeReplies())
      if (handshake.outcome !== undefined) break
      assert.equal(taken, piece.length, 'without an outcome every byte is used')
    }
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error
    lost = error.code
    used = -1
    replies.push(...handshake.takeReplies())
  }
  return { replies: hex(raw(...replies)), used, outcome: handshake.outcome, lost }
}

const TRAILING = text('behind the outcome')

/** Every cut of short bytes; of long ones those near the ends, and a sample. */
function* cutsOf(length: number): Iterable<number> {
  for (let cut = 0; cut <= length; cut++) if (cut < 300 || cut > length - 300 || cut % 4099 === 0) yield cut
}

function* oneByOne(bytes: Uint8Array): Iterable<Uint8Array> {
  for (let at = 0; at < bytes.length; at++) yield bytes.subarray(at, at + 1)
}

function parse(replies: Uint8Array): Answer[] {
  const answers: Answer[] = []
  const view = new DataView(replies.buffer, replies.byteOffset, replies.length)
  let at = 0
  while (at < replies.length) {
    if (at + 20 > replies.length || view.getBigUint64(at) !== 0x3e889045565a9n) {
      return [...answers, { bytes: hex(replies.subarray(at)) }]
    }
    const [option, type, length] = [view.getUint32(at + 8), view.getUint32(at + 12), view.getUint32(at + 16)]
    const data = replies.subarray(at + 20, at + 20 + length)
    assert.equal(data.length, length, 'a reply is as long as it says')
    answers.push({ option, type, data: type < 2 ** 31 ? hex(data) : readable(data) })
    at += 20 + length
  }
  return answers
}

function readable(message: Uint8Array): string {
  const words = new TextDecoder('utf-8', { fatal: true }).decode(message)
  return words.length >= 10 && message.length <= 4096 && !words.includes('\0') ? 'text' : `'${words}' says nothing`
}

/** One test for each conversation: whole, byte by byte, and cut in two at every point. */
export function testConversations(conversations: readonly Conversation[]): void {
  for (const conversation of conversations) {
    test(conversation.title, () => {
      const { sends, answers, outcome, lost } = conversation
      const bytes = raw(sends, outcome === undefined ? '' : TRAILING)
      const whole = converse(conversation, [bytes])
      assert.deepEqual(parse(raw(whole.replies)), answers)
      assert.deepEqual(whole.outcome, outcome)
      assert.equal(whole.lost, lost)
      assert.equal(whole.used, lost === undefined ? sends.length : -1)
      assert.deepEqual(converse(conversation, oneByOne(bytes)), whole, 'byte by byte')
      for (const cut of cutsOf(bytes.length)) {
        const halves = [bytes.subarray(0, cut), bytes.subarray(cut)]
        assert.deepEqual(converse(conversation, halves), whole, `cut in two after ${cut} bytes`)
      }
    })
  }
}
