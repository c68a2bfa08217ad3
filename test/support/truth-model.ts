// What a disk that may fail must hold: for each sector the values that it may have, by what clients were told. Law: it
// knows nothing of the server but its replies, so that a byte the server lost cannot be explained away.
export const SECTOR_BYTES = 256
const WORDS = SECTOR_BYTES / 4
/** Any value at all: the operator said that the disk is good as it is. */
const ANYTHING = -1

export type Kind = 'read' | 'write' | 'zero' | 'trim' | 'sync'

/** A request on its way, over the sectors [first, end). */
export interface Flight {
  readonly sequence: number
  readonly connection: number
  readonly kind: Kind
  readonly first: number
  readonly end: number
  /** The word that a change puts everywhere. */
  readonly value: number
  /** Changes that were on their way at the same time, here or there. */
  readonly rivals: Set<Flight>
  /** What a reader may find, sector by sector; grows while it is on its way. */
  readonly allowed: (readonly number[])[]
  /** Sectors of a reader that changed, or may have, while it was on its way. */
  readonly moved: Set<number>
}

/** One possible last change of a sector. */
interface Candidate {
  readonly value: number
  readonly by: Flight | undefined
  /** It was answered with success, so that what came before it on its connection cannot come after. */
  readonly sure: boolean
}

export class TruthModel {
  readonly sectors: number
  readonly #settled: Candidate[][]
  /** The same without their origin; an array is never changed, for readers hold on to it. */
  readonly #values: (readonly number[])[]
  readonly #flights = new Set<Flight>()
  #sequence = 0
  /** Words that were compared, and sectors of which only one value was allowed. */
  compared = 0
  certain = 0

  constructor(size: number) {
    this.sectors = size / SECTOR_BYTES
    this.#settled = Array.from({ length: this.sectors }, () => [{ value: 0, by: undefined, sure: true }])
    this.#values = Array.from({ length: this.sectors }, () => [0])
  }

  /** A request is about to be sent; a change brings its own value. */
  depart(connection: number, kind: Kind, first: number, count: number): Flight {
    this.#sequence += 1
    const reads = kind === 'read' || kind === 'sync'
    const flight: Flight = {
      sequence: this.#sequence,
      connection,
      kind,
      first,
      end: first + count,
      value: kind === 'write' ? this.#sequence : 0,
      rivals: new Set(),
      allowed: reads ? this.#values.slice(first, first + count) : [],
      moved: new Set(),
    }
    for (const other of this.#flights) this.#meet(flight, other)
    this.#flights.add(flight)
    return flight
  }

  #put(sector: number, candidates: Candidate[]): void {
    this.#settled[sector] = candidates
    this.#values[sector] = [...new Set(candidates.map(({ value }) => value))]
  }

  #meet(one: Flight, other: Flight): void {
    if (one.first >= other.end || other.first >= one.end) return
    const [reader, change] = one.allowed.length > 0 ? [one, other] : [other, one]
    if (reader.allowed.length === 0) {
      one.rivals.add(other)
      other.rivals.add(one)
    } else if (change.allowed.length === 0) {
      for (let at = Math.max(reader.first, change.first); at < Math.min(reader.end, change.end); at++) {
        allow(reader, at, change.value)
      }
    }
  }

  /** It was answered. A change that failed may have landed in part; so may one whose connection was lost, by then. */
  arrive(flight: Flight, succeeded: boolean): void {
    this.#flights.delete(flight)
    if (flight.allowed.length > 0) return
    for (let at = flight.first; at < flight.end; at++) this.#settle(at, flight, succeeded)
  }

  #settle(sector: number, flight: Flight, succeeded: boolean): void {
    const before = this.#settled[sector] ?? []
    const own = { value: flight.value, by: flight, sure: succeeded && flight.kind !== 'trim' }
    // A trim may leave what was there; a failure may have changed nothing.
    if (!own.sure) {
      return this.#put(sector, [...before, own])
    }
    const rivals = before.filter(({ by }) => by !== undefined && flight.rivals.has(by))
    const isLater = ({ by }: Candidate) => by?.connection === flight.connection && by.sequence > flight.sequence
    const isEarlier = ({ by }: Candidate) => by?.connection === flight.connection && by.sequence < flight.sequence
    const still = rivals.filter((candidate) => !isEarlier(candidate))
    const overtaken = still.some((candidate) => candidate.sure && isLater(candidate))
    this.#put(sector, overtaken ? still : [...still, own])
  }

  /** Changes of a sector that were sent and not answered yet. */
  changesAt(sector: number): number {
    let changes = 0
    for (const { first, end, allowed } of this.#flights) {
      if (allowed.length === 0 && first <= sector && sector < end) changes += 1
    }
    return changes
  }

  /** The operator said that these sectors are good, whatever they hold. */
  anythingGoes(first: number, end: number): void {
    for (let at = first; at < end; at++) {
      this.#put(at, [{ value: ANYTHING, by: undefined, sure: true }])
      for (const flight of this.#flights) {
        if (flight.allowed.length > 0 && flight.first <= at && at < flight.end) allow(flight, at, ANYTHING)
      }
    }
  }

  /** What a reader found that nobody can have written last; undefined when all is well. */
  contradiction(flight: Flight, found: Uint8Array): string | undefined {
    const words = new Uint32Array(found.slice().buffer)
    for (let at = 0; at < words.length; at++) {
      const sector = Math.floor(at / WORDS)
      const told = this.#refuted(flight, sector, words[at] ?? 0)
      if (told !== undefined) return told
    }
    return undefined
  }

  /** A run that is called zero has to be able to read as zeroes. */
  zeroContradiction(flight: Flight, firstByte: number, endByte: number): string | undefined {
    const end = Math.min(flight.end - flight.first, Math.ceil(endByte / SECTOR_BYTES))
    for (let at = Math.floor(firstByte / SECTOR_BYTES); at < end; at++) {
      const told = this.#refuted(flight, at, 0)
      if (told !== undefined) return told
    }
    return undefined
  }

  #refuted({ first, allowed, sequence, kind }: Flight, index: number, word: number): string | undefined {
    const values = allowed[index] ?? []
    this.compared += 1
    if (values.length === 1) this.certain += 1
    if (values.includes(word) || values.includes(ANYTHING)) return undefined
    const offset = (first + index) * SECTOR_BYTES
    return `${kind} #${sequence} found #${word} at ${offset}; it may be ${values.map((value) => `#${value}`)}`
  }

  /** After a good sync: the first sector that stands still and is not on stable storage, unless it is known as lost. */
  undurable(flight: Flight, stable: Uint8Array, knownAsLost: (offset: number) => boolean): string | undefined {
    const words = new Uint32Array(stable.slice().buffer)
    for (let at = flight.first; at < flight.end; at++) {
      if (flight.moved.has(at) || knownAsLost(at * SECTOR_BYTES)) continue
      const told = this.#refuted(flight, at - flight.first, words[at * WORDS] ?? 0)
      if (told !== undefined) return told
    }
    return undefined
  }
}

function allow(reader: Flight, sector: number, value: number): void {
  const at = sector - reader.first
  reader.allowed[at] = [...(reader.allowed[at] ?? []), value]
  reader.moved.add(sector)
}

/** After a good durable change: the first byte that nobody else was at, and that is not on stable storage. */
export function lostChange(flight: Flight, stable: Uint8Array): number | undefined {
  const words = new Uint32Array(stable.slice().buffer)
  const rivals = [...flight.rivals]
  for (let at = flight.first; at < flight.end; at++) {
    if (words[at * WORDS] === flight.value || rivals.some(({ first, end }) => first <= at && at < end)) continue
    return at * SECTOR_BYTES
  }
  return undefined
}

/** The bytes of a change: its own number in every word. */
export function bytesOf({ first, end, value }: Flight): Uint8Array {
  return new Uint8Array(new Uint32Array(((end - first) * SECTOR_BYTES) / 4).fill(value).buffer)
}
