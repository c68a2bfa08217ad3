// A WRITE that is larger than what is kept of a request: it goes to storage in pieces, as they come. Law: it is answered
// once, when all its payload has come; success means that every piece was done, and nothing is cleared before.
import { commandIndex, type DecodedRequest, NBD_CMD_FLAG_FUA } from 'nbd-protocol'
import { DONE, EIO, errnoOf, MOVED, type Outcome, SHUT_DOWN, WOULD_BLOCK } from '../../backends/index.js'
import { isSpaceError } from '../exports/space-hold.js'
import { count, DEFERRED_AT } from '../observe/counters.js'
import { type OwnedPayload, ownedCopy } from './buffer-pool.js'
import { Landing } from './landing.js'
import { type PayloadSink, PIECE_BYTES } from './payload-feed.js'
import { syncPieces, writePiece, writePieceNow } from './piece-io.js'
import { PieceQueue } from './piece-queue.js'
import type { StreamedWriteOptions } from './streamed-write-options.js'
import { WriteClaim } from './write-claim.js'

/** Pieces that may wait for storage while the next one comes. */
const QUEUED_MAX = 2
/** What a streamed write holds at most. */
export const STREAM_BYTES_MAX = (QUEUED_MAX + 1) * PIECE_BYTES

export class StreamedWrite implements PayloadSink {
  readonly bytes: number
  readonly #options: StreamedWriteOptions
  readonly #request: DecodedRequest
  readonly sinceMs = performance.now()
  readonly pieces: PieceQueue
  readonly claim: WriteClaim
  #received = 0
  readonly landing: Landing
  #deferred = false
  /** What the client is to hear, once it is known: what still comes is thrown away. */
  #told: Outcome | undefined
  #ending = false
  #lost = false
  #over = false

  constructor(options: StreamedWriteOptions) {
    this.#options = options
    this.#request = { ...options.request }
    const { served, budget, request } = options
    const write = (piece: Uint8Array, offset: number) => this.#writeLater(piece, offset)
    this.pieces = new PieceQueue({ served, budget, command: request.type, write, left: () => this.#pieceLeft() })
    this.bytes = request.payloadLength
    this.landing = new Landing(served.counters)
    this.claim = new WriteClaim(options, () => this.#silent())
  }

  /** What waits for space, or for an operator, is read to its end: requests behind it are not to wait as well. */
  get busy(): boolean {
    const { space, recess } = this.#options.served
    return this.pieces.length >= QUEUED_MAX && space.held === 0 && !recess.active
  }

  /** It waits for storage, and not for the rest of its payload. */
  get waitsForStorage(): boolean {
    return this.pieces.length > 0 || this.#ending || (this.#received === this.bytes && !this.#over)
  }

  take(bytes: Uint8Array, at: number, length: number, pooled?: Uint8Array): boolean {
    const offset = this.#request.offset + this.#received
    this.#received += length
    this.claim.touch()
    if (this.#told !== undefined || this.#ending) {
      this.#answerWhenWhole()
      return false
    }
    const { served } = this.#options
    this.claim.begin()
    const mayWrite = this.claim.isMyTurn && this.pieces.length === 0
    const outcome = mayWrite ? writePieceNow(served, bytes, at, length, offset) : WOULD_BLOCK
    if (outcome !== WOULD_BLOCK) {
      this.#judge(outcome, length)
      return false
    }
    const own = pooled === undefined ? ownedCopy(bytes, at, length) : { bytes: bytes.subarray(at, at + length), pooled }
    this.#queue(own, offset)
    return pooled !== undefined
  }

  /** No piece has come for a while: that is bad where others wait for it, and storage is not what it waits for. */
  #silent(): void {
    if (this.claim.delays && this.pieces.length === 0 && this.#received < this.bytes) this.#options.onStall()
    else this.claim.touch()
  }

  #queue(piece: OwnedPayload, offset: number): void {
    if (!this.#deferred) count(this.#options.served.counters, DEFERRED_AT + commandIndex(this.#request.type))
    this.#deferred = true
    this.claim.begin()
    this.pieces.add(piece, offset)
  }

  #pieceLeft(): void {
    if (this.#lost && this.pieces.length === 0 && !this.#ending) this.#abandon()
    // Those that wait behind it are then put aside as well.
    if (this.#options.served.frozen && this.pieces.length === 0 && this.#beginsAnew) this.claim.giveUp()
    this.claim.touch()
    this.#options.answers.settled()
  }

  /** What was put aside can begin anew as one request: nothing of it has landed, or nothing more of it comes. */
  get #beginsAnew(): boolean {
    return this.#told === undefined && !this.#ending && (this.isWhole || this.landing.bytes === 0)
  }

  get isWhole(): boolean {
    return this.#received === this.bytes
  }

  /** False: it has to be put aside, since another process is about to go on with it. */
  async #writeLater(piece: Uint8Array, offset: number): Promise<boolean> {
    const { served } = this.#options
    const waited = !this.claim.isMyTurn || served.recess.active
    const came = await this.claim.turn(() => !this.#lost)
    if ((served.frozen || came === MOVED) && this.#told === undefined) return false
    if (served.recess.active) this.#options.answers.settled()
    const told = served.recess.active ? await served.recess.wait(() => !this.#lost) : DONE
    if (told === MOVED) return false
    // A piece before this one has failed, or the server leaves, or the peer has gone.
    if (this.#told !== undefined || this.#ending || (waited ? !this.#wanted() : this.#lost)) return true
    const outcome = told === DONE ? await this.#hold(piece, offset) : told
    if (outcome === MOVED) return false
    if (!this.#lost || !isSpaceError(outcome)) this.#judge(outcome, piece.length)
    return true
  }

  #hold(piece: Uint8Array, offset: number): Promise<Outcome> {
    const { served, client } = this.#options
    const { type: command, offset: start, length } = this.#request
    const who = { client, command, offset: start, length, hold: undefined }
    const wanted = () => !this.#lost
    const write = () => served.gate.pass(() => writePiece(served, piece, offset, this.isDurable, wanted), wanted)
    return served.space.run(write, () => this.#wanted(), who)
  }

  /** Asked after a wait: whether anybody still waits for an answer. */
  #wanted(): boolean {
    if (!this.#lost && this.#options.peerGone()) this.connectionLost()
    return !this.#lost
  }

  get isDurable(): boolean {
    return (this.#request.flags & NBD_CMD_FLAG_FUA) !== 0
  }

  #judge(outcome: Outcome, length: number): void {
    if (this.#told !== undefined || this.#ending) return
    if (outcome === DONE) this.landing.add(length)
    if (outcome !== DONE || this.landing.bytes === this.bytes) this.#end(outcome)
  }

  /** No piece is given to storage after this. */
  #end(outcome: Outcome): void {
    this.claim.finish(outcome === DONE)
    if (outcome !== DONE || !this.isDurable) return this.#tell(outcome)
    this.#ending = true
    void syncPieces(this.#options.served, this.#request.type, this.claim.epoch).then((told) => this.#tell(told))
  }

  #tell(outcome: Outcome): void {
    this.#ending = false
    this.#told = outcome
    this.landing.end(outcome === DONE)
    this.claim.leave()
    this.#answerWhenWhole()
  }

  #answerWhenWhole(): void {
    if (this.#received < this.bytes || this.#told === undefined || this.#over) return
    const { served, answers, client } = this.#options
    const { type, offset, length } = this.#request
    if (this.#lost && this.#told !== DONE) {
      // When nobody hears the answer any more, the operator does all the same.
      served.failed({ client, command: type, errno: errnoOf(this.#told), offset, length })
    } else if (!this.#lost) {
      if (this.#told === DONE) answers.done(this.#request)
      else answers.failed(this.#request, this.#told)
      answers.latency.answered(type, this.#told, this.sinceMs)
    }
    this.#leave()
  }

  #leave(): void {
    this.#over = true
    this.#options.onEnd()
    this.#options.answers.settled()
  }

  /** What it has failed with, and its client hears when all has come. */
  get failure(): Outcome | undefined {
    return this.#told
  }

  /** It has failed, or nobody waits behind it: the rest may become a request of its own. */
  get canMove(): boolean {
    return this.#told !== undefined || (!this.#ending && !(this.landing.bytes > 0 && this.claim.delays))
  }

  /** The rest begins anew as a request of its own: this write is of no more use. */
  leave(): void {
    this.claim.giveUp()
    this.#told = MOVED
    this.#over = true
  }

  /** What was put aside while the export was frozen is written after all. */
  thaw(): void {
    this.claim.touch()
    this.landing.thaw()
    let offset = this.#request.offset + this.landing.bytes
    const aside = this.pieces.takeAside()
    if (this.#told !== undefined) return
    for (const bytes of aside) {
      this.#queue({ bytes, pooled: undefined }, offset)
      offset += bytes.length
    }
  }

  /** The server leaves: what storage has not been given yet, it will not be. What has come whole is finished. */
  drain(): void {
    if (this.#received === this.bytes) return
    this.pieces.whenEmpty(() => {
      if (this.#told === undefined && !this.#lost) this.#end(SHUT_DOWN)
    })
  }

  /** The rest will not come. What has landed stays where it is, unanswered and unflushed, and is noted. */
  connectionLost(): void {
    if (this.#lost) return
    this.#lost = true
    if (this.pieces.length === 0 && !this.#ending) this.#abandon()
  }

  #abandon(): void {
    if (this.#over) return
    const { served, client } = this.#options
    const { type, offset, length } = this.#request
    if (this.#told !== undefined && this.#told !== DONE) {
      served.failed({ client, command: type, errno: errnoOf(this.#told), offset, length })
    }
    if (this.claim.hasBegun && this.#told === undefined) {
      served.dropped({ client, command: type, errno: 0, offset, length })
      this.claim.giveUp()
    }
    this.#told ??= EIO
    this.#leave()
  }
}
