// Conversations at the edges: unknown and oversized options, too many of them, broken flags and magics, shutting down.
import { FLAGS, filled, infoData, option, raw, text, zeroes } from '../support/raw-bytes.js'
import { ack, type Conversation, refuses, says, testConversations } from '../support/raw-conversation.js'

const OPT = { EXPORT_NAME: 1, ABORT: 2, LIST: 3, PEEK: 4, STARTTLS: 5, INFO: 6, GO: 7, STRUCTURED: 8 } as const
const ERR = { UNSUP: 1, POLICY: 2, INVALID: 3, TLS_REQD: 5, SHUTDOWN: 7, TOO_BIG: 9 } as const
const abort = option(OPT.ABORT)
const aborted = { kind: 'abort' } as const

const sizes: readonly Conversation[] = [
  {
    title: 'an unknown option with a megabyte of junk is skipped and refused, and the next is answered',
    sends: raw(FLAGS, option(99, filled(1 << 20, 0x49)), abort),
    answers: [refuses(99, ERR.UNSUP), ack(OPT.ABORT)],
    outcome: aborted,
  },
  {
    title: 'unknown options from 0 to 2^32 - 1, and the withdrawn PEEK_EXPORT, are refused as unsupported',
    sends: raw(FLAGS, ...[0, OPT.PEEK, 12, 2 ** 31, 2 ** 32 - 1].map((type) => option(type, text('x'))), abort),
    answers: [...[0, OPT.PEEK, 12, 2 ** 31, 2 ** 32 - 1].map((type) => refuses(type, ERR.UNSUP)), ack(OPT.ABORT)],
    outcome: aborted,
  },
  {
    title: 'an option one byte longer than allowed is refused as too big, and the next is answered',
    sends: raw(FLAGS, option(OPT.LIST, zeroes(8193)), abort),
    answers: [refuses(OPT.LIST, ERR.TOO_BIG), ack(OPT.ABORT)],
    outcome: aborted,
  },
  {
    title: 'an option exactly as long as allowed is read',
    sends: raw(FLAGS, option(OPT.LIST, zeroes(8192)), abort),
    answers: [refuses(OPT.LIST, ERR.INVALID), ack(OPT.ABORT)],
    outcome: aborted,
  },
  {
    title: 'EXPORT_NAME longer than an option may be ends the session',
    sends: raw(FLAGS, option(OPT.EXPORT_NAME, filled(8193, 0x78))),
    answers: [],
    lost: 'option-too-long',
  },
  {
    title: 'the last option that is allowed is answered',
    limits: { optionsMax: 3 },
    sends: raw(FLAGS, option(99), option(99, zeroes(7)), abort),
    answers: [refuses(99, ERR.UNSUP), refuses(99, ERR.UNSUP), ack(OPT.ABORT)],
    outcome: aborted,
  },
  {
    title: 'one option more than allowed ends the session',
    limits: { optionsMax: 3 },
    sends: raw(FLAGS, option(99), option(OPT.STRUCTURED), option(99), abort),
    answers: [refuses(99, ERR.UNSUP), ack(OPT.STRUCTURED), refuses(99, ERR.UNSUP)],
    lost: 'too-many-options',
  },
]

const broken: readonly Conversation[] = [
  ...['00000004', '80000003', 'ffffffff', '4e42444d'].map((flags) => ({
    title: `the unknown client flags 0x${flags} end the session`,
    sends: raw(flags, abort),
    answers: [],
    lost: 'bad-client-flags' as const,
  })),
  {
    title: 'an option that does not begin with IHAVEOPT ends the session',
    sends: raw(FLAGS, '49484156454f5055', '00000002', '00000000'),
    answers: [],
    lost: 'bad-option-magic',
  },
  {
    title: 'a lost magic behind good options ends the session, and their replies are still sent',
    sends: raw(FLAGS, option(OPT.STRUCTURED), option(99, text('junk')), '00', abort),
    answers: [ack(OPT.STRUCTURED), refuses(99, ERR.UNSUP)],
    lost: 'bad-option-magic',
  },
]

const tls: readonly Conversation[] = [
  {
    title: 'STARTTLS without TLS is refused by policy, and the handshake goes on in the clear',
    sends: raw(FLAGS, option(OPT.STARTTLS), abort),
    answers: [refuses(OPT.STARTTLS, ERR.POLICY), ack(OPT.ABORT)],
    outcome: aborted,
  },
  {
    title: 'STARTTLS is granted, and what came behind it in the clear is left unread',
    host: { tls: 'allow' },
    sends: raw(FLAGS, option(OPT.STRUCTURED), option(OPT.STARTTLS)),
    answers: [ack(OPT.STRUCTURED), ack(OPT.STARTTLS)],
    outcome: { kind: 'starttls' },
  },
  {
    title: 'STARTTLS with data is refused as invalid, and a good one may follow',
    host: { tls: 'require' },
    sends: raw(FLAGS, option(OPT.STARTTLS, '00'), option(OPT.STARTTLS)),
    answers: [refuses(OPT.STARTTLS, ERR.INVALID), ack(OPT.STARTTLS)],
    outcome: { kind: 'starttls' },
  },
  {
    title: 'where TLS is required every known option but STARTTLS and ABORT is refused',
    host: { tls: 'require' },
    sends: raw(FLAGS, ...[3, 6, 7, 8, 9, 10, 11].map((type) => option(type, infoData('disk'))), abort),
    answers: [...[3, 6, 7, 8, 9, 10, 11].map((type) => refuses(type, ERR.TLS_REQD)), ack(OPT.ABORT)],
    outcome: aborted,
  },
  {
    title: 'where TLS is required an unsupported option is refused with TLS_REQD too',
    host: { tls: 'require' },
    sends: raw(FLAGS, option(99, text('junk')), abort),
    answers: [refuses(99, ERR.TLS_REQD), ack(OPT.ABORT)],
    outcome: aborted,
  },
  {
    title: 'where TLS is required EXPORT_NAME ends the session',
    host: { tls: 'require' },
    sends: raw(FLAGS, option(OPT.EXPORT_NAME, text('disk'))),
    answers: [],
    lost: 'export-refused',
  },
  {
    title: 'where TLS is allowed the clear is served as well',
    host: { tls: 'allow' },
    sends: raw(FLAGS, option(OPT.GO, infoData('disk'))),
    answers: [says(OPT.GO, 3, '0000 0000123456789a00 002d'), ack(OPT.GO)],
    outcome: {
      kind: 'transmission',
      exportName: 'disk',
      replyStyle: 'simple',
      transmissionFlags: 0x2d,
      knowsBlockSizes: false,
      contexts: [],
    },
  },
]

const leaving: readonly Conversation[] = [
  {
    title: 'while the server shuts down every known option but ABORT is refused',
    host: { shuttingDown: true, tls: 'allow' },
    sends: raw(FLAGS, ...[3, 5, 6, 7, 8, 9, 10, 11].map((type) => option(type)), abort),
    answers: [...[3, 5, 6, 7, 8, 9, 10, 11].map((type) => refuses(type, ERR.SHUTDOWN)), ack(OPT.ABORT)],
    outcome: aborted,
  },
  {
    title: 'while the server shuts down EXPORT_NAME ends the session',
    host: { shuttingDown: true },
    sends: raw(FLAGS, option(OPT.EXPORT_NAME, text('disk'))),
    answers: [],
    lost: 'export-refused',
  },
]

testConversations([...sizes, ...broken, ...tls, ...leaving])
