// The rings of one session: what the front-end has said of each, and whether it runs ("Ring states"). Law: a ring that
// runs is one whose size, addresses and kick are known, and which nobody has disabled.
import type { RingSetup } from './orders.js'
import type { VringAddress, VringFile } from './payloads.js'
import { ProtocolError } from './protocol-error.js'

/** The largest ring of virtio 1.2 ("Virtqueues"). */
export const RING_SIZE_MAX = 32768

interface Ring {
  readonly index: number
  size: number
  base: number
  addresses: VringAddress | undefined
  kick: number | undefined
  call: number | undefined
  err: number | undefined
  /** A kick was given, or polling asked for: the ring is started. */
  started: boolean
  enabled: boolean
  running: boolean
}

export type RingFile = 'kick' | 'call' | 'err'

export class Rings {
  readonly #rings: Ring[]
  #discarded: number[] = []

  constructor(count: number) {
    this.#rings = Array.from({ length: count }, (_, index) => ({
      index,
      size: 0,
      base: 0,
      addresses: undefined,
      kick: undefined,
      call: undefined,
      err: undefined,
      started: false,
      enabled: false,
      running: false,
    }))
  }

  at(index: number): Readonly<Ring> {
    return this.#at(index)
  }

  #at(index: number): Ring {
    const ring = this.#rings[index]
    if (ring === undefined) throw new ProtocolError('bad-ring', `there is no ring ${index} of ${this.#rings.length}`)
    return ring
  }

  #stopped(index: number): Ring {
    const ring = this.#at(index)
    if (ring.running) throw new ProtocolError('out-of-turn', `ring ${index} is running and cannot be changed`)
    return ring
  }

  setSize(index: number, size: number, packed: boolean): void {
    const fits = size > 0 && size <= RING_SIZE_MAX && (packed || (size & (size - 1)) === 0)
    if (!fits) throw new ProtocolError('bad-ring', `ring ${index} cannot have ${size} entries`)
    this.#stopped(index).size = size
  }

  setBase(index: number, base: number): void {
    this.#stopped(index).base = base
  }

  /** A running ring may be told where it is, as front-ends do that only turn logging on. */
  setAddresses(addresses: VringAddress): void {
    const ring = this.#at(addresses.index)
    const before = ring.addresses
    const same =
      before?.descriptor === addresses.descriptor &&
      before.used === addresses.used &&
      before.available === addresses.available
    if (!same) this.#stopped(addresses.index)
    ring.addresses = addresses
  }

  setFile(which: RingFile, { index }: VringFile, descriptor: number | undefined): void {
    const ring = this.#at(index)
    this.#discard(ring[which])
    ring[which] = descriptor
    if (which === 'kick') ring.started = true
  }

  enable(index: number, enabled: boolean): void {
    this.#at(index).enabled = enabled
  }

  /** Without the protocol features there is no message to enable rings with: they begin enabled. */
  enableAll(): void {
    for (const ring of this.#rings) ring.enabled = true
  }

  /** What a ring needs to run; undefined while it may not, or does already. */
  due(index: number): RingSetup | undefined {
    const { size, base, addresses, kick, call, started, enabled, running } = this.#at(index)
    if (!started || !enabled || running) return undefined
    if (size === 0 || addresses === undefined) {
      throw new ProtocolError('out-of-turn', `ring ${index} was started before its size and addresses were told`)
    }
    return { index, size, base, addresses, kick, call }
  }

  /** Stops being due by itself: a ring that could not be started waits for another kick. */
  running(index: number, running: boolean): void {
    const ring = this.#at(index)
    ring.running = running
    if (!running) ring.started = false
  }

  paused(index: number, base: number): void {
    const ring = this.#at(index)
    ring.running = false
    ring.base = base
  }

  stopped(index: number): void {
    const ring = this.#at(index)
    ring.running = false
    ring.started = false
    this.#discard(ring.kick)
    ring.kick = undefined
  }

  /** "Disable all rings and reset all internal device state". */
  reset(): void {
    for (const { index } of this.#rings) {
      this.stopped(index)
      const ring = this.#at(index)
      Object.assign(ring, { size: 0, base: 0, addresses: undefined, enabled: false })
    }
  }

  get anyRunning(): boolean {
    return this.#rings.some(({ running }) => running)
  }

  #discard(descriptor: number | undefined): void {
    if (descriptor !== undefined) this.#discarded.push(descriptor)
  }

  /** Descriptors that were replaced since the last call. */
  takeDiscarded(): number[] {
    const discarded = this.#discarded
    this.#discarded = []
    return discarded
  }

  /** All that are left. */
  release(): number[] {
    for (const ring of this.#rings) {
      for (const which of ['kick', 'call', 'err'] as const) {
        this.#discard(ring[which])
        ring[which] = undefined
      }
    }
    return this.takeDiscarded()
  }
}
