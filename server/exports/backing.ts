// One file system under the exports of a thread: what it has left, who takes of it, who waits for it. Law: free space is
// never taken to be more than the host said, less all that was written since it was asked.
import type { BackingSpace, Space } from '../../backends/index.js'
import {
  type BackingShare,
  FREE,
  fence,
  LOOKED,
  MAY_TAKE,
  PENDING,
  partsOf,
  SIZE,
  sumOf,
  UNTIL_FULL,
  WRITTEN,
} from '../observe/backing-block.js'
import { FallRate } from './fall-rate.js'

/** How often the host is asked when nothing presses. */
const SURVEY_MS = 1000
/** How often while requests are held. */
const WATCH_MS = 100
/** How often at most when free space comes near a reserve; what is nearer is looked at request by request. */
const PRESSED_MS = 50
/** A WRITE that is done in its turn takes no more. */
const REQUEST_BYTES_MAX = 32 << 20

/** An export whose image lies on the file system. */
export interface Tenant {
  readonly name: string
  readonly space: BackingSpace
  /** Bytes that are to stay free; 0 for none. */
  readonly reserve: number
  /** Bytes that the image may still take, as far as is known. */
  readonly mayTake: number
  /** Requests that wait for space. */
  readonly held: number
  /** The image takes so many bytes. */
  allocated(bytes: number): void
  /** Space has appeared. */
  release(): void
}

export class Backing {
  readonly #block: BackingShare['block']
  /** Where this thread's part of the block begins. */
  readonly #at: number
  readonly #tenants = new Set<Tenant>()
  readonly #fall = new FallRate()
  #size = 0
  #free: number
  /** Of the bytes that all threads have written, those that the host's last word knew of. */
  #known = 0
  /** Looks are numbered; the last one that knew of all that was written before it. */
  #asked = 0
  #heard = 0
  #looking: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #surveying: Promise<void> | undefined
  #surveyed = { at: 0, written: 0 }
  #watching = false
  /** The least that was free since requests are held. */
  #lowest: number | undefined

  /** `free`: what is taken for free until the host was asked. */
  constructor({ block, at }: Pick<BackingShare, 'block' | 'at'>, free = Number.NEGATIVE_INFINITY) {
    this.#block = block
    this.#at = at
    this.#free = free
  }

  /** Bytes that all threads have written since they began. */
  get #written(): number {
    return sumOf(this.#block, WRITTEN)
  }

  /** Bytes that are free for certain, whatever the threads do; for the hot path, a few additions. */
  get left(): number {
    return this.#free - (this.#written - this.#known) - sumOf(this.#block, PENDING)
  }

  /** What the other threads may be writing this moment, one request each, before they say so. */
  get margin(): number {
    return (partsOf(this.#block) - 1) * REQUEST_BYTES_MAX
  }

  /** Bytes free when the host was asked last. */
  get free(): number {
    return this.#free
  }

  /** Bytes were written in this turn; they may have taken as much space. */
  took(bytes: number): void {
    this.#add(WRITTEN, bytes)
  }

  /** Takes so much until `end`, if that leaves `floor`. It is said first and asked then: no two threads take the same. */
  begin(bytes: number, floor: number): boolean {
    this.#add(PENDING, bytes)
    fence(this.#block)
    if (this.left >= floor) return true
    this.#add(PENDING, -bytes)
    return false
  }

  /** What was begun is done, or came to nothing: until the next look it counts as taken. */
  end(bytes: number): void {
    this.#add(WRITTEN, bytes)
    fence(this.#block)
    this.#add(PENDING, -bytes)
  }

  #add(place: number, bytes: number): void {
    this.#block[this.#at + place] = (this.#block[this.#at + place] ?? 0) + bytes
  }

  async join(tenant: Tenant): Promise<void> {
    this.#tenants.add(tenant)
    // One that is under way does not ask for this image.
    await this.#surveying
    await this.#survey()
  }

  leave(tenant: Tenant): void {
    this.#tenants.delete(tenant)
    if (this.#tenants.size === 0) clearTimeout(this.#timer)
    this.#publishDemand()
  }

  /** Requests are held: the watch goes faster until none is. */
  heldChanged(): void {
    if (this.#watching || !this.#held) return
    this.#watching = true
    if (this.#surveying === undefined) this.#schedule(WATCH_MS)
  }

  /** Asks the host anew; those who come meanwhile share the answer. */
  look(): Promise<void> {
    this.#looking ??= this.#ask().finally(() => {
      this.#looking = undefined
    })
    return this.#looking
  }

  async #ask(): Promise<void> {
    // Whoever answers: of an image that was let go of nobody says anything.
    for (const tenant of this.#tenants) {
      const settles = tenant.space.lags && this.#written !== this.#known
      if ((await this.#hear(tenant, settles)) !== undefined) return
    }
  }

  async #hear({ space, allocated }: Tenant, settles: boolean): Promise<Space | undefined> {
    const number = ++this.#asked
    const written = this.#written
    const heard = this.#heard
    const answer = await space.look(settles)
    if (answer === undefined) return undefined
    allocated(answer.allocated)
    // A look that was overtaken says nothing; nor does one that knows less than another that ended beside it.
    const knowing = settles || !space.lags
    if (knowing ? number < this.#heard : heard !== this.#heard) return answer
    this.#free = answer.size === 0 ? Number.POSITIVE_INFINITY : answer.free
    if (!knowing) return answer
    // What is on its way stays pending, and what was written since the question is not in the answer for certain.
    this.#heard = number
    this.#known = written
    return answer
  }

  /** Asks for every image, and draws the consequences. One at a time: hung storage holds one question, not a heap. */
  #survey(): Promise<void> {
    clearTimeout(this.#timer)
    this.#surveying ??= this.#surveyNow().finally(() => {
      this.#surveying = undefined
    })
    return this.#surveying
  }

  async #surveyNow(): Promise<void> {
    const [first, ...others] = this.#tenants
    if (first === undefined) return
    const reserve = this.#highestReserve
    const settles = first.space.lags && reserve > 0 && this.left < reserve
    const looks = [this.#hear(first, settles), ...others.map((one) => this.#hear(one, false))]
    const answer = (await Promise.all(looks)).find((one) => one !== undefined)
    const before = this.#surveyed
    this.#surveyed = { at: performance.now(), written: this.#written }
    if (answer !== undefined) this.#publish(answer)
    this.#wake()
    const seconds = (this.#surveyed.at - before.at) / 1000
    const rate = (this.#written - before.written) / seconds
    if (this.#tenants.size > 0) this.#schedule(this.#delay(rate + Math.max(0, this.#fall.perSecond)))
  }

  #publish({ size }: Space): void {
    if (size !== this.#size) this.#fall.forget()
    this.#size = size
    this.#fall.sample(this.#free, performance.now())
    const [block, at] = [this.#block, this.#at]
    this.#publishDemand()
    block[at + FREE] = this.#free
    block[at + SIZE] = size
    block[at + UNTIL_FULL] = this.#fall.secondsUntil(this.#free)
    block[at + LOOKED] = Date.now()
  }

  #publishDemand(): void {
    let mayTake = 0
    for (const tenant of this.#tenants) mayTake += tenant.mayTake
    this.#block[this.#at + MAY_TAKE] = mayTake
  }

  get #highestReserve(): number {
    return Math.max(0, ...[...this.#tenants].map(({ reserve }) => reserve))
  }

  get #held(): boolean {
    for (const { held } of this.#tenants) if (held > 0) return true
    return false
  }

  /** Space that appears is news for all who wait: whether it is enough they find out themselves. */
  #wake(): void {
    if (!this.#held) {
      this.#watching = false
      this.#lowest = undefined
      return
    }
    const appeared = this.#lowest !== undefined && this.#free > this.#lowest
    this.#lowest = appeared ? this.#free : Math.min(this.#free, this.#lowest ?? this.#free)
    if (appeared) for (const tenant of this.#tenants) tenant.release()
  }

  /** `rate`: bytes per second that may be vanishing. Asked twice before what is above the reserve could be gone. */
  #delay(rate: number): number {
    if (this.#held) return WATCH_MS
    const reserve = this.#highestReserve
    const above = this.#free - reserve
    if (reserve === 0 || above <= 0 || rate <= 0) return SURVEY_MS
    return Math.min(SURVEY_MS, Math.max(PRESSED_MS, (above / rate / 2) * 1000))
  }

  #schedule(delayMs: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#survey(), delayMs)
    this.#timer.unref()
  }
}
