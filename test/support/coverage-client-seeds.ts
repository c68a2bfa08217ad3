// What servers say to a client in its handshake and in transmission: the seeds of its fuzzing.
import { be16, be32, be64, chunk, filled, GREETING, optionReply, raw, simpleReply, text, zeroes } from './raw-bytes.js'

const [STRUCTURED, LIST, INFO, GO, LIST_CONTEXTS, SET_CONTEXTS, EXTENDED] = [8, 3, 6, 7, 9, 10, 11] as const
const [ACK, SERVER, INFORMATION, CONTEXT] = [1, 2, 3, 4] as const
const UNSUPPORTED = 0x80000001
const INVALID = 0x80000003

const ack = (option: number) => optionReply(option, ACK)
const refused = (option: number, type = UNSUPPORTED) => optionReply(option, type, text('no, größe'))
const context = (option: number, id: number, name: string) => optionReply(option, CONTEXT, be32(id), text(name))

/** Everything that INFO or GO may be answered with. */
function exportInfo(option: number): Uint8Array {
  const size = raw(be16(0), be64(1 << 20), be16(0x2d))
  return raw(
    optionReply(option, INFORMATION, size),
    optionReply(option, INFORMATION, be16(1), text('disk')),
    optionReply(option, INFORMATION, be16(2), text('words')),
    optionReply(option, INFORMATION, be16(3), be32(1), be32(4096), be32(1 << 25)),
    optionReply(option, INFORMATION, be16(99), text('?')),
    ack(option),
  )
}

const contexts = raw(
  context(SET_CONTEXTS, 1, 'base:allocation'),
  context(SET_CONTEXTS, 2, 'qemu:allocation-depth'),
  ack(SET_CONTEXTS),
)
const listed = raw(
  optionReply(LIST, SERVER, be32(4), text('disk')),
  optionReply(LIST, SERVER, be32(4), text('diskwords')),
  optionReply(LIST, SERVER, be32(99), text('?')),
  ack(LIST),
)
const listedContexts = raw(context(LIST_CONTEXTS, 0, 'base:allocation'), ack(LIST_CONTEXTS))

/** A greeting and the grant of STARTTLS; what follows comes encrypted. */
const CLEAR_BYTES = 38

const HANDSHAKES: readonly (readonly [program: number, ...parts: (string | Uint8Array)[]])[] = [
  [0, GREETING, exportInfo(GO)],
  [0, GREETING, refused(GO, INVALID)],
  [0, GREETING, ack(GO)],
  [1, GREETING, ack(STRUCTURED), contexts, exportInfo(GO)],
  [1, GREETING, refused(STRUCTURED), exportInfo(GO)],
  [1, GREETING, refused(STRUCTURED, INVALID), exportInfo(GO)],
  [2, GREETING, ack(EXTENDED), contexts, exportInfo(GO)],
  [2, GREETING, refused(EXTENDED), ack(STRUCTURED), contexts, exportInfo(GO)],
  [3, GREETING, listed, exportInfo(INFO), ack(2)],
  [3, GREETING, refused(LIST, INVALID), refused(INFO, 0x80000006), ack(2)],
  [4, GREETING, be64(1 << 20), be16(3)],
  [4, '4e42444d41474943 49484156454f5054 0001', be64(1 << 20), be16(3), zeroes(124)],
  [5, GREETING, ack(EXTENDED), listedContexts, exportInfo(GO)],
  [6, GREETING, ack(5), listed, ack(STRUCTURED), exportInfo(GO)],
  [6, GREETING, refused(5, 0x80000002), listed],
  [0, '4e42444d41474943 0000420281861253', be64(512), be32(3), zeroes(124)],
  [0, '4e42444d41474943 49484156454f5054 0000'],
]

export const HANDSHAKE_SEEDS = HANDSHAKES.map(([program, ...parts]) =>
  raw(Uint8Array.of(program, CLEAR_BYTES), ...parts),
)

const [NONE, DATA, HOLE, STATUS, STATUS_EXT, ERROR, ERROR_OFFSET] = [0, 1, 2, 5, 6, 0x8001, 0x8002] as const
const DONE = 1

/** Answers to the ten requests of the fuzzed client, in chunks; `offset` makes them extended. */
function chunks(offset: { offset?: number }): Uint8Array {
  const reply = (cookie: number, flags: number, type: number, ...data: (string | Uint8Array)[]) =>
    chunk({ cookie, flags, type, ...offset }, ...data)
  const wide = offset.offset !== undefined
  const status = wide
    ? reply(9, DONE, STATUS_EXT, be32(1), be32(2), be64(4096), be64(3), be64(4096), be64(0))
    : reply(9, DONE, STATUS, be32(1), be32(4096), be32(3), be32(4096), be32(0))
  return raw(
    reply(2, 0, DATA, be64(65536 + 20), filled(20, 2)),
    reply(1, DONE, DATA, be64(0), filled(16, 1)),
    reply(2, 0, HOLE, be64(65536), be32(20)),
    reply(2, DONE, NONE),
    reply(3, 0, ERROR_OFFSET, be32(5), be16(2), text('no'), be64(2 ** 40 + 1)),
    reply(3, DONE, NONE),
    reply(4, DONE, NONE),
    reply(5, DONE, ERROR, be32(28), be16(5), text('full!')),
    reply(6, DONE, ERROR, be32(95), be16(0)),
    reply(7, DONE, 0x80ff, be32(22), be16(1), text('??')),
    reply(8, DONE, ERROR, '00'),
    status,
    reply(10, DONE, ERROR, be32(22), be16(200), text('short')),
  )
}

const simple = raw(
  simpleReply(1, 0, filled(16, 1)),
  simpleReply(3, 0, filled(3, 3)),
  simpleReply(2, 5),
  ...[4, 5, 6, 7, 8, 9, 10].map((cookie) => simpleReply(cookie, cookie % 2 === 0 ? 0 : 22)),
)

const stray = chunk({ cookie: 1, flags: 1, type: DATA }, be64(8), filled(16, 1))

export const TRANSMISSION_SEEDS = [
  raw('0000', simple),
  raw('0100', chunks({})),
  raw('0200', chunks({ offset: 0 })),
  raw('0100', simple, stray),
  raw('0100', stray),
  raw('0100', chunk({ cookie: 1, flags: 1, type: DATA }, be64(0), filled(16, 1)), simpleReply(99, 0)),
  raw('0100', chunk({ cookie: 1, flags: 0, type: HOLE }, be64(0), be32(17)), text('?')),
]
