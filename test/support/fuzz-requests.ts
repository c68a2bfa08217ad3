// One request of any kind, what the specification lets a server answer to it, and the exchange that shows it.
import assert from 'node:assert/strict'
import type { Random } from './fuzz-random.js'
import { be32, be64, type RawRequest, raw, request, type Style } from './raw-bytes.js'
import type { RawClient, RawReply } from './raw-client.js'

const READ = 0
const WRITE = 1
const FLUSH = 3
const BLOCK_STATUS = 7
const DATA = 1
const HOLE = 2
const FUA = 1
const DF = 4
const REQ_ONE = 8
const FAST_ZERO = 16
const PAYLOAD_LEN = 32
const EINVAL = 22
const ENOSPC = 28
const ENOTSUP = 95

export interface AnyRequest extends RawRequest {
  readonly flags: number
  readonly offset: bigint
  readonly length: bigint
  readonly payload: Uint8Array
}

/** Fields that are sound, at an edge, or absurd; the payload is what the header announces. */
export function anyRequest(random: Random, style: Style, size: number): AnyRequest {
  const edges = [
    0n,
    1n,
    BigInt(size) - 1n,
    BigInt(size),
    BigInt(size) + 1n,
    2n ** 32n,
    2n ** 53n,
    2n ** 63n,
    2n ** 64n - 1n,
  ]
  const place = () => (random.onceIn(3) ? random.pick(edges) : BigInt(random.below(size)))
  const type = random.onceIn(12) ? random.pick([8, 9, 255, 0xffff]) : random.pick([0, 1, 3, 4, 5, 6, 7])
  const sound = style === 'extended' && type === WRITE ? PAYLOAD_LEN : 0
  const flags = random.onceIn(3) ? random.below(random.pick([64, 2 ** 16])) : sound | random.below(2)
  const bringsPayload = type === WRITE || (style === 'extended' && (flags & PAYLOAD_LEN) !== 0)
  const small = BigInt(random.below(random.pick([2, 600, 70_000])))
  const wide = BigInt.asUintN(style === 'extended' ? 64 : 32, place())
  const length = bringsPayload || random.onceIn(2) ? small : wide
  const offset = type === FLUSH && random.onceIn(2) ? 0n : place()
  const payload = bringsPayload ? payloadOf(random, type, Number(length), size) : raw()
  return { type, flags, cookie: anyCookie(random), offset, length, payload }
}

function anyCookie(random: Random): bigint {
  return BigInt(random.uint32()) * 2n ** 32n + BigInt(random.uint32())
}

function payloadOf(random: Random, type: number, length: number, size: number): Uint8Array {
  const filter = raw(be64(random.below(size)), be32(random.below(3)), be32(1))
  if (type === BLOCK_STATUS && length <= filter.length) return filter.subarray(0, length)
  return new Uint8Array(length).fill(random.below(256))
}

const FLAGS_BY_COMMAND: Readonly<Record<number, number>> = {
  0: FUA,
  1: FUA,
  3: FUA,
  4: FUA,
  5: FUA,
  6: 19,
  7: FUA | REQ_ONE,
}

/** Whether success may be the answer; undefined where the specification leaves it open. */
function mayBeGranted(sent: AnyRequest, style: Style, size: number): boolean | undefined {
  const known = sent.type === BLOCK_STATUS && style === 'simple' ? undefined : FLAGS_BY_COMMAND[sent.type]
  if (known === undefined) return false
  const df = sent.type === READ && style !== 'simple' ? DF : 0
  const payload = style === 'extended' && (sent.type === WRITE || sent.type === BLOCK_STATUS) ? PAYLOAD_LEN : 0
  if ((sent.flags & ~(known | df | payload)) !== 0) return false
  if (sent.type === FLUSH) return sent.offset === 0n && sent.length === 0n ? true : undefined
  if (sent.length === 0n) return undefined
  if (sent.type === BLOCK_STATUS && sent.payload.length > 0) return undefined
  return sent.offset + sent.length <= BigInt(size)
}

export function assertAnswer(sent: AnyRequest, style: Style, size: number, replies: readonly RawReply[]): void {
  const { payload: _, ...header } = sent
  const told = `${style} ${JSON.stringify(header, (_key, value) => (typeof value === 'bigint' ? String(value) : value))}`
  const errors = replies.map(({ error }) => error).filter((error) => error !== 0)
  const granted = mayBeGranted(sent, style, size)
  const tooSlow = (sent.flags & FAST_ZERO) !== 0 && errors[0] === ENOTSUP
  if (granted !== undefined && !tooSlow) assert.equal(errors.length === 0, granted, `${told}: ${errors}`)
  for (const error of errors) assert.ok([EINVAL, ENOSPC, ENOTSUP].includes(error), `${told}: ${error}`)
  for (const reply of replies) assertStyle(sent, style, reply, told)
  if (sent.type === READ && errors.length === 0 && style !== 'simple' && sent.length > 0n) {
    assertCovered(sent, replies, told)
  }
}

/** Data and holes follow each other without a gap, from the first byte of the read to its last, in any order. */
function assertCovered(sent: AnyRequest, replies: readonly RawReply[], told: string): void {
  const contents = replies.filter(({ type }) => type === DATA || type === HOLE)
  const runs = contents.map(({ type, payload }) => {
    const view = Buffer.from(payload)
    return { start: view.readBigUInt64BE(0), length: BigInt(type === HOLE ? view.readUInt32BE(8) : payload.length - 8) }
  })
  let at = sent.offset
  for (const { start, length } of runs.sort((one, other) => (one.start < other.start ? -1 : 1))) {
    assert.equal(start, at, told)
    assert.ok(length > 0n, told)
    at += length
  }
  assert.equal(at, sent.offset + sent.length, told)
  if ((sent.flags & DF) !== 0) assert.ok(runs.length === 1 && contents[0]?.type === DATA, `${told}: fragmented`)
}

function assertStyle(sent: AnyRequest, style: Style, reply: RawReply, told: string): void {
  // Where reads are concerned structured replies are a must ("Simple reply message"); elsewhere errors may be simple.
  const free = style === 'structured' && (sent.type !== READ || sent.length === 0n) && reply.payload.length === 0
  if (!free) assert.equal(reply.style, style, told)
  if (reply.offset !== undefined && sent.offset < 2n ** 53n) assert.equal(reply.offset, sent.offset, told)
}

/**
 * Sends the request with a sound READ right behind it, and gathers both answers: each has one final reply, the READ
 * shows that the stream is still in step, and nothing else is said.
 */
export async function exchange(client: RawClient, style: Style, sent: AnyRequest): Promise<RawReply[]> {
  const probe = { type: READ, cookie: sent.cookie ^ 1n, offset: 0, length: 16 }
  void client.send(raw(request(style, sent), request(style, probe)))
  const replies: RawReply[] = []
  const unanswered = new Set([sent.cookie, probe.cookie])
  while (unanswered.size > 0) {
    const reply = await client.reply((cookie) => {
      if (cookie === probe.cookie) return 16
      return sent.type === READ ? Number(sent.length) : 0
    })
    assert.ok(reply !== undefined, `the server hung up on ${JSON.stringify(sent.type)} in the ${style} style`)
    assert.ok(unanswered.has(reply.cookie), 'a cookie is answered once')
    if ((reply.flags & 1) !== 0) unanswered.delete(reply.cookie)
    if (reply.cookie === sent.cookie) replies.push(reply)
    else assert.equal(reply.error, 0, 'the stream is in step')
  }
  return replies
}
