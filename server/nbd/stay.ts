// How long a connection that is read keeps the thread, and its replies. Law: after half a millisecond others have their turn,
// whatever it is that comes; who is read in turns with others gives it up when what came is served: its requests gather
// meanwhile. Before a turn is given up, and before anything but the next small request is waited for, replies are told.
import { Coalescing } from '../exports/coalescing.js'
import { HOLD_NS, Patience } from '../exports/patience.js'
import type { Latency } from '../observe/latency.js'
import type { Answers } from './answers.js'
import type { ReceiveBuffer } from './receive-buffer.js'
import type { Transport } from './transport.js'

const STAY_MS = 0.5
/** Bytes that come at once, before which replies that were held are told: those are not to wait until all of it is served. */
const HELD_BYTES_MAX = 16 << 10

/** What is to be known of the bytes that came. */
type Source = Pick<ReceiveBuffer, 'isBetweenFrames' | 'lentBytes' | 'target'>

/** The same of the replies. */
interface Replies extends Pick<Answers, 'beginGathering' | 'isUntold' | 'tell' | 'endGathering'> {
  readonly latency: Pick<Latency, 'sinceMs' | 'untold'>
}

/** Who takes the bytes. */
export interface Reader {
  take(length: number): void
  /** Whether more is wanted now. */
  mayRead(): boolean
  /** Nothing of it is in storage. */
  isIdle(): boolean
}

export class Stay {
  readonly #receive: Source
  readonly #transport: Pick<Transport, 'receiveNow'>
  readonly #replies: Replies
  readonly #patience = new Patience()
  readonly #coalescing = new Coalescing()
  #wasFilled = false
  #hasOthers = false
  #beganMs = 0

  constructor(receive: Source, transport: Pick<Transport, 'receiveNow'>, replies: Replies) {
    this.#receive = receive
    this.#transport = transport
    this.#replies = replies
  }

  /** libuv brought `length` bytes: whether it may bring more `now`, or when others have had their `turn`; or `reader` wants no more. */
  read(length: number, reader: Reader): 'now' | 'turn' | 'no more' {
    this.#replies.beginGathering()
    const next = this.#readOn(length, reader)
    this.#replies.endGathering()
    return next
  }

  #readOn(length: number, reader: Reader) {
    this.#beganMs = performance.now()
    reader.take(length)
    this.#wasFilled = length === this.#receive.lentBytes
    this.#hasOthers = this.#patience.came(this.#beganMs)
    // Whoever asks one thing after another has most likely asked the next by now: the event loop is a detour then.
    while (reader.mayRead()) {
      const more = this.#more(reader.isIdle())
      if (more === 0) return this.#overstays ? 'turn' : 'now'
      reader.take(more)
    }
    return 'no more'
  }

  /** The last batch has looked at the clock; of a payload no part does. */
  get #nowMs(): number {
    return this.#receive.isBetweenFrames ? this.#replies.latency.sinceMs : performance.now()
  }

  get #isOver(): boolean {
    return this.#nowMs - this.#beganMs >= STAY_MS
  }

  /** libuv reads on in the same turn where what it was lent has been filled: it is to be kept from that. */
  get #overstays(): boolean {
    return this.#wasFilled && this.#isOver
  }

  /** Bytes that have come meanwhile, and wait to be taken; 0 when the event loop is to have its turn. */
  #more(isIdle: boolean): number {
    // The rest of a large frame is on its way; the next small one is looked for when the others have been read.
    if (this.#isOver || (this.#hasOthers && this.#receive.isBetweenFrames)) {
      this.#tell()
      return 0
    }
    const held = isIdle ? this.#hold() : 0
    if (held > 0) return held
    this.#tell()
    // A request that storage is about to answer may not lose by a wait.
    const waitNs = isIdle ? this.#patience.waitNs : 0
    const bytes = this.#transport.receiveNow(this.#receive.target, waitNs)
    if (waitNs > 0) this.#patience.waited(bytes > 0)
    return bytes
  }

  /** The next request, if it comes while replies are held for it. */
  #hold(): number {
    const { untold } = this.#replies.latency
    const mayHold = this.#replies.isUntold && this.#receive.isBetweenFrames && this.#patience.isAlone
    if (!mayHold || !this.#coalescing.holds(untold)) return 0
    const bytes = this.#transport.receiveNow(this.#receive.target, HOLD_NS)
    this.#coalescing.held(bytes > 0)
    if (bytes > HELD_BYTES_MAX) this.#tell()
    return bytes
  }

  #tell(): void {
    const { untold } = this.#replies.latency
    this.#replies.tell()
    this.#coalescing.told(untold)
  }

  /** The client has gone. */
  end(): void {
    this.#patience.end()
  }
}
