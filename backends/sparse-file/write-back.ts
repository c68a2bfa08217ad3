// Starts write-back a little behind the writes, so that a FLUSH does not find gigabytes that nobody has begun to write.
// Law: this only begins; what it succeeds in proves nothing, and what it fails in is told by the next probe. Once writing
// back has failed nothing is begun before a sync has succeeded: an operator's attempt to resume is to find the errors.
import { DONE, errnoOf, isSyncFailure, type Outcome } from '../outcome.js'

/** Bytes of a stream before their write-back is begun: enough for long requests, little enough to wait for. */
const STEP_BYTES = 32 << 20
/** A stream's write-back is begun this long behind its first byte, and with three times the pause that beginning took last. */
const STEP_MS = 1000
const PAUSES = 3
/** However fast they come, so many different bytes that nobody has begun to write are enough; scattered ones take longer. */
const STREAM_BYTES_MAX = 1 << 30
const SCATTERED_BYTES_MAX = 512 << 20
/** Writes of this size are taken for a stream wherever they lie. */
const LARGE_BYTES = 64 << 10

/** Begins write-back of a range (sync_file_range(2) with SYNC_FILE_RANGE_WRITE), in the pool. */
type Begin = (offset: number, length: number) => Promise<Outcome>

/** What is known of write-back beside the kernel. */
export interface KnownWriteBack {
  readonly halted: boolean
  /** The errno of write-back that could not be begun, and that no probe has told of. */
  readonly failure: Outcome
}

export class WriteBack {
  readonly #begin: Begin
  #running: Promise<void> | undefined
  #halted = false
  #bytes = 0
  #streamed = 0
  #lastEnd = 0
  #notBefore = 0
  /** All that was written since the last beginning lies in [start, end). */
  #start = Number.MAX_SAFE_INTEGER
  #end = 0
  #failure: Outcome = DONE
  #timer: NodeJS.Timeout | undefined
  #resting = false

  constructor(begin: Begin) {
    this.#begin = begin
  }

  /** A write has reached the page cache. */
  wrote(offset: number, length: number): void {
    if (this.#bytes === 0) this.#notBefore = Math.max(this.#notBefore, performance.now() + STEP_MS)
    this.#resting = false
    this.#timer ??= this.#alarm()
    this.#bytes += length
    if (offset === this.#lastEnd || length >= LARGE_BYTES) this.#streamed += length
    this.#lastEnd = offset + length
    if (offset < this.#start) this.#start = offset
    if (offset + length > this.#end) this.#end = offset + length
    if (this.#running === undefined && this.#isDue) this.#next()
  }

  /** A stream that has ended is begun too. */
  #alarm(): NodeJS.Timeout {
    const ring = () => {
      this.#timer = undefined
      if (this.#running === undefined && this.#isDue) this.#next()
    }
    const left = this.#notBefore - performance.now()
    return setTimeout(ring, left > 0 ? left + 1 : STEP_MS).unref()
  }

  /** Begins nothing by itself before something is written again. */
  rest(): void {
    this.#resting = true
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  get #isDue(): boolean {
    if (this.#halted || this.#bytes < STEP_BYTES) return false
    const span = this.#end - this.#start
    // Scattered places are often written again, and each time would be written back; so would what is being rewritten.
    const isStream = this.#streamed >= STEP_BYTES && this.#bytes <= 1.25 * span
    if (isStream && performance.now() >= this.#notBefore) return true
    const most = 2 * this.#streamed >= this.#bytes ? STREAM_BYTES_MAX : SCATTERED_BYTES_MAX
    // What was written again and again is dirty once.
    return Math.min(this.#bytes, span) > most
  }

  /** Runs a write that waits for storage, and minds what it wrote. */
  async behind(write: () => Promise<Outcome>, offset: number, length: number): Promise<Outcome> {
    const outcome = await write()
    if (outcome === DONE) this.wrote(offset, length)
    return outcome
  }

  #next(): void {
    const [start, end] = [this.#start, this.#end]
    this.#bytes = 0
    this.#streamed = 0
    const began = performance.now()
    this.#start = Number.MAX_SAFE_INTEGER
    this.#end = 0
    this.#running = this.#begin(start, end - start).then((outcome) => {
      this.#running = undefined
      this.#notBefore = began + Math.max(STEP_MS, (1 + PAUSES) * (performance.now() - began))
      if (outcome !== DONE) this.#failure = errnoOf(outcome)
      if (this.#isDue) this.#next()
      else if (this.#bytes > 0 && !this.#resting) this.#timer ??= this.#alarm()
    })
  }

  /** Runs a sync when nothing is being begun any more, and goes by its outcome. */
  async around(sync: () => Promise<Outcome>): Promise<Outcome> {
    this.#halted = true
    this.rest()
    await this.#running
    const outcome = await sync()
    this.#halted = isSyncFailure(outcome)
    return outcome
  }

  /** It could not be begun, and no probe has told of that. */
  get hasFailed(): boolean {
    return this.#failure !== DONE
  }

  /** What probes of both descriptions have found, or the errno of write-back that could not be begun, once. */
  probed(own: Outcome, witness: Outcome): Outcome {
    const failure = witness || own || this.#failure
    this.#failure = DONE
    if (failure !== DONE) this.#halted = true
    return failure
  }

  /** Settles when nothing is being begun, and nothing was written meanwhile; nothing is begun by itself after that. */
  async quiet(): Promise<void> {
    this.rest()
    while (this.#running !== undefined) await this.#running
  }

  /** What another process has to know, while all is quiet. */
  get known(): KnownWriteBack {
    return { halted: this.#halted, failure: this.#failure }
  }

  goOn({ halted, failure }: KnownWriteBack): void {
    this.#halted = halted
    this.#failure = failure
  }
}
