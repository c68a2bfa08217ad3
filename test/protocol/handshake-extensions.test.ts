// Conversations about structured replies, extended headers and metadata contexts.
import type { HandshakeOutcome, MetaContext, ReplyStyle } from 'nbd-protocol'
import { be32, contextData, FLAGS, infoData, option, raw, text } from '../support/raw-bytes.js'
import { type Answer, ack, type Conversation, refuses, says, testConversations } from '../support/raw-conversation.js'

const OPT = { EXPORT_NAME: 1, INFO: 6, GO: 7, STRUCTURED: 8, LIST_CONTEXT: 9, SET_CONTEXT: 10, EXTENDED: 11 } as const
const ERR = { INVALID: 3, UNKNOWN: 6, EXT_HEADER_REQD: 10 } as const
const SEND_DF = 0x80
const STATUS_PAYLOAD = 0x1000
const BASE: MetaContext = { id: 1, name: 'base:allocation' }
const DEPTH: MetaContext = { id: 2, name: 'qemu:allocation-depth' }

function enters(
  replyStyle: ReplyStyle,
  transmissionFlags: number,
  contexts: readonly MetaContext[] = [],
): HandshakeOutcome {
  return { kind: 'transmission', exportName: 'disk', replyStyle, transmissionFlags, knowsBlockSizes: false, contexts }
}

const structured = option(OPT.STRUCTURED)
const extended = option(OPT.EXTENDED)
const list = (...queries: string[]) => option(OPT.LIST_CONTEXT, contextData('disk', ...queries))
const set = (...queries: string[]) => option(OPT.SET_CONTEXT, contextData('disk', ...queries))
const go = option(OPT.GO, infoData('disk'))

function told(type: number, ...contexts: readonly MetaContext[]): Answer[] {
  const replies = contexts.map(({ id, name }) => says(type, 4, be32(type === OPT.SET_CONTEXT ? id : 0), text(name)))
  return [...replies, ack(type)]
}

function went(flags: number): Answer[] {
  return [says(OPT.GO, 3, '0000 0000123456789a00', flags.toString(16).padStart(4, '0')), ack(OPT.GO)]
}

const styles: readonly Conversation[] = [
  {
    title: 'STRUCTURED_REPLY is granted, and gives SEND_DF to GO and to EXPORT_NAME',
    sends: raw(FLAGS, structured, option(OPT.EXPORT_NAME, text('disk'))),
    answers: [ack(OPT.STRUCTURED), { bytes: '0000123456789a0000ad' }],
    outcome: enters('structured', 0x2d | SEND_DF),
  },
  {
    title: 'STRUCTURED_REPLY with data is refused as invalid, and nothing is granted',
    sends: raw(FLAGS, option(OPT.STRUCTURED, '00'), go),
    answers: [refuses(OPT.STRUCTURED, ERR.INVALID), ...went(0x2d)],
    outcome: enters('simple', 0x2d),
  },
  {
    title: 'EXTENDED_HEADERS with data is refused as invalid, and nothing is granted',
    sends: raw(FLAGS, option(OPT.EXTENDED, text('x')), go),
    answers: [refuses(OPT.EXTENDED, ERR.INVALID), ...went(0x2d)],
    outcome: enters('simple', 0x2d),
  },
  {
    title: 'STRUCTURED_REPLY asked for twice is granted twice',
    sends: raw(FLAGS, structured, structured, go),
    answers: [ack(OPT.STRUCTURED), ack(OPT.STRUCTURED), ...went(0x2d | SEND_DF)],
    outcome: enters('structured', 0x2d | SEND_DF),
  },
  {
    title: 'STRUCTURED_REPLY after EXTENDED_HEADERS is refused, and extended headers hold',
    sends: raw(FLAGS, extended, structured, go),
    answers: [ack(OPT.EXTENDED), refuses(OPT.STRUCTURED, ERR.EXT_HEADER_REQD), ...went(0x2d | SEND_DF)],
    outcome: enters('extended', 0x2d | SEND_DF),
  },
  {
    title: 'EXTENDED_HEADERS after STRUCTURED_REPLY is granted, and takes precedence',
    sends: raw(FLAGS, structured, extended, go),
    answers: [ack(OPT.STRUCTURED), ack(OPT.EXTENDED), ...went(0x2d | SEND_DF)],
    outcome: enters('extended', 0x2d | SEND_DF),
  },
  {
    title: 'EXPORT_NAME under extended headers ends the session',
    sends: raw(FLAGS, extended, option(OPT.EXPORT_NAME, text('disk'))),
    answers: [ack(OPT.EXTENDED)],
    lost: 'export-refused',
  },
]

const selecting: readonly Conversation[] = [
  {
    title: 'the META_CONTEXT options before STRUCTURED_REPLY are refused as invalid',
    sends: raw(FLAGS, list(), set('base:allocation'), go),
    answers: [refuses(OPT.LIST_CONTEXT, ERR.INVALID), refuses(OPT.SET_CONTEXT, ERR.INVALID), ...went(0x2d)],
    outcome: enters('simple', 0x2d),
  },
  {
    title: 'SET_META_CONTEXT selects by whole names, each with an id of its own',
    sends: raw(FLAGS, structured, set('qemu:allocation-depth', 'base:allocation'), go),
    answers: [ack(OPT.STRUCTURED), ...told(OPT.SET_CONTEXT, BASE, DEPTH), ...went(0x2d | SEND_DF)],
    outcome: enters('structured', 0x2d | SEND_DF, [BASE, DEPTH]),
  },
  {
    title: 'contexts under extended headers bring BLOCK_STATUS_PAYLOAD, and INFO shows it already',
    sends: raw(FLAGS, extended, set('base:allocation'), option(OPT.INFO, infoData('disk')), go),
    answers: [
      ack(OPT.EXTENDED),
      ...told(OPT.SET_CONTEXT, BASE),
      says(OPT.INFO, 3, '0000 0000123456789a00 10ad'),
      ack(OPT.INFO),
      ...went(0x2d | SEND_DF | STATUS_PAYLOAD),
    ],
    outcome: enters('extended', 0x2d | SEND_DF | STATUS_PAYLOAD, [BASE]),
  },
  {
    title: 'a second SET_META_CONTEXT replaces the first',
    sends: raw(FLAGS, structured, set('base:allocation'), set('qemu:allocation-depth'), go),
    answers: [
      ack(OPT.STRUCTURED),
      ...told(OPT.SET_CONTEXT, BASE),
      ...told(OPT.SET_CONTEXT, DEPTH),
      ...went(0x2d | SEND_DF),
    ],
    outcome: enters('structured', 0x2d | SEND_DF, [DEPTH]),
  },
  {
    title: 'a second SET_META_CONTEXT that fails takes away what the first selected',
    sends: raw(FLAGS, structured, set('base:allocation'), option(OPT.SET_CONTEXT, contextData('nobody')), go),
    answers: [
      ack(OPT.STRUCTURED),
      ...told(OPT.SET_CONTEXT, BASE),
      refuses(OPT.SET_CONTEXT, ERR.UNKNOWN),
      ...went(0x2d | SEND_DF),
    ],
    outcome: enters('structured', 0x2d | SEND_DF),
  },
  {
    title: 'contexts of one export do not hold on another',
    sends: raw(FLAGS, extended, set('base:allocation'), option(OPT.GO, infoData('größe'))),
    answers: [
      ack(OPT.EXTENDED),
      ...told(OPT.SET_CONTEXT, BASE),
      says(OPT.GO, 3, '0000 0000000000000200 0083'),
      ack(OPT.GO),
    ],
    outcome: { ...enters('extended', 3 | SEND_DF), exportName: 'größe' } as HandshakeOutcome,
  },
  {
    title: 'SET_META_CONTEXT without a query, and with a wildcard, selects nothing',
    sends: raw(FLAGS, structured, set(), set('base:'), go),
    answers: [ack(OPT.STRUCTURED), ack(OPT.SET_CONTEXT), ack(OPT.SET_CONTEXT), ...went(0x2d | SEND_DF)],
    outcome: enters('structured', 0x2d | SEND_DF),
  },
]

const listing: readonly Conversation[] = [
  {
    title: 'LIST_META_CONTEXT without a query lists every context, and selects none',
    sends: raw(FLAGS, structured, list(), go),
    answers: [ack(OPT.STRUCTURED), ...told(OPT.LIST_CONTEXT, BASE, DEPTH), ...went(0x2d | SEND_DF)],
    outcome: enters('structured', 0x2d | SEND_DF),
  },
  {
    title: 'LIST_META_CONTEXT takes a namespace as a wildcard, and a name for itself',
    sends: raw(FLAGS, structured, list('base:'), list('qemu:', 'base:'), list('qemu:allocation-depth')),
    answers: [
      ack(OPT.STRUCTURED),
      ...told(OPT.LIST_CONTEXT, BASE),
      ...told(OPT.LIST_CONTEXT, BASE, DEPTH),
      ...told(OPT.LIST_CONTEXT, DEPTH),
    ],
  },
  {
    title: 'queries of unknown namespaces and unknown leaves are ignored, never refused',
    sends: raw(
      FLAGS,
      structured,
      list('x-y:', 'x-y:z', 'base:none'),
      set('x-y:z', 'base:allocation', 'x:', 'qemu:none'),
    ),
    answers: [ack(OPT.STRUCTURED), ack(OPT.LIST_CONTEXT), ...told(OPT.SET_CONTEXT, BASE)],
  },
  {
    title: 'LIST_META_CONTEXT of an unknown export is refused as unknown',
    sends: raw(FLAGS, structured, option(OPT.LIST_CONTEXT, contextData('nobody'))),
    answers: [ack(OPT.STRUCTURED), refuses(OPT.LIST_CONTEXT, ERR.UNKNOWN)],
  },
]

const MALFORMED: Readonly<Record<string, Uint8Array>> = {
  'with a query without a colon': contextData('disk', 'base:allocation', 'allocation'),
  'with a query whose namespace is empty': contextData('disk', ':allocation'),
  'with an empty query': contextData('disk', ''),
  'without any data': raw(),
  'whose name length leads past the end': raw(be32(9), text('disk'), be32(0)),
  'without a count': raw(be32(4), text('disk')),
  'that counts more queries than it brings': raw(be32(4), text('disk'), be32(2), be32(5), text('base:')),
  'that counts 2^32 - 1 queries and brings none': raw(be32(4), text('disk'), 'ffffffff'),
  'whose query leads past the end': raw(be32(4), text('disk'), be32(1), be32(6), text('base:')),
  'with bytes behind its queries': raw(contextData('disk', 'base:'), '00'),
  'with NUL in a query': contextData('disk', 'base:\0'),
  'with ill-formed UTF-8 in a query': raw(be32(4), text('disk'), be32(1), be32(7), text('base:'), 'fffe'),
  'with a query of 4097 bytes': contextData('disk', `base:${'x'.repeat(4092)}`),
}

const malformed: readonly Conversation[] = Object.entries(MALFORMED).map(([what, data]) => ({
  title: `META_CONTEXT options ${what} are refused as invalid, and a good one may follow`,
  sends: raw(FLAGS, structured, option(OPT.LIST_CONTEXT, data), option(OPT.SET_CONTEXT, data), set('base:allocation')),
  answers: [
    ack(OPT.STRUCTURED),
    refuses(OPT.LIST_CONTEXT, ERR.INVALID),
    refuses(OPT.SET_CONTEXT, ERR.INVALID),
    ...told(OPT.SET_CONTEXT, BASE),
  ],
}))

testConversations([...styles, ...selecting, ...listing, ...malformed])
