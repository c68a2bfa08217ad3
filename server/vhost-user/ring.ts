// One virtqueue in service: its turns, what waits, and how it stops. Law: while a request touches the guest's memory, the
// ring is not idle; a ring whose session is gone is not touched.
import { type QueueOptions, type VhostMemory, VhostQueue } from '../../backends/index.js'
import type { Patience } from '../exports/patience.js'
import { type Audience, RequestRunner } from '../exports/request-runner.js'
import { dropUnwanted } from '../exports/unwanted.js'
import { type BlockRequest, requestAt } from './block-request.js'
import { BlockService, type Desk } from './block-service.js'
import type { Copies, Waiter } from './copies.js'
import type { BlockDevice } from './device.js'
import { Telling } from './telling.js'

/** Bytes of data that one turn moves before others have theirs. */
const TURN_BYTES_MAX = 8 << 20

export interface RingOptions {
  readonly device: BlockDevice
  readonly memory: VhostMemory
  /** With the guest, whose rings share it. */
  readonly patience: Patience
  /** The same. */
  readonly copies: Copies
  /** The peer as log and ledger name it. */
  readonly client: string
  /** The in-flight log tells the next server what stays unanswered. */
  readonly remembers: boolean
  /** Whoever writes into the ring broke a rule. */
  readonly onBroken: (reason: string) => void
}

export class Ring implements Audience, Desk, Waiter {
  readonly client: string
  readonly remembers: boolean
  readonly #options: RingOptions
  readonly #queue: VhostQueue
  readonly #runner: RequestRunner
  readonly #service: BlockService
  readonly #telling: Telling
  #backlog: BlockRequest[] = []
  #moved = 0
  #out = 0
  #turnScheduled = false
  #closed = false
  #whenIdle: (() => void)[] = []
  #base: Promise<number> | undefined
  gone = false
  stopping = false

  private constructor(options: RingOptions, queue: VhostQueue) {
    const { client, remembers, device, memory, patience } = options
    this.client = client
    this.remembers = remembers
    this.#options = options
    this.#queue = queue
    this.#runner = new RequestRunner(device.served, this)
    this.#service = new BlockService(device, this.#runner, memory, queue, this)
    this.#telling = new Telling(queue, this.#runner, patience)
  }

  /** Finds the ring in the guest's memory and begins to serve it; an errno when it cannot be there. */
  static open(options: RingOptions, where: Omit<QueueOptions, 'memory'>): Ring | number {
    let ring: Ring | undefined
    const queue = VhostQueue.open(
      { ...where, memory: options.memory },
      { requests: (entries) => ring?.arrived(entries), broken: (reason) => ring?.broken(reason) },
    )
    if (typeof queue === 'number') return queue
    ring = new Ring(options, queue)
    queue.start()
    return ring
  }

  /** Requests that were taken and are not done with. */
  get inFlight(): number {
    return this.#out + this.#backlog.length
  }

  setCall(fd: number): number {
    return this.#closed ? 0 : this.#queue.setCall(fd)
  }

  setKick(fd: number): number {
    return this.#closed || this.stopping ? 0 : this.#queue.setKick(fd)
  }

  /** So many new entries stand at the start of the queue's table. */
  arrived(entries: number): void {
    this.#telling.begin(entries)
    for (let row = 0; row < entries; row++) {
      const request = requestAt(this.#queue.table, row)
      if (this.#backlog.length > 0 || !this.#mayTake) this.#backlog.push(request)
      else this.#moved += this.#service.take(request)
    }
    if (this.#mayWait && this.#moved < TURN_BYTES_MAX && this.#telling.holds()) return
    this.#endTurn()
    if (this.#mayWait) this.#telling.linger()
  }

  get #mayWait(): boolean {
    return this.inFlight === 0 && !this.#closed && !this.stopping
  }

  broken(reason: string): void {
    this.#options.onBroken(reason)
  }

  get #mayTake(): boolean {
    // What a ring that stops has taken in is finished, whatever the others hold.
    return this.#moved < TURN_BYTES_MAX && (this.stopping || this.#options.copies.admits(this))
  }

  #endTurn(): void {
    const { copies } = this.#options
    this.#telling.now()
    if (this.#moved >= TURN_BYTES_MAX) this.resumeSoon()
    else {
      this.#moved = 0
      // What is left was stopped by want of room: whose turn is over stands in nobody's way.
      if (this.#backlog.length > 0) copies.wait(this)
    }
    copies.wake()
    this.#tellIdle()
  }

  resumeSoon(): void {
    if (this.#turnScheduled) return
    this.#turnScheduled = true
    setImmediate(() => {
      this.#turnScheduled = false
      this.#moved = 0
      if (!this.#closed) this.#resume()
    })
  }

  #resume(): void {
    const { copies } = this.#options
    const isItsTurn = copies.admits(this)
    this.#runner.beginBatch()
    while (this.#mayTake) {
      const next = this.#backlog.shift()
      if (next === undefined) break
      this.#moved += this.#service.take(next)
    }
    if (isItsTurn) copies.leave(this)
    this.#endTurn()
  }

  // Desk

  complete(id: number, status: number, written: number): void {
    if (!this.gone && !this.#closed) this.#queue.complete(id, status, written)
  }

  wait(bytes: number, work: Promise<void>): void {
    this.#out += 1
    this.#options.copies.hold(bytes)
    void work.then(() => {
      this.#out -= 1
      this.#options.copies.giveBack(bytes)
      this.#telling.soon()
      this.#tellIdle()
    })
  }

  // How it ends.

  /** Takes nothing new, waits for what storage has, and returns where the ring stands. */
  stop(): Promise<number> {
    this.#base ??= this.#stop()
    return this.#base
  }

  async #stop(): Promise<number> {
    this.stopping = true
    this.#queue.setKick(-1)
    this.#leave()
    await this.#idle()
    if (!this.gone) this.#telling.now()
    const base = this.#queue.stop()
    this.#close()
    return base
  }

  /** The session has ended: the ring is not touched any more. Resolves when storage has let go of the guest's memory. */
  async lost(): Promise<void> {
    if (this.gone) return
    this.gone = true
    this.#telling.end()
    if (!this.#closed) this.#queue.stop()
    this.#leave()
    await this.#idle()
    this.#close()
  }

  /** Nobody waits any more for what waits for space, or for an operator. */
  #leave(): void {
    if (this.gone || this.remembers) this.#dropBacklog()
    else if (this.#backlog.length > 0) {
      this.#options.copies.leave(this)
      this.resumeSoon()
    }
    dropUnwanted(this.#options.device.served)
  }

  #dropBacklog(): void {
    this.#backlog = []
    this.#options.copies.leave(this)
    this.#options.copies.wake()
  }

  #idle(): Promise<void> {
    return new Promise((resolve) => {
      this.#whenIdle.push(resolve)
      this.#tellIdle()
    })
  }

  #tellIdle(): void {
    if (this.inFlight > 0) return
    for (const tell of this.#whenIdle.splice(0)) tell()
  }

  #close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#telling.end()
    this.#queue.close()
  }
}
