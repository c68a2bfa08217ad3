// What an export must hold: a plain array of bytes, kept beside the real thing while many requests are in flight.
// Law: a byte is compared only while it cannot be two things. Changes that overlap on one connection go in order of
// arrival; of two that overlap on different connections either may win, until a later one settles it.

/** A request in flight over [start, end). */
export interface Flight {
  readonly sequence: number
  readonly connection: number
  readonly start: number
  readonly end: number
  /** Set for what changes the image: what it writes; undefined for zeroes. */
  readonly change: { readonly data: Uint8Array | undefined } | undefined
  /** Ranges that another connection was at, at the same time. */
  readonly contested: (readonly [start: number, end: number])[]
  /** What a read must find, as known when it was sent. */
  readonly expected: Uint8Array
  readonly known: Uint8Array
}

export class Model {
  readonly bytes: Uint8Array
  /** 1 where the byte is settled. */
  readonly known: Uint8Array
  /** The sequence of the change that each byte came from. */
  readonly #from: Uint32Array
  readonly #flights = new Set<Flight>()
  #sequence = 0
  /** Bytes that were compared so far. */
  compared = 0

  constructor(size: number) {
    this.bytes = new Uint8Array(size)
    this.known = new Uint8Array(size).fill(1)
    this.#from = new Uint32Array(size)
  }

  /** A request is about to be sent. */
  depart(connection: number, start: number, length: number, change: Flight['change']): Flight {
    const end = start + length
    this.#sequence += 1
    const flight: Flight = {
      sequence: this.#sequence,
      connection,
      start,
      end,
      change,
      contested: [],
      expected: this.bytes.slice(start, end),
      known: this.known.slice(start, end),
    }
    for (const other of this.#flights) {
      if (change === undefined && other.change === undefined) continue
      const shared = [Math.max(start, other.start), Math.min(end, other.end)] as const
      if (shared[0] >= shared[1]) continue
      const ordered = connection === other.connection && change !== undefined && other.change !== undefined
      if (ordered) continue
      flight.contested.push(shared)
      other.contested.push(shared)
    }
    this.#flights.add(flight)
    return flight
  }

  /** It was answered with success; what it changed is so from now on. */
  arrive(flight: Flight): void {
    this.#flights.delete(flight)
    const { change, start, end, sequence, contested } = flight
    if (change === undefined) return
    for (let at = start; at < end; at++) {
      if ((this.#from[at] ?? 0) > sequence) continue
      this.#from[at] = sequence
      this.bytes[at] = change.data?.[at - start] ?? 0
      this.known[at] = 1
    }
    for (const [from, to] of contested) this.known.fill(0, from, to)
  }

  /** It was refused, and changed nothing. */
  refused(flight: Flight): void {
    this.#flights.delete(flight)
  }

  /** The first place of a read at which it differs from what must be there; undefined when all is well. */
  difference(flight: Flight, found: Uint8Array): number | undefined {
    const mask = flight.known
    for (const [from, to] of flight.contested) mask.fill(0, from - flight.start, to - flight.start)
    for (let at = 0; at < mask.length; at++) {
      if (mask[at] === 0) continue
      this.compared += 1
      if (found[at] !== flight.expected[at]) return flight.start + at
    }
    return undefined
  }
}
