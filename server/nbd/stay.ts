// How long a connection that is read keeps the thread. Law: after half a millisecond others have their turn, whatever it is
// that comes; and who is read in turns with others gives it up when what came is served: its requests gather meanwhile.

import { Patience } from '../exports/patience.js'
import type { Latency } from '../observe/latency.js'
import type { ReceiveBuffer } from './receive-buffer.js'
import type { Transport } from './transport.js'

const STAY_MS = 0.5

/** Whoever was read last in this thread. */
let last: Stay | undefined

/** What is to be known of the bytes that came. */
type Source = Pick<ReceiveBuffer, 'isBetweenFrames' | 'lentBytes' | 'target'>

export class Stay {
  readonly #receive: Source
  readonly #transport: Pick<Transport, 'receiveNow'>
  readonly #latency: Pick<Latency, 'sinceMs'>
  readonly #patience = new Patience()
  #wasFilled = false
  #hasOthers = false
  #beganMs = 0

  constructor(receive: Source, transport: Pick<Transport, 'receiveNow'>, latency: Pick<Latency, 'sinceMs'>) {
    this.#receive = receive
    this.#transport = transport
    this.#latency = latency
  }

  /** libuv brought `length` bytes, which have been taken. */
  begin(length: number): void {
    this.#wasFilled = length === this.#receive.lentBytes
    this.#beganMs = this.#nowMs
    this.#hasOthers = last !== this
    last = this
  }

  /** The last batch has looked at the clock; of a payload no part does. */
  get #nowMs(): number {
    return this.#receive.isBetweenFrames ? this.#latency.sinceMs : performance.now()
  }

  get #isOver(): boolean {
    return this.#nowMs - this.#beganMs >= STAY_MS
  }

  /** libuv reads on in the same turn where what it was lent has been filled: it is to be kept from that. */
  get overstays(): boolean {
    return this.#wasFilled && this.#isOver
  }

  /** Bytes that have come meanwhile, and wait to be taken; 0 when the event loop is to have its turn. */
  more(isIdle: boolean): number {
    // The rest of a large frame is on its way; the next small one is looked for when the others have been read.
    if (this.#isOver || (this.#hasOthers && this.#receive.isBetweenFrames)) return 0
    // A request that storage is about to answer may not lose by a wait.
    const waitNs = isIdle ? this.#patience.waitNs : 0
    const bytes = this.#transport.receiveNow(this.#receive.target, waitNs)
    if (waitNs > 0) this.#patience.waited(bytes > 0)
    return bytes
  }

  /** The client has gone. */
  end(): void {
    this.#patience.end()
    if (last === this) last = undefined
  }
}
