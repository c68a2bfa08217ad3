// Conversations about exports: EXPORT_NAME, ABORT, LIST, INFO and GO, sound and malformed.
import type { HandshakeOutcome } from 'nbd-protocol'
import {
  be16,
  be32,
  be64,
  FLAGS,
  FLAGS_WITH_ZEROES,
  infoData,
  option,
  raw,
  text,
  zeroes,
} from '../support/raw-bytes.js'
import { type Answer, ack, type Conversation, refuses, says, testConversations } from '../support/raw-conversation.js'

const OPT = { EXPORT_NAME: 1, ABORT: 2, LIST: 3, INFO: 6, GO: 7 } as const
const REP = { SERVER: 2, INFO: 3 } as const
const ERR = { INVALID: 3, UNKNOWN: 6, TOO_BIG: 9 } as const
const DISK_SIZE = '0000123456789a00'
const DISK = `0000 ${DISK_SIZE} 002d`
const BLOCK_SIZES = '0003 00000001 00001000 02000000'

function enters(exportName: string, transmissionFlags: number, knowsBlockSizes = false): HandshakeOutcome {
  return { kind: 'transmission', exportName, replyStyle: 'simple', transmissionFlags, knowsBlockSizes, contexts: [] }
}

const exportNames: readonly Conversation[] = [
  {
    title: 'EXPORT_NAME with NO_ZEROES is answered with size and flags, and nothing behind them',
    sends: raw(FLAGS, option(OPT.EXPORT_NAME, text('disk'))),
    answers: [{ bytes: `${DISK_SIZE}002d` }],
    outcome: enters('disk', 0x2d),
  },
  {
    title: 'EXPORT_NAME without NO_ZEROES is answered with 124 zeroes behind the flags',
    sends: raw(FLAGS_WITH_ZEROES, option(OPT.EXPORT_NAME, text('disk'))),
    answers: [{ bytes: `${DISK_SIZE}002d${'00'.repeat(124)}` }],
    outcome: enters('disk', 0x2d),
  },
  {
    title: 'EXPORT_NAME serves the oldest newstyle client, which sets no flag at all',
    sends: raw('00000000', option(OPT.EXPORT_NAME, text('größe'))),
    answers: [{ bytes: `0000000000000200${'0003'}${'00'.repeat(124)}` }],
    outcome: enters('größe', 3),
  },
  {
    title: 'EXPORT_NAME with the empty name enters the default export under its own name',
    sends: raw(FLAGS, option(OPT.EXPORT_NAME)),
    answers: [{ bytes: `${DISK_SIZE}002d` }],
    outcome: enters('disk', 0x2d),
  },
  {
    title: 'EXPORT_NAME with an unknown name ends the session, for it has no error reply',
    sends: raw(FLAGS, option(OPT.EXPORT_NAME, text('nobody'))),
    answers: [],
    lost: 'export-refused',
  },
  {
    title: 'EXPORT_NAME with ill-formed UTF-8 ends the session',
    sends: raw(FLAGS, option(OPT.EXPORT_NAME, 'c328')),
    answers: [],
    lost: 'export-refused',
  },
  {
    title: 'EXPORT_NAME with a name past 4096 bytes ends the session',
    sends: raw(FLAGS, option(OPT.EXPORT_NAME, text('x'.repeat(4097)))),
    answers: [],
    lost: 'export-refused',
  },
]

const others: readonly Conversation[] = [
  {
    title: 'ABORT is acknowledged, and ends the handshake',
    sends: raw(FLAGS, option(OPT.ABORT)),
    answers: [ack(OPT.ABORT)],
    outcome: { kind: 'abort' },
  },
  {
    title: 'ABORT that brings data all the same is acknowledged too',
    sends: raw(FLAGS, option(OPT.ABORT, text('goodbye'))),
    answers: [ack(OPT.ABORT)],
    outcome: { kind: 'abort' },
  },
  {
    title: 'LIST names every export with its description, in UTF-8',
    sends: raw(FLAGS, option(OPT.LIST)),
    answers: [
      says(OPT.LIST, REP.SERVER, be32(4), text('diskthe first')),
      says(OPT.LIST, REP.SERVER, be32(7), text('größe')),
      ack(OPT.LIST),
    ],
  },
  {
    title: 'LIST with data is refused as invalid, and the next option is answered',
    sends: raw(FLAGS, option(OPT.LIST, '00'), option(OPT.ABORT)),
    answers: [refuses(OPT.LIST, ERR.INVALID), ack(OPT.ABORT)],
    outcome: { kind: 'abort' },
  },
]

const info = (type: number, ...data: (string | Uint8Array)[]): Answer => says(type, REP.INFO, ...data)
const goGood: Uint8Array = option(OPT.GO, infoData('disk'))
const wentGood: readonly Answer[] = [info(OPT.GO, DISK), ack(OPT.GO)]

const going: readonly Conversation[] = [
  {
    title: 'INFO tells of the export and stays, GO tells the same and enters it',
    sends: raw(FLAGS, option(OPT.INFO, infoData('disk')), option(OPT.GO, infoData('disk'))),
    answers: [info(OPT.INFO, DISK), ack(OPT.INFO), info(OPT.GO, DISK), ack(OPT.GO)],
    outcome: enters('disk', 0x2d),
  },
  {
    title: 'GO answers each information that it is asked for once, and ignores unknown ones',
    sends: raw(FLAGS, option(OPT.GO, infoData('', 3, 1, 2, 3, 0, 77, 0xffff))),
    answers: [
      info(OPT.GO, DISK),
      info(OPT.GO, be16(1), text('disk')),
      info(OPT.GO, be16(2), text('the first')),
      info(OPT.GO, BLOCK_SIZES),
      ack(OPT.GO),
    ],
    outcome: enters('disk', 0x2d, true),
  },
  {
    title: 'INFO shows the block sizes of an export that has constraints',
    sends: raw(FLAGS, option(OPT.INFO, infoData('größe', 3))),
    answers: [
      info(OPT.INFO, '0000', be64(512), '0003'),
      info(OPT.INFO, '0003 00000200 00000200 00010000'),
      ack(OPT.INFO),
    ],
  },
  {
    title: 'who asked INFO alone for block sizes has promised nothing for GO',
    sends: raw(FLAGS, option(OPT.INFO, infoData('größe', 3)), option(OPT.GO, infoData('größe'))),
    answers: [
      info(OPT.INFO, '0000', be64(512), '0003'),
      info(OPT.INFO, '0003 00000200 00000200 00010000'),
      ack(OPT.INFO),
      info(OPT.GO, '0000', be64(512), '0003'),
      ack(OPT.GO),
    ],
    outcome: enters('größe', 3),
  },
  {
    title: 'GO to an unknown export is refused, and a good GO may follow',
    sends: raw(FLAGS, option(OPT.GO, infoData('nobody', 3)), goGood),
    answers: [refuses(OPT.GO, ERR.UNKNOWN), ...wentGood],
    outcome: enters('disk', 0x2d),
  },
  {
    title: 'GO to an unknown export with a name of 4096 bytes is refused with a message that fits',
    sends: raw(FLAGS, option(OPT.GO, infoData('é'.repeat(2048)))),
    answers: [refuses(OPT.GO, ERR.UNKNOWN)],
  },
]

const MALFORMED: Readonly<Record<string, Uint8Array>> = {
  'without any data': raw(),
  'with half a name length': raw('0000'),
  'whose name length leads past the end': raw(be32(5), text('disk'), '0000'),
  'whose name length is 2^32 - 1': raw('ffffffff', text('disk'), '0000'),
  'whose data ends behind the name': raw(be32(4), text('disk')),
  'whose data ends within the count': raw(be32(4), text('disk'), '00'),
  'that counts more requests than it brings': raw(be32(4), text('disk'), '0002 0003'),
  'that counts 65535 requests and brings none': raw(be32(4), text('disk'), 'ffff'),
  'that counts fewer requests than it brings': raw(be32(4), text('disk'), '0001 0003 0001'),
  'with an odd byte behind its requests': raw(infoData('disk', 3), '00'),
  'with half a request': raw(be32(4), text('disk'), '0001 03'),
  'with NUL in its name': infoData('di\0sk'),
  'with NUL behind its name': infoData('disk\0'),
  'with ill-formed UTF-8 in its name': raw(be32(4), text('di'), 'c328', '0000'),
  'with a surrogate in its name': raw(be32(3), 'eda080', '0000'),
  'with an overlong form in its name': raw(be32(2), 'c0af', '0000'),
  'with a name of 4097 bytes': infoData('x'.repeat(4097)),
}

const malformed: readonly Conversation[] = Object.entries(MALFORMED).map(([what, data]) => ({
  title: `INFO and GO ${what} are refused as invalid, and a good GO may follow`,
  sends: raw(FLAGS, option(OPT.INFO, data), option(OPT.GO, data), goGood),
  answers: [refuses(OPT.INFO, ERR.INVALID), refuses(OPT.GO, ERR.INVALID), ...wentGood],
  outcome: enters('disk', 0x2d),
}))

const long: readonly Conversation[] = [
  {
    title: 'GO longer than an option may be is refused as too big, and a good GO may follow',
    sends: raw(FLAGS, option(OPT.GO, zeroes(8193)), goGood),
    answers: [refuses(OPT.GO, ERR.TOO_BIG), ...wentGood],
    outcome: enters('disk', 0x2d),
  },
]

testConversations([...exportNames, ...others, ...going, ...malformed, ...long])
