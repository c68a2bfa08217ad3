// Random reads, writes, trims, zeroings and flushes on three connections at once, each in a reply style of its own,
// against a plain array of bytes; in the end the image itself is compared on the host.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { type Client, RequestError } from 'nbd-protocol'
import { Model } from '../support/fuzz-model.js'
import { type Random, seededRandom } from '../support/fuzz-random.js'
import { FuzzServer, WATCHDOG_MS } from '../support/fuzz-server.js'
import { STYLES } from '../support/raw-bytes.js'

const SIZE = 4 << 20
const OWN_BYTES = 64 << 10
const IN_FLIGHT = 16
const OPERATIONS = 2500
const FUA = 1
const NO_HOLE = 2
const DF = 4
const FAST_ZERO = 16
const STATE_ZERO = 2
const ENOTSUP = 95

interface Session {
  readonly client: Client
  readonly connection: number
  readonly random: Random
  readonly model: Model
}

/** Half of the operations meet only those of their own connection, in a small place, where their order decides. */
function anyRange({ random, connection }: Session): { start: number; length: number } {
  const aligned = random.onceIn(2) ? 4096 : 1
  const own = random.onceIn(2)
  const room = own ? OWN_BYTES : SIZE
  const length = 1 + random.below(random.pick(own ? [16, 4096, 20_000] : [1, 4096, 20_000, 300_000]))
  const start = Math.floor(random.below(room - length + 1) / aligned) * aligned
  return { start: start + (own ? connection * OWN_BYTES : 0), length }
}

async function read(session: Session): Promise<void> {
  const { client, connection, random, model } = session
  const { start, length } = anyRange(session)
  const flight = model.depart(connection, start, length, undefined)
  const flags = client.negotiation.replyStyle !== 'simple' && random.onceIn(4) ? DF : 0
  const found = await client.read(start, length, flags)
  model.arrive(flight)
  const place = model.difference(flight, found)
  assert.equal(place, undefined, `a read of ${length} bytes at ${start} differs at ${place}`)
}

async function write(session: Session): Promise<void> {
  const { client, connection, random, model } = session
  const { start, length } = anyRange(session)
  const seed = random.uint32()
  const data = Uint8Array.from({ length }, (_, index) => (seed >>> (index % 4)) + index * 7)
  const flight = model.depart(connection, start, length, { data })
  await client.write(start, data, random.onceIn(5) ? FUA : 0)
  model.arrive(flight)
}

async function trim(session: Session): Promise<void> {
  const { client, connection, random, model } = session
  const { start, length } = anyRange(session)
  const flight = model.depart(connection, start, length, { data: undefined })
  await client.trim(start, length, random.onceIn(5) ? FUA : 0)
  model.arrive(flight)
}

async function zero(session: Session): Promise<void> {
  const { client, connection, random, model } = session
  const { start, length } = anyRange(session)
  const flags = random.pick([0, 0, NO_HOLE, FAST_ZERO, NO_HOLE | FAST_ZERO]) | (random.onceIn(5) ? FUA : 0)
  const flight = model.depart(connection, start, length, { data: undefined })
  try {
    await client.writeZeroes(start, length, flags)
    model.arrive(flight)
  } catch (error) {
    const tooSlow = error instanceof RequestError && error.error === ENOTSUP && (flags & FAST_ZERO) !== 0
    if (!tooSlow) throw error
    model.refused(flight)
  }
}

/** What is called zero must read as zeroes: a copy tool skips it unread. */
async function blockStatus(session: Session): Promise<void> {
  const { client, connection, model } = session
  if (client.negotiation.contexts.length === 0) return client.cache(0, 65536)
  const { start, length } = anyRange(session)
  const flight = model.depart(connection, start, length, undefined)
  const status = await client.blockStatus(start, length)
  model.arrive(flight)
  const claimed = flight.expected.slice()
  let at = 0
  for (const descriptor of status.get('base:allocation') ?? []) {
    if ((descriptor.flags & STATE_ZERO) !== 0) claimed.fill(0, at, at + descriptor.length)
    at += descriptor.length
  }
  assert.ok(at > 0, 'at least one descriptor')
  assert.equal(model.difference(flight, claimed), undefined, 'data is called zero')
}

const OPERATION_MIX = [read, read, read, write, write, write, trim, zero, blockStatus]

async function operate(session: Session): Promise<void> {
  const { client, random } = session
  if (random.onceIn(25)) return client.flush()
  if (random.onceIn(40)) return client.cache(random.below(SIZE - 4096), 4096)
  return random.pick(OPERATION_MIX)(session)
}

async function keepBusy(session: Session, operations: { left: number }): Promise<void> {
  const runners = Array.from({ length: IN_FLIGHT }, async () => {
    while (operations.left > 0) {
      operations.left -= 1
      await operate(session)
    }
  })
  await Promise.all(runners)
}

for (const flags of [[], ['--in-flight-max', '3']]) {
  test(`any sequence of operations leaves what a plain array would hold (${flags.join(' ') || 'default limits'})`, {
    timeout: WATCHDOG_MS,
  }, async (scope) => {
    const random = seededRandom(scope)
    const server = await FuzzServer.start(scope, SIZE, ...flags)
    const model = new Model(SIZE)
    const clients = await Promise.all(STYLES.map((style) => server.client(style)))
    const operations = { left: OPERATIONS }
    const sessions = clients.map((client, connection) => ({ client, connection, random, model }))
    await Promise.all(sessions.map((session) => keepBusy(session, operations)))
    assert.ok(model.compared > SIZE, `${model.compared} bytes were compared`)
    for (const session of sessions) {
      const flight = model.depart(session.connection, 0, SIZE, undefined)
      const found = await session.client.read(0, SIZE)
      model.arrive(flight)
      assert.equal(model.difference(flight, found), undefined, 'the whole export')
    }
    await Promise.all(clients.map((client) => client.disconnect()))
    assert.equal((await server.candor.stop()).code, 0)
    assertImage(model, readFileSync(server.image))
    const share = model.known.reduce((sum, known) => sum + known, 0) / SIZE
    scope.diagnostic(`${Math.round(100 * share)} % of the image was settled in the end`)
    assert.ok(share > 0.3)
  })
}

function assertImage(model: Model, image: Uint8Array): void {
  assert.equal(image.length, SIZE)
  const flight = model.depart(0, 0, SIZE, undefined)
  assert.equal(model.difference(flight, image), undefined, 'the file on the host')
}
