// Carries requests out that a front end hands over as memory and place: what truth.md asks of reads, changes and syncs. Law:
// each request ends once, with storage's own word; `undefined` is for those that stay unanswered, because nobody waits for
// them any more or because the next server will find them again.
//
// The NBD front end keeps the same rules in its own loop (nbd/transmission.ts and nbd/slow-requests.ts), where replies are
// built around the data.
import { commandIndex, NBD_CMD_FLUSH, NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_WRITE } from 'nbd-protocol'
import type { IoData, Outcome } from '../../backends/index.js'
import { DONE, EIO, errnoOf, MOVED, RESERVED, SHUT_DOWN, WOULD_BLOCK, ZERO_PUNCH } from '../../backends/index.js'
import { count, DEFERRED_AT, IN_FLIGHT_AT, READ_BYTES_AT, WRITTEN_BYTES_AT } from '../observe/counters.js'
import { Latency } from '../observe/latency.js'
import { attemptChange } from './attempt.js'
import type { Export } from './export.js'
import { isSpaceError } from './space-hold.js'

/** One thing to be done. */
export interface Task<Data extends IoData = IoData> {
  /** NBD_CMD_READ, WRITE, FLUSH, TRIM or WRITE_ZEROES: the commands of all counters, whichever front end it is. */
  readonly command: number
  readonly offset: number
  readonly length: number
  /** Success speaks of stable storage. */
  readonly durable: boolean
  /** ZERO_… bits of a WRITE_ZEROES. */
  readonly mode: number
  /** Where the data of a READ or WRITE lies: the runner's until the task has ended. */
  readonly buffer: Data
  readonly start: number
}

/** One that waits: its data are in a buffer. */
export type KeptTask = Task<Uint8Array>

/** Who waits for the answers. */
export interface Audience {
  /** As log and ledger name it. */
  readonly client: string
  /** Its connection is gone: nobody hears an answer. */
  readonly gone: boolean
  /** It stops, and does not want what would have to wait for space or for an operator. */
  readonly stopping: boolean
  /** What stays unanswered will be found and done by the next server. */
  readonly remembers: boolean
}

export class RequestRunner {
  readonly latency: Latency
  readonly #export: Export
  readonly #audience: Audience
  readonly #wanted = () => !this.#audience.gone && !this.#audience.stopping
  /** Somebody wants what waits for others' requests and for storage, which a stop waits for as well. */
  readonly #awaited = () => !this.#audience.gone && !(this.#audience.stopping && this.#audience.remembers)
  #inspected = false

  constructor(served: Export, audience: Audience) {
    this.#export = served
    this.#audience = audience
    this.latency = new Latency(served.counters)
  }

  /** A batch of requests has arrived; `endBatch` follows in the same turn. */
  beginBatch(): void {
    this.#inspected = false
    this.latency.arrived()
  }

  endBatch(): void {
    this.latency.handedOver()
  }

  /** The request itself is at fault, or not allowed here: storage is not asked. */
  refuse(command: number, errno: number, offset: number, length: number): void {
    this.#note({ command, offset, length }, errno)
    this.latency.refused(command)
  }

  /** Within a batch: the outcome, or WOULD_BLOCK for what `later` has to do. */
  now(task: Task): Outcome {
    const outcome = this.#now(task)
    if (outcome === DONE) this.latency.served(task.command)
    else if (outcome !== WOULD_BLOCK) {
      this.#failed(task, outcome)
      this.latency.failed(task.command, outcome)
    }
    return outcome
  }

  #now(task: Task): Outcome {
    const { durability } = this.#export
    const { command, length, durable } = task
    if (durability.unrecorded) return EIO
    if (durable && command !== NBD_CMD_READ && durability.failure !== DONE) return durability.failure
    if (command === NBD_CMD_FLUSH) return WOULD_BLOCK
    if (length === 0) return DONE
    if (command === NBD_CMD_READ) return this.#readNow(task)
    return command === NBD_CMD_WRITE && !durable ? this.#writeNow(task) : WOULD_BLOCK
  }

  #readNow({ buffer, start, length, offset }: Task): Outcome {
    const { backend, counters, durability } = this.#export
    if (this.#export.firstSuspect(offset, length) !== undefined) return EIO
    const outcome = backend.readNow(buffer, start, length, offset)
    if (outcome !== DONE) return outcome
    durability.readBack(offset, length)
    if (this.#export.firstSuspect(offset, length) !== undefined) return EIO
    count(counters, READ_BYTES_AT, length)
    return DONE
  }

  #writeNow({ buffer, start, length, offset }: Task): Outcome {
    const served = this.#export
    if (!served.room.has(length)) return WOULD_BLOCK
    if (served.order.pending !== 0 && served.order.overlaps(offset, length)) return WOULD_BLOCK
    if (!this.#inspected) {
      this.#inspected = true
      served.inspect()
    }
    served.durability.mark(offset, length)
    if (served.durability.unrecorded) return EIO
    const outcome = served.backend.writeNow(buffer, start, length, offset)
    if (outcome !== DONE) return served.space.holds && isSpaceError(outcome) ? WOULD_BLOCK : outcome
    if (served.durability.suspect.count !== 0) served.durability.rewritten(offset, length)
    served.reached(offset + length)
    served.room.took(length)
    count(served.counters, WRITTEN_BYTES_AT, length)
    return DONE
  }

  /** Waits for storage; changes that overlap wait for each other, whichever front end they came by. */
  async later(task: KeptTask): Promise<Outcome | undefined> {
    const { counters, waiting } = this.#export
    const { sinceMs } = this.latency
    count(counters, DEFERRED_AT + commandIndex(task.command))
    count(counters, IN_FLIGHT_AT)
    const entry = waiting.enter(task.command)
    try {
      const outcome = this.#settled(task, await this.#run(task))
      if (outcome !== undefined) this.latency.answered(task.command, outcome, sinceMs)
      return outcome
    } finally {
      waiting.leave(entry)
      count(counters, IN_FLIGHT_AT, -1)
    }
  }

  /** When nobody hears the answer any more, the operator does all the same. */
  #settled(task: Task, outcome: Outcome | undefined): Outcome | undefined {
    const { remembers } = this.#audience
    if (outcome === undefined || outcome === MOVED) return undefined
    if (outcome === SHUT_DOWN && remembers) return undefined
    if (outcome !== DONE && isSpaceError(outcome) && !this.#awaited()) return this.#dropped(task)
    if (outcome !== DONE) this.#failed(task, outcome)
    return outcome
  }

  async #run(task: KeptTask): Promise<Outcome | undefined> {
    const { recess } = this.#export
    if (task.command === NBD_CMD_FLUSH) return this.#export.flush()
    if (task.command !== NBD_CMD_READ) return this.#change(task)
    const told = recess.active ? await recess.wait(this.#wanted) : DONE
    return told === DONE ? this.#read(task) : told
  }

  /** What was read before a failure may have been lost by then, and written again since: it is read anew. */
  async #read({ buffer, start, length, offset }: KeptTask): Promise<Outcome> {
    const { durability } = this.#export
    for (;;) {
      if (this.#export.firstSuspect(offset, length) !== undefined) return EIO
      const { epoch } = durability
      const ask = () => this.#export.backend.read(buffer, start, length, offset)
      const outcome = await this.#export.gate.pass(ask, this.#awaited)
      durability.readBack(offset, length)
      if (this.#export.firstSuspect(offset, length) !== undefined) return EIO
      if (outcome !== DONE) {
        // Data that are missing may be data that somebody truncated away: then all of them are suspect from here on.
        this.#export.inspect()
        return outcome
      }
      if (durability.epoch !== epoch && !this.#audience.gone) continue
      count(this.#export.counters, READ_BYTES_AT, length)
      return DONE
    }
  }

  /** undefined: dropped before the kernel had it. */
  async #change(task: KeptTask): Promise<Outcome | undefined> {
    const { gate, order, recess, space } = this.#export
    const { command, offset, length } = task
    const turn = order.enter(offset, length)
    try {
      const came = turn.waitsFor > 0 ? await order.wait(turn, this.#awaited) : DONE
      const told = came === DONE && recess.active ? await recess.wait(this.#wanted) : came
      const { client } = this.#audience
      if (!this.#awaited()) return this.#dropped(task)
      if (told !== DONE) return told
      const attempt = () => gate.pass(() => this.#attempt(task), this.#awaited)
      const outcome = await space.run(attempt, this.#wanted, { client, command, offset, length })
      if (outcome === DONE && command === NBD_CMD_WRITE) count(this.#export.counters, WRITTEN_BYTES_AT, length)
      return outcome
    } finally {
      order.leave(turn)
    }
  }

  #attempt(task: KeptTask): Promise<Outcome> {
    const { command, offset, length, durable, mode } = task
    const isTrim = command === NBD_CMD_TRIM
    const takesSpace = command === NBD_CMD_WRITE || (!isTrim && (mode & ZERO_PUNCH) === 0)
    const submit = async () => (this.#audience.gone ? RESERVED : this.#submit(task))
    return attemptChange(this.#export, { offset, length, durable, isTrim, takesSpace, submit })
  }

  #submit({ command, buffer, start, offset, length, durable, mode }: KeptTask): Promise<Outcome> {
    const { backend } = this.#export
    if (command === NBD_CMD_WRITE) return backend.write(buffer, start, length, offset, durable)
    if (command === NBD_CMD_TRIM) return backend.trim(offset, length, durable)
    return backend.zero(offset, length, mode, durable)
  }

  #failed(task: Task, outcome: Outcome): void {
    this.#note(task, errnoOf(outcome), outcome === RESERVED)
  }

  #note(
    { command, offset, length }: Pick<Task, 'command' | 'offset' | 'length'>,
    errno: number,
    byReserve = false,
  ): void {
    this.#export.failed({ client: this.#audience.client, command, errno, offset, length, byReserve })
  }

  /** Told of where the next server will not find it. */
  #dropped({ command, offset, length }: Task): undefined {
    const { client, gone } = this.#audience
    if (gone && command !== NBD_CMD_READ) this.#export.dropped({ client, command, errno: 0, offset, length })
  }
}
