// Which I/O thread an export lives in. Law: as long as the bound allows, no thread serves two devices, so that storage
// which stalls keeps nobody waiting but its own exports.
import { availableParallelism } from 'node:os'
import type { IoHost } from './io-host.js'

interface Seat {
  readonly host: IoHost
  /** How many exports of each device (st_dev). */
  readonly devices: Map<number, number>
  exports: number
}

export class Placement {
  readonly #make: () => IoHost
  readonly #threadsMax: number
  readonly #seats: Seat[] = []

  /** `make` starts one more thread; there are never more than `threadsMax`. */
  constructor(make: () => IoHost, threadsMax: number) {
    this.#make = make
    this.#threadsMax = threadsMax
  }

  get hosts(): readonly IoHost[] {
    return this.#seats.map(({ host }) => host)
  }

  /** The host for one more export of a device (st_dev), and whether it has to share with other devices. */
  place(device: number): { readonly host: IoHost; readonly shared: boolean } {
    const seat = this.#seatFor(device)
    seat.devices.set(device, (seat.devices.get(device) ?? 0) + 1)
    seat.exports += 1
    return { host: seat.host, shared: seat.devices.size > 1 }
  }

  /** An export has left its host. */
  leave(host: IoHost, device: number): void {
    const seat = this.#seats.find((each) => each.host === host)
    if (seat === undefined) return
    const left = (seat.devices.get(device) ?? 0) - 1
    if (left > 0) seat.devices.set(device, left)
    else seat.devices.delete(device)
    seat.exports -= 1
  }

  #seatFor(device: number): Seat {
    const own = this.#seats.filter(({ devices }) => devices.has(device))
    const room = this.#seats.length < this.#threadsMax
    const empty = this.#seats.find(({ exports }) => exports === 0)
    // Exports of one device spread over the processors: a thread per export beyond them would only cost memory.
    if ((room || empty) && own.length < availableParallelism()) return empty ?? this.#added()
    return least(own.length > 0 ? own : this.#seats)
  }

  #added(): Seat {
    const seat = { host: this.#make(), devices: new Map<number, number>(), exports: 0 }
    this.#seats.push(seat)
    return seat
  }
}

function least(seats: readonly Seat[]): Seat {
  const [first, ...others] = seats
  if (first === undefined) throw new TypeError('there is no thread to choose from')
  return others.reduce((best, seat) => (seat.exports < best.exports ? seat : best), first)
}
