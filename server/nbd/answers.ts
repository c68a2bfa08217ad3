// How the requests of one connection are answered. Law: every error is counted and told to those who keep account of
// it, in the same call that answers it.
import { type DecodedRequest, NBD_CMD_READ, type ReplyStyle } from 'nbd-protocol'
import { errnoOf, type Outcome, RESERVED } from '../../backends/index.js'
import type { Export } from '../exports/export.js'
import { Latency } from '../observe/latency.js'
import { hostSays, nbdErrorOf, refusalSays } from './nbd-errno.js'
import type { Verdict } from './region.js'
import { replyDone, replyError } from './replies.js'
import type { ReplyBatch } from './reply-batch.js'

export interface AnswersOptions {
  readonly served: Export
  readonly style: ReplyStyle
  readonly batch: ReplyBatch
  /** The peer as log and ledger name it. */
  readonly client: string
  /** Called when a request that waited has been answered: the connection may go on reading. */
  readonly settled: () => void
}

export class Answers {
  readonly #export: Export
  readonly #style: ReplyStyle
  readonly #batch: ReplyBatch
  readonly #client: string
  readonly settled: () => void
  readonly latency: Latency
  /** A turn is being served, which sends the batch at its end; outside of one it has to be sent. */
  #serving = false
  #gathers = false

  constructor({ served, style, batch, client, settled }: AnswersOptions) {
    this.#export = served
    this.#style = style
    this.#batch = batch
    this.#client = client
    this.settled = settled
    this.latency = new Latency(served.counters)
  }

  /** Replies leave when they are told, also those of several turns, until `endGathering`. */
  beginGathering(): void {
    this.#gathers = true
  }

  endGathering(): void {
    this.#gathers = false
    this.tell()
  }

  /** What is answered until `turnEnds` leaves together. */
  turnBegins(): void {
    this.#serving = true
    this.latency.arrived()
  }

  turnEnds(): void {
    this.#serving = false
    if (!this.#gathers) this.tell()
  }

  /** Something was answered that `tell` has to send. */
  get isUntold(): boolean {
    return this.#batch.hasReplies
  }

  /** Sends what was answered. */
  tell(): void {
    this.#batch.flush()
    this.latency.handedOver()
  }

  done(request: DecodedRequest): void {
    replyDone(this.#batch, this.#style, request)
    if (this.#serving) this.latency.served(request.type)
    else this.#batch.flushSoon()
  }

  /** A whole reply with data, in buffers that are given away; `pooled` is the pool's buffer behind the only one. */
  data(parts: readonly Uint8Array[], pooled?: Uint8Array): void {
    this.#batch.send(parts, pooled)
  }

  failed(request: DecodedRequest, outcome: Outcome): void {
    const { type, offset, length } = request
    this.#note(request, errnoOf(outcome), outcome === RESERVED)
    const suspect = type === NBD_CMD_READ ? this.#export.firstSuspect(offset, length) : undefined
    const text = suspect === undefined ? hostSays(type, outcome) : 'these bytes may have been lost; write them again'
    replyError(this.#batch, this.#style, request, nbdErrorOf(outcome), text, suspect)
    if (this.#serving) this.latency.failed(type, outcome)
    else this.#batch.flushSoon()
  }

  /** Says in a turn of its own what was known before. */
  judged(request: DecodedRequest, verdict: Verdict): void {
    this.turnBegins()
    if (verdict.kind === 'refused') this.refuse(request, verdict.error)
    else this.failed(request, verdict.outcome)
    this.turnEnds()
  }

  /** The request's own fault, or the server's leaving, said within a turn: the image was not asked. */
  refuse(request: DecodedRequest, error: number): void {
    this.#note(request, error)
    this.latency.refused(request.type)
    replyError(this.#batch, this.#style, request, error, refusalSays(request, error))
  }

  #note({ type, offset, length }: DecodedRequest, errno: number, byReserve = false): void {
    this.#export.failed({ client: this.#client, command: type, errno, offset, length, byReserve })
  }
}
