// One client of a conformance test. Law: what the spec says of every reply is asserted of every reply here, so that
// each test asserts only what its heading says.
import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import { CHUNK, CMD, DONE as DONE_FLAG, FLAG, OPT, REP } from './conformance-numbers.js'
import {
  contextData,
  FLAGS,
  GREETING,
  hex,
  infoData,
  option,
  type Raw,
  type RawRequest,
  raw,
  request,
  type Style,
} from './raw-bytes.js'
import { RawClient, type RawReply } from './raw-client.js'

export interface OptionReply {
  readonly type: number
  readonly data: Buffer
}

/** A request whose cookie the session chooses. */
export type Asked = Omit<RawRequest, 'cookie'>

export interface Answer {
  readonly error: number
  readonly chunks: readonly RawReply[]
}

export interface Wishes {
  readonly name?: string
  readonly contexts?: readonly string[]
}

const REP_MAGIC = 0x3e889045565a9n
/** All 64 bits of a cookie are opaque. */
const FIRST_COOKIE = 0xfedc_ba98_0000_0000n

export class Session {
  readonly client: RawClient
  style: Style = 'simple'
  readonly #asked = new Map<bigint, Asked>()
  #cookie = FIRST_COOKIE

  private constructor(client: RawClient) {
    this.client = client
  }

  /** Connects to a path or a port, reads the greeting and sends the client's flags. */
  static async open(scope: TestContext, place: string, flags: Raw = FLAGS): Promise<Session> {
    const client = await RawClient.connect(place)
    scope.after(() => client.vanish())
    assert.equal(hex(await client.take(18)), hex(raw(GREETING)))
    void client.send(raw(flags))
    return new Session(client)
  }

  /** A connection in transmission. Under simple replies there are no contexts to select. */
  static async enter(scope: TestContext, place: string, style: Style, wishes: Wishes = {}): Promise<Session> {
    const session = await Session.open(scope, place)
    await session.negotiate(style)
    const { name = 'disk', contexts = [] } = wishes
    if (contexts.length > 0) await session.accepted(OPT.SET_META_CONTEXT, contextData(name, ...contexts))
    await session.accepted(OPT.GO, infoData(name))
    return session
  }

  /** Sends an option and reads its replies; the last is the final one. */
  async option(type: number, ...data: readonly Raw[]): Promise<readonly OptionReply[]> {
    void this.client.send(option(type, ...data))
    return this.optionReplies(type)
  }

  async optionReplies(type: number): Promise<readonly OptionReply[]> {
    const replies: OptionReply[] = []
    for (;;) {
      const header = Buffer.from(await this.client.take(20))
      assert.equal(header.readBigUInt64BE(0), REP_MAGIC)
      assert.equal(header.readUInt32BE(8), type, 'a reply names its option')
      const reply = {
        type: header.readUInt32BE(12),
        data: Buffer.from(await this.client.take(header.readUInt32BE(16))),
      }
      replies.push(reply)
      if (reply.type === REP.ACK) assert.equal(reply.data.length, 0, 'NBD_REP_ACK has no data')
      if (reply.type === REP.ACK || reply.type >= 2 ** 31) return replies
    }
  }

  /** The type of an option's final reply; an error's data has to be a text for people. */
  async final(type: number, ...data: readonly Raw[]): Promise<number> {
    const last = (await this.option(type, ...data)).at(-1)
    assert.ok(last !== undefined)
    if (last.type !== REP.ACK) assert.match(last.data.toString('utf8'), /^[^\0\ufffd]{1,4096}$/)
    return last.type
  }

  async accepted(type: number, ...data: readonly Raw[]): Promise<readonly OptionReply[]> {
    const replies = await this.option(type, ...data)
    assert.equal(replies.at(-1)?.type, REP.ACK)
    return replies
  }

  async negotiate(style: Style): Promise<void> {
    if (style === 'structured') await this.accepted(OPT.STRUCTURED_REPLY)
    if (style === 'extended') await this.accepted(OPT.EXTENDED_HEADERS)
    this.style = style
  }

  /** Asserts that options are still answered here. */
  async goesOn(): Promise<void> {
    await this.accepted(OPT.INFO, infoData('disk'))
  }

  /** Asserts that the server ends the connection without another byte. */
  async closes(): Promise<void> {
    assert.equal(await this.client.tryTake(1), undefined, 'nothing more is said')
    await this.client.closed
  }

  /** Sends a request and returns its cookie. */
  send(asked: Asked): bigint {
    const cookie = this.#cookie++
    this.#asked.set(cookie, asked)
    void this.client.send(request(this.style, { ...asked, cookie }))
    return cookie
  }

  /** A sound WRITE in this session's style. */
  writing(offset: number | bigint, payload: Uint8Array, flags = 0): Asked {
    const payloadFlag = this.style === 'extended' ? FLAG.PAYLOAD_LEN : 0
    return { type: CMD.WRITE, flags: flags | payloadFlag, offset, length: payload.length, payload }
  }

  /** Sends one request and reads its whole reply. */
  async request(asked: Asked): Promise<Answer> {
    const cookie = this.send(asked)
    const answer = (await this.answers(1)).get(cookie)
    assert.ok(answer !== undefined)
    return answer
  }

  /** The error of one request; 0 for success. */
  async error(asked: Asked): Promise<number> {
    return (await this.request(asked)).error
  }

  async write(offset: number, payload: Uint8Array, flags = 0): Promise<void> {
    assert.equal(await this.error(this.writing(offset, payload, flags)), 0)
  }

  /** Reads until so many requests have their final replies. */
  async answers(count: number): Promise<ReadonlyMap<bigint, Answer>> {
    const chunks = new Map<bigint, RawReply[]>()
    const finished = new Map<bigint, Answer>()
    while (finished.size < count) {
      const reply = await this.client.reply((cookie) => this.#dataLength(cookie))
      assert.ok(reply !== undefined, 'the server closed instead of answering')
      const asked = this.#asked.get(reply.cookie)
      assert.ok(asked !== undefined, 'a reply has the cookie of a request that waits for one')
      assertForm(this.style, asked, reply)
      const all = chunks.get(reply.cookie) ?? []
      chunks.set(reply.cookie, [...all, reply])
      if ((reply.flags & DONE_FLAG) === 0) continue
      this.#asked.delete(reply.cookie)
      finished.set(reply.cookie, {
        error: [...all, reply].find(({ error }) => error !== 0)?.error ?? 0,
        chunks: [...all, reply],
      })
    }
    return finished
  }

  #dataLength(cookie: bigint): number {
    const asked = this.#asked.get(cookie)
    return this.style === 'simple' && asked?.type === CMD.READ ? Number(asked.length ?? 0) : 0
  }

  /** Asserts that requests are still answered here. */
  async serves(): Promise<void> {
    assert.equal(await this.error({ type: CMD.READ, offset: 0, length: 512 }), 0)
  }
}

const KNOWN_CHUNKS: ReadonlySet<number> = new Set(Object.values(CHUNK))

/** What "Simple reply message", "Structured reply chunk message" and "Extended reply chunk message" ask of each. */
function assertForm(style: Style, asked: Asked, reply: RawReply): void {
  if (style === 'simple') return assert.equal(reply.style, 'simple')
  if (style === 'extended') {
    assert.equal(reply.style, 'extended', 'no simple reply under extended headers')
    assert.equal(reply.offset, BigInt.asUintN(64, BigInt(asked.offset ?? 0)), "a chunk repeats its request's offset")
  } else if (asked.type === CMD.READ) {
    assert.equal(reply.style, 'structured', 'no simple reply to NBD_CMD_READ under structured replies')
  }
  if (reply.style === 'simple') return
  assert.ok(KNOWN_CHUNKS.has(reply.type), `chunk type ${reply.type}`)
  assert.equal(reply.flags & ~DONE_FLAG, 0, 'no reply flag but DONE')
  if (reply.type === CHUNK.NONE) assert.deepEqual([reply.payload.length, reply.flags], [0, DONE_FLAG])
}
