// Transmission and its receive buffer under any stream of requests, behind a sound handshake, in this process. An input
// is two bytes of circumstances, then the stream. Law: nothing throws, every whole request before the first that cannot
// be read is answered exactly once, and a client beside it notices nothing.
import assert from 'node:assert/strict'
import type { Client } from 'nbd-protocol'
import type { Backend } from '../../backends/index.js'
import { openMemory } from '../../backends/memory.js'
import type { NbdLimits } from '../../server/nbd/nbd-options.js'
import type { Target } from './coverage-explorer.js'
import { moody, SIZE, type Temper } from './coverage-server-backend.js'
import { type Frames, framesOf } from './coverage-server-frames.js'
import { SERVER_SEEDS, STUFFED } from './coverage-server-seeds.js'
import { type InProcess, serveInProcess } from './in-process.js'
import { request, STYLES, type Style } from './raw-bytes.js'
import { RawClient } from './raw-client.js'

/** A visit takes milliseconds; the watchdog would end the whole process, so this comes first. */
const PATIENCE_MS = 30_000
const MEMORY_BYTES_MAX = 400 << 20
/** Pieces in which the stream is sent; 0 is whole. */
const PIECES = [0, 0, 1, 7, 28, 33, 1000, 65536] as const
/** Byte by byte is for short streams. */
const PIECES_MAX = 300

interface Room {
  readonly memory: Backend
  readonly place: InProcess
  readonly good: Client
}

async function open(temper: Temper, limits: Partial<NbdLimits>): Promise<Room> {
  const memory = openMemory(SIZE)
  const place = await serveInProcess(moody(memory, temper), limits)
  return { memory, place, good: await place.client({ replyStyle: 'structured', contexts: ['base:allocation'] }) }
}

export class ServerTarget implements Target {
  readonly name = 'server'
  readonly seconds = 18
  readonly seeds = SERVER_SEEDS
  readonly stepsPerByteMax = 40
  readonly batch = 24
  readonly #rooms: readonly Room[]
  readonly #thrown: Promise<never>
  #throw: (error: unknown) => void = () => {}
  readonly #onThrown = (error: unknown): void => this.#throw(error)
  #visits = 0

  private constructor(rooms: readonly Room[]) {
    this.#rooms = rooms
    this.#thrown = new Promise((_, reject) => {
      this.#throw = reject
    })
    // Whoever waits for a visit hears of it; when nobody does, the test runner has heard of it as well.
    this.#thrown.catch(() => {})
    process.on('uncaughtException', this.#onThrown).on('unhandledRejection', this.#onThrown)
  }

  /** A server with room for everything, one that is always at its limits, one that writes nothing, one that fails. */
  static async start(): Promise<ServerTarget> {
    const narrow = { slowRequestsMax: 2, slowBytesMax: 3000, replyBacklogMax: 5000 }
    const rooms = [open('late', {}), open('late', narrow), open('read-only', {}), open('sour', narrow)]
    return new ServerTarget(await Promise.all(rooms))
  }

  /** Connections that are open, and those that have a reason to be. */
  get connections(): { readonly open: number; readonly good: number } {
    const open = this.#rooms.reduce((sum, { place }) => sum + place.server.connections, 0)
    return { open, good: this.#rooms.length }
  }

  async stop(): Promise<void> {
    process.off('uncaughtException', this.#onThrown).off('unhandledRejection', this.#onThrown)
    for (const { good, place } of this.#rooms) {
      await good.disconnect()
      await place.close()
    }
  }

  async run(input: Uint8Array): Promise<void> {
    const [choice = 0, cut = 0] = input
    const style = STYLES[(choice >> 2) % STYLES.length] ?? 'simple'
    const room = this.#rooms[choice & 3]
    assert.ok(room !== undefined)
    await room.memory.trim(0, SIZE, false)
    const frames = framesOf(input.subarray(2), style, (choice & STUFFED) !== 0)
    const visit = this.#visit(room, style, frames, PIECES[cut % PIECES.length] ?? 0)
    let timer: NodeJS.Timeout | undefined
    const stuck = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error('the server neither answers nor hangs up')), PATIENCE_MS)
    })
    await Promise.race([visit, this.#thrown, stuck]).finally(() => clearTimeout(timer))
    if (this.#visits % 16 === 0) assertMemory()
  }

  async #visit({ place, good }: Room, style: Style, frames: Frames, piece: number): Promise<void> {
    const client = await RawClient.enter(place.path, style)
    const beside = Promise.all([good.flush(), good.read(0, 100), good.blockStatus(0, SIZE)])
    const answered = assertAnswers(client, style, frames).finally(() => client.vanish())
    await Promise.all([answered, send(client, frames, piece), beside, client.closed])
    this.#visits += 1
    const data = new Uint8Array(600).fill(this.#visits & 0xff)
    const at = this.#visits % 2 === 0 ? 1000 : SIZE - 1000
    if (place.served.readOnly) return
    await good.write(at, data)
    assert.deepEqual(await good.read(at, data.length), data, 'a good client reads what it wrote')
  }
}

function assertMemory(): void {
  const { arrayBuffers } = process.memoryUsage()
  assert.ok(arrayBuffers < MEMORY_BYTES_MAX, `${arrayBuffers} bytes of buffers`)
}

async function send(client: RawClient, { bytes, heard }: Frames, piece: number): Promise<void> {
  const step = Math.max(piece === 0 ? bytes.length : piece, Math.ceil(bytes.length / PIECES_MAX), 1)
  // From one such turn to the next the server reads once, and so finds each piece alone.
  const turn = () => new Promise((resolve) => setImmediate(resolve))
  await turn()
  for (let at = 0; at < heard; at += step) {
    void client.send(bytes.subarray(at, at + step))
    await turn()
  }
}

/** One final reply for each whole request, nothing else, and then the end that the stream's own end asks for. */
async function assertAnswers(client: RawClient, style: Style, { requests, end, between }: Frames): Promise<void> {
  const open = new Map(requests.map((frame) => [frame.cookie, frame]))
  const last = between ? BigInt(requests.length + 1) : undefined
  while (open.size > 0) {
    const reply = await client.reply((cookie) => {
      const frame = open.get(cookie)
      return frame?.type === 0 ? frame.length : 0
    })
    const waiting = [...open.values()].map(({ type, cookie }) => `${cookie} (command ${type})`)
    assert.ok(reply !== undefined, `the server hung up, and never answered the requests ${waiting}`)
    assert.ok(open.has(reply.cookie), `the request ${reply.cookie} is answered once`)
    if ((reply.flags & 1) !== 0) open.delete(reply.cookie)
  }
  if (last !== undefined) void client.send(request(style, { type: 2, cookie: last }))
  else if (end === 'open') client.socket.end()
  assert.equal(await client.reply(() => 0), undefined, 'nothing is said that was not asked for')
}
