// Streams of requests to begin with, in every style, whole and in pieces, for every temper of server.
import { SIZE } from './coverage-server-backend.js'
import { be32, be64, filled, raw, request, STYLES, type Style, text, writeRequest, zeroes } from './raw-bytes.js'

const HALF = SIZE / 2
const [READ, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS] = [0, 2, 3, 4, 5, 6, 7] as const
const [FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN] = [1, 2, 4, 8, 16, 32] as const

function everyCommand(style: Style): Uint8Array {
  const ask = (type: number, offset: number, length: number, flags = 0) =>
    request(style, { type, flags, cookie: 0n, offset, length })
  return raw(
    writeRequest(style, 0n, 100, filled(300, 7)),
    ask(READ, 0, 4096),
    ask(READ, HALF, 4096),
    writeRequest(style, 0n, HALF + 4096, filled(700, 8), FUA),
    ask(READ, HALF, 8192),
    ask(READ, HALF, 8192, DF),
    ask(BLOCK_STATUS, 0, SIZE),
    ask(BLOCK_STATUS, 0, SIZE, REQ_ONE),
    ask(TRIM, 0, 4096),
    ask(CACHE, 0, SIZE),
    ask(WRITE_ZEROES, HALF, 5000, NO_HOLE | FUA),
    ask(WRITE_ZEROES, 50, 5000, FAST_ZERO),
    ask(FLUSH, 0, 0),
    ask(READ, 5, 0),
    ask(READ, SIZE - 1, 2),
    ask(READ, SIZE / 4, 9),
    ask(READ, SIZE / 4, SIZE / 2),
    ask(BLOCK_STATUS, SIZE / 4, 9),
    writeRequest(style, 0n, SIZE / 4, text('sour'), FUA),
    writeRequest(style, 0n, SIZE - 1, text('past')),
    ask(99, 0, 0),
  )
}

function filtered(): Uint8Array {
  const ask = (...filter: (string | Uint8Array)[]) => {
    const payload = raw(...filter)
    const flags = PAYLOAD_LEN
    return request('extended', { type: BLOCK_STATUS, flags, cookie: 0n, offset: 4096, length: payload.length, payload })
  }
  return raw(
    ask(be64(8192), be32(1)),
    ask(be64(SIZE), be32(1)),
    ask(be64(0), be32(1)),
    ask(be64(4096), be32(1), be32(1)),
    ask(be64(4096), be32(9)),
    ask(be64(4096), '00'),
    ask('00'),
  )
}

/** In the first byte: a frame a little above 32 MiB, the server's limit, is filled up with zeroes. */
export const STUFFED = 0x80
/** At ease, at its limits, without writing, with errors. */
type Server = 0 | 1 | 2 | 3

/** Circumstances: which server and which style, then how the stream is cut. */
function seed(server: Server, style: Style, cut: number, ...parts: (string | Uint8Array)[]): Uint8Array {
  return raw(Uint8Array.of(server | (STYLES.indexOf(style) << 2), cut), ...parts)
}

function stuffed(server: Server, style: Style, length: number, ...parts: Uint8Array[]): Uint8Array {
  const input = seed(server, style, 0, request(style, { type: 1, cookie: 0n, length }), ...parts)
  input[0] = (input[0] ?? 0) | STUFFED
  return input
}

const garbage = zeroes(40)

export const SERVER_SEEDS: readonly Uint8Array[] = [
  ...STYLES.flatMap((style) =>
    [0, 1, 3, 6].flatMap((cut) =>
      ([0, 1, 2, 3] as const).map((server) => seed(server, style, cut, everyCommand(style))),
    ),
  ),
  ...STYLES.map((style) => seed(0, style, 0, request(style, { type: FLUSH, cookie: 0n }), garbage)),
  ...STYLES.map((style) => seed(0, style, 0, everyCommand(style), request(style, { type: DISC, cookie: 0n }), garbage)),
  seed(0, 'extended', 0, filtered()),
  seed(1, 'extended', 2, filtered()),
  ...[0, 1, 7].map((cut) =>
    seed(0, 'simple', cut, writeRequest('simple', 0n, 5, filled(70_000, 9)), everyCommand('simple')),
  ),
  seed(1, 'structured', 7, writeRequest('structured', 0n, HALF, filled(70_000, 9)), everyCommand('structured')),
  stuffed(0, 'simple', (32 << 20) + 9, everyCommand('simple')),
  stuffed(1, 'structured', (32 << 20) + 70, everyCommand('structured'), garbage),
  seed(0, 'extended', 6, request('extended', { type: 1, flags: PAYLOAD_LEN, cookie: 0n, length: 2 ** 53 })),
  seed(0, 'structured', 0, request('structured', { type: 1, cookie: 0n, length: (32 << 20) + 70_000 })),
  seed(
    0,
    'simple',
    4,
    everyCommand('simple'),
    request('simple', { type: READ, cookie: 0n, length: 9 }).subarray(0, 20),
  ),
]
