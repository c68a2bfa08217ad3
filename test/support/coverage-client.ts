// The client's half under anything that a server may say. An input is two bytes of circumstances, then
// the server's bytes. Law: every promise settles once the bytes are at an end, with errors of three kinds alone, and
// in the same way however the bytes are cut.
import assert from 'node:assert/strict'
import {
  ByteReader,
  type ByteStream,
  Client,
  ClientHandshake,
  OptionError,
  ProtocolError,
  type ReplyStyle,
  RequestError,
} from 'nbd-protocol'
import { AllocationMeter } from './coverage-allocations.js'
import { answeredWhole, READS } from './coverage-client-reads.js'
import { HANDSHAKE_SEEDS, TRANSMISSION_SEEDS } from './coverage-client-seeds.js'
import type { Target } from './coverage-explorer.js'
import { hex } from './raw-bytes.js'

const STYLES: readonly ReplyStyle[] = ['simple', 'structured', 'extended']
/** A client may ask again for what it was told has ended, but not for ever. */
const READS_PAST_END_MAX = 40
const SENT_BYTES_MAX = 2000
const ALLOCATED_FREE = 8000

class ScriptedStream implements ByteStream {
  readonly #bytes: Uint8Array
  readonly #piece: number
  #at = 0
  #readsPastEnd = 0
  sentBytes = 0

  constructor(bytes: Uint8Array, piece: number) {
    this.#bytes = bytes
    this.#piece = piece
  }

  write(bytes: Uint8Array): void {
    this.sentBytes += bytes.length
  }

  async read(): Promise<Uint8Array | undefined> {
    if (this.#at >= this.#bytes.length) {
      this.#readsPastEnd += 1
      if (this.#readsPastEnd > READS_PAST_END_MAX) throw new Error('the client reads past the end, on and on')
      return undefined
    }
    const piece = this.#bytes.subarray(this.#at, this.#at + this.#piece)
    this.#at += piece.length
    return piece
  }

  async close(): Promise<void> {}
}

/** What a promise came to, in a form that can be compared. */
async function settled(work: Promise<unknown>): Promise<unknown> {
  try {
    const value = await work
    return value instanceof Uint8Array ? hex(value) : (value ?? null)
  } catch (error) {
    const known = error instanceof ProtocolError || error instanceof OptionError || error instanceof RequestError
    if (!known) throw error
    return `${error.name}: ${error.message}`
  }
}

type Step = (handshake: ClientHandshake, secured: () => Promise<ByteStream>) => Promise<unknown>

const go = (replyStyle: ReplyStyle, ...contexts: string[]): Step => {
  return (handshake) => handshake.go('disk', { replyStyle, contexts, blockSizes: contexts.length !== 1 })
}
const list: Step = (handshake) => handshake.list()
const info: Step = (handshake) => handshake.info('disk')

const PROGRAMS: readonly (readonly Step[])[] = [
  [go('simple')],
  [go('structured', 'base:allocation')],
  [go('extended', 'base:allocation', 'qemu:allocation-depth')],
  [list, info, (handshake) => handshake.abort()],
  [(handshake) => handshake.exportName('disk')],
  [
    (handshake) => handshake.replies('extended'),
    (handshake) => handshake.listContexts('disk', ['base:']),
    go('simple'),
  ],
  [(handshake, secured) => handshake.startTls(secured), list, go('structured')],
]

async function shakeHands(
  program: readonly Step[],
  stream: ByteStream,
  secured: () => Promise<ByteStream>,
): Promise<unknown[]> {
  let handshake: ClientHandshake | undefined
  const begun = ClientHandshake.begin(stream).then((begun) => {
    handshake = begun
  })
  const results = [await settled(begun)]
  for (const step of program) if (handshake !== undefined) results.push(await settled(step(handshake, secured)))
  return results
}

/** Reads first: their cookies are 1, 2 and 3. */
function requestsOf(client: Client): Promise<unknown>[] {
  const reads = READS.map(({ offset, length }) => client.read(offset, length))
  return [
    ...reads,
    client.write(4096, new Uint8Array(8)),
    client.flush(),
    client.trim(0, 512),
    client.cache(0, 512),
    client.writeZeroes(0, 512),
    client.blockStatus(0, 65536),
    client.blockStatus(8192, 4096),
  ].map(settled)
}

async function transmit(style: ReplyStyle, stream: ByteStream): Promise<unknown[]> {
  const contexts = [{ id: 1, name: 'base:allocation' }]
  const negotiation = { info: { size: 1 << 20 }, replyStyle: style, contexts }
  const client = new Client(stream, new ByteReader(stream), negotiation)
  const results = await Promise.all(requestsOf(client))
  // What comes of this one depends on when the rest of the bytes is read; it has to settle all the same.
  await settled(client.flush())
  await client.disconnect()
  return results
}

const meter = new AllocationMeter()

/** Whole, byte by byte, and in pieces; the results must be the same. */
async function compare(bytes: Uint8Array, converse: (stream: ByteStream) => Promise<unknown[]>): Promise<unknown[]> {
  const results: unknown[][] = []
  try {
    for (const piece of [bytes.length + 1, 1, 13]) {
      const stream = new ScriptedStream(bytes, piece)
      meter.start()
      results.push(await converse(stream))
      const room = ALLOCATED_FREE + 16 * bytes.length
      assert.ok(meter.bytes <= room, `${meter.bytes} bytes of memory; ${room} is the bound`)
      assert.ok(stream.sentBytes <= SENT_BYTES_MAX, 'what the client says does not grow')
    }
  } finally {
    meter.stop()
  }
  const [whole = [], ...others] = results
  for (const other of others) assert.deepEqual(other, whole, 'in pieces is as whole')
  return whole
}

/** A program, the place at which the server's bytes under TLS begin, the server's bytes. */
export const clientHandshakeTarget: Target = {
  name: 'client-handshake',
  seconds: 9,
  seeds: HANDSHAKE_SEEDS,
  stepsPerByteMax: 16,
  batch: 64,
  run: async (input) => {
    const [choice = 0, encrypted = 0] = input
    const program = PROGRAMS[choice % PROGRAMS.length] ?? []
    const bytes = input.subarray(2)
    // What came in the clear behind STARTTLS is dropped with its reader; the secured stream is another one.
    const secured = async () => new ScriptedStream(bytes.subarray(encrypted), bytes.length + 1)
    await compare(bytes, (stream) => shakeHands(program, stream, secured))
  },
}

/** A reply style, a byte of no meaning, the server's bytes. */
export const clientTarget: Target = {
  name: 'client',
  seconds: 9,
  seeds: TRANSMISSION_SEEDS,
  stepsPerByteMax: 16,
  batch: 64,
  run: async (input) => {
    const style = STYLES[(input[0] ?? 0) % STYLES.length] ?? 'simple'
    const bytes = input.subarray(2)
    const results = await compare(bytes, (stream) => transmit(style, stream))
    const whole = answeredWhole(bytes)
    READS.forEach((_, index) => {
      const told = results[index]
      const success = typeof told === 'string' && /^[0-9a-f]+$/.test(told)
      assert.ok(!success || whole.has(index + 1), `read ${index + 1} succeeded with bytes that nobody sent`)
    })
  },
}
