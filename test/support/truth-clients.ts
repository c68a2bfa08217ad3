// Clients that ask for anything anywhere and hold every reply against the model: the four laws, one reply at a time.
import assert from 'node:assert/strict'
import { type Client, RequestError } from 'nbd-protocol'
import type { Random } from './fuzz-random.js'
import type { Style } from './raw-bytes.js'
import { bytesOf, type Flight, type Kind, lostChange, SECTOR_BYTES, type TruthModel } from './truth-model.js'
import type { TruthServer } from './truth-server.js'

const FUA = 1
const NO_HOLE = 2
const DF = 4
const FAST_ZERO = 16
const STATE_ZERO = 2

/** An error as a client heard of it; the host's errno where the reply named it. */
export interface Heard {
  readonly command: string
  readonly errno: string | undefined
  readonly offset: number
  readonly length: number
}

/** What all clients of one disk share. */
export interface Scene {
  readonly served: TruthServer
  readonly model: TruthModel
  readonly random: Random
  readonly heard: Heard[]
  /** Requests whose connection went: they may land until the server has forgotten them. */
  readonly stray: Flight[]
  /** The last events, for a failure's message. */
  readonly journal: string[]
  /** For each sector the number of failures at its last good change, if it began at that number too. */
  readonly clean: Map<number, number>
  answered: number
  /** How many of those there were in all: their errors nobody heard. */
  strays: number
}

/** A request as it is noted: where, and how it is called. */
interface Request {
  readonly command: string
  readonly kind: Kind
  readonly first: number
  readonly count: number
  readonly flags: number
}

type Asked = 'read' | 'write' | 'writeZeroes' | 'trim' | 'cache' | 'flush' | 'blockStatus'

/** Whatever asks: an NBD client, or a guest. */
export interface TruthPeer extends Pick<Client, Asked> {
  readonly negotiation: { readonly replyStyle: Style }
  disconnect(): Promise<unknown>
  abandon(): Promise<unknown> | unknown
}

export class TruthClient {
  readonly #scene: Scene
  readonly #client: TruthPeer
  readonly #id: number
  /** It went away on purpose: its requests need not be answered. */
  #left = false

  constructor(scene: Scene, client: TruthPeer, id: number) {
    this.#scene = scene
    this.#client = client
    this.#id = id
  }

  get style(): Style {
    return this.#client.negotiation.replyStyle
  }

  get left(): boolean {
    return this.#left
  }

  note(text: string): void {
    const { journal } = this.#scene
    journal.push(`client ${this.#id}: ${text}`)
    if (journal.length > 120) journal.shift()
  }

  async leave(politely: boolean): Promise<void> {
    this.#left = true
    this.note(politely ? 'disconnects' : 'is gone')
    await (politely ? this.#client.disconnect() : this.#client.abandon())
  }

  /** One request of any kind, and its reply. */
  async operate(): Promise<void> {
    const { random } = this.#scene
    const choice = random.below(24)
    if (choice < 7) await this.read(this.#anywhere(), random.onceIn(4))
    else if (choice < 14) await this.write(this.#anywhere(), this.#maybe(FUA, 5))
    else if (choice < 16) await this.#zero(this.#anywhere())
    else if (choice < 18) await this.#trim(this.#anywhere())
    else if (choice < 21) await this.flush()
    else if (choice < 23 && this.style !== 'simple') await this.#blockStatus(this.#anywhere())
    else await this.#cache(this.#anywhere())
  }

  #maybe(flag: number, times: number): number {
    return this.#scene.random.onceIn(times) ? flag : 0
  }

  /** Sectors anywhere, often in the same few pages, at their edges or across them. */
  #anywhere(): readonly [first: number, count: number] {
    const { random, model } = this.#scene
    const room = random.pick([64, 256, model.sectors])
    const step = random.pick([1, 16])
    const count = 1 + random.below(random.pick([1, 16, 48]))
    return [Math.floor(random.below(room - count + 1) / step) * step, count]
  }

  /** Sends, waits, and tells the model; undefined for an error that was answered, or a reply that nobody hears. */
  async #ask<Answer>(
    { command, kind, first, count, flags }: Request,
    send: (flight: Flight) => Promise<Answer>,
  ): Promise<{ flight: Flight; answer: Answer } | undefined> {
    const { model, served, heard, stray } = this.#scene
    const flight = model.depart(this.#id, kind, first, count)
    const [offset, length] = command === 'flush' ? [0, 0] : [first * SECTOR_BYTES, count * SECTOR_BYTES]
    const told = served.told
    this.note(`#${flight.sequence} ${command} [${first}, ${first + count}) flags ${flags}`)
    try {
      const answer = await send(flight)
      model.arrive(flight, true)
      this.#scene.answered += 1
      this.note(`#${flight.sequence} is done`)
      this.#rememberClean(flight, told)
      return { flight, answer }
    } catch (error) {
      if (!(error instanceof RequestError)) {
        if (!this.#left) throw error
        stray.push(flight)
        this.#scene.strays += 1
        return undefined
      }
      model.arrive(flight, false)
      this.#scene.answered += 1
      this.note(`#${flight.sequence} fails: ${error.message}`)
      const errno = /failed: (E\w+) on the host/.exec(error.message)?.[1]
      heard.push({ command, errno, offset, length })
      return undefined
    }
  }

  #rememberClean(flight: Flight, toldBefore: number): void {
    if (flight.kind !== 'write' && flight.kind !== 'zero') return
    const { served, clean } = this.#scene
    if (served.told !== toldBefore) return
    for (let at = flight.first; at < flight.end; at++) clean.set(at, toldBefore)
  }

  /** A read, or the proof that its error was due: true when it was answered with data. */
  async read([first, count]: readonly [number, number], whole: boolean): Promise<boolean> {
    const flags = whole && this.style !== 'simple' ? DF : 0
    const request: Request = { command: 'read', kind: 'read', first, count, flags }
    const done = await this.#ask(request, () => this.#client.read(first * SECTOR_BYTES, count * SECTOR_BYTES, flags))
    if (done === undefined) return false
    assert.equal(this.#scene.model.contradiction(done.flight, done.answer), undefined, 'law 2: success means done')
    return true
  }

  async write([first, count]: readonly [number, number], flags: number): Promise<boolean> {
    const request: Request = { command: 'write', kind: 'write', first, count, flags }
    return this.#changed(request, (flight) => this.#client.write(first * SECTOR_BYTES, bytesOf(flight), flags))
  }

  async #zero([first, count]: readonly [number, number]): Promise<boolean> {
    const flags = this.#scene.random.pick([0, 0, NO_HOLE, FAST_ZERO]) | this.#maybe(FUA, 5)
    const request: Request = { command: 'write_zeroes', kind: 'zero', first, count, flags }
    return this.#changed(request, () => this.#client.writeZeroes(first * SECTOR_BYTES, count * SECTOR_BYTES, flags))
  }

  async #trim([first, count]: readonly [number, number]): Promise<boolean> {
    const flags = this.#maybe(FUA, 5)
    const request: Request = { command: 'trim', kind: 'trim', first, count, flags }
    return this.#changed(request, () => this.#client.trim(first * SECTOR_BYTES, count * SECTOR_BYTES, flags))
  }

  async #cache([first, count]: readonly [number, number]): Promise<void> {
    const request: Request = { command: 'cache', kind: 'read', first, count, flags: 0 }
    await this.#ask(request, () => this.#client.cache(first * SECTOR_BYTES, count * SECTOR_BYTES))
  }

  async #changed(request: Request, send: (flight: Flight) => Promise<void>): Promise<boolean> {
    const { served } = this.#scene
    const [told, truncations, forgets] = [served.told, served.truncations, served.forgets]
    const done = await this.#ask(request, send)
    if (done === undefined || (request.flags & FUA) === 0) return done !== undefined
    this.#assertBelievable(told, `${request.command} with FUA`)
    if (request.kind === 'trim' || truncations !== served.truncations || forgets !== served.forgets) return true
    const lost = lostChange(done.flight, served.disk.stable())
    assert.equal(lost, undefined, `law 3: #${done.flight.sequence} is durable, and not on stable storage at ${lost}`)
    return true
  }

  /** Success of what promises durability, asked for when `told` failures were known. */
  #assertBelievable(told: number, what: string): void {
    const { healed } = this.#scene.served
    assert.ok(told <= healed, `law 3: ${what} succeeds after failed sync ${told}; resumed up to ${healed}`)
  }

  async flush(): Promise<boolean> {
    const { served, model } = this.#scene
    const [told, truncations] = [served.told, served.truncations]
    const known = Array.from({ length: model.sectors }, (_, at) => served.isSuspect(at * SECTOR_BYTES))
    const request: Request = { command: 'flush', kind: 'sync', first: 0, count: model.sectors, flags: 0 }
    const done = await this.#ask(request, () => this.#client.flush())
    if (done === undefined) return false
    this.#assertBelievable(told, 'FLUSH')
    if (truncations !== served.truncations) return true
    const isKnown = (offset: number) => known[offset / SECTOR_BYTES] === true || served.isSuspect(offset)
    const lost = model.undurable(done.flight, served.disk.stable(), isKnown)
    assert.equal(lost, undefined, 'law 3: what FLUSH covered is on stable storage, or known as lost')
    return true
  }

  async #blockStatus([first, count]: readonly [number, number]): Promise<void> {
    const request: Request = { command: 'block_status', kind: 'read', first, count, flags: 0 }
    const done = await this.#ask(request, () => this.#client.blockStatus(first * SECTOR_BYTES, count * SECTOR_BYTES))
    if (done === undefined) return
    let at = 0
    for (const { length, flags } of done.answer.get('base:allocation') ?? []) {
      const isZero = (flags & STATE_ZERO) !== 0
      const told: string | undefined = isZero
        ? this.#scene.model.zeroContradiction(done.flight, at, at + length)
        : undefined
      assert.equal(told, undefined, 'law 3: lost bytes are called zero')
      at += length
    }
    assert.ok(at > 0, 'at least one descriptor')
  }
}
