// A disk in memory behind a queue, as small as one can be: what a guest wrote is what it reads.
import { EventEmitter, once } from 'node:events'
import { closeSync, readSync, writeSync } from 'node:fs'
import {
  eventFd,
  type QueueOptions,
  REQUEST_ID,
  REQUEST_IN_LENGTH,
  REQUEST_OUT_LENGTH,
  REQUEST_SECTOR,
  REQUEST_TYPE,
  REQUEST_WORDS,
  VhostQueue,
} from '../../backends/index.js'
import type { RingDriver } from './vhost-drivers.js'
import { type Descriptor, GUEST_BASE, type GuestMemory } from './vhost-guest.js'

export const BLK_IN = 0
export const BLK_OUT = 1
const SECTOR = 512

export interface Taken {
  readonly id: number
  readonly type: number
  readonly sector: number
  readonly out: number
  readonly in: number
}

/** What `openDisk` was to do otherwise than it does. */
export interface DiskWishes {
  readonly queue?: Partial<QueueOptions>
  /** Requests stay out until the test completes them. */
  readonly keep?: boolean
  readonly content?: Buffer
}

export class RamDisk extends EventEmitter {
  readonly queue: VhostQueue
  readonly guest: GuestMemory
  readonly ring: RingDriver
  readonly kick = eventFd()
  readonly call = eventFd()
  readonly content: Buffer
  readonly taken: Taken[] = []
  readonly batches: number[] = []
  broken: string | undefined
  #keep: boolean

  constructor(guest: GuestMemory, ring: RingDriver, wishes: DiskWishes = {}) {
    super()
    this.guest = guest
    this.ring = ring
    this.content = wishes.content ?? Buffer.alloc(1 << 20)
    this.#keep = wishes.keep ?? false
    const { size, packed, descriptors, driver, device } = ring
    const queue = VhostQueue.open(
      {
        memory: guest.memory,
        size,
        packed,
        eventIdx: false,
        indirect: true,
        descriptors,
        driver,
        device,
        base: packed ? 0x8000_8000 : 0,
        kick: this.kick,
        call: this.call,
        requestsMax: size,
        ...wishes.queue,
      },
      {
        requests: (count) => this.#requests(count),
        broken: (reason) => {
          this.broken = reason
          this.emit('event')
        },
      },
    )
    if (typeof queue === 'number') throw Object.assign(new Error(`no queue: errno ${queue}`), { errno: queue })
    this.queue = queue
  }

  #requests(count: number): void {
    this.batches.push(count)
    for (let entry = 0; entry < count; entry++) {
      const word = (index: number) => this.queue.table[entry * REQUEST_WORDS + index] ?? 0
      const request = {
        id: word(REQUEST_ID),
        type: word(REQUEST_TYPE),
        sector: word(REQUEST_SECTOR),
        out: word(REQUEST_OUT_LENGTH),
        in: word(REQUEST_IN_LENGTH),
      }
      this.taken.push(request)
      if (!this.#keep) this.serve(request)
    }
    if (!this.#keep) this.queue.notify()
    this.emit('event')
  }

  serve({ id, type, sector, out, in: wanted }: Taken): void {
    const at = sector * SECTOR
    let errno = at + out + wanted > this.content.length ? 5 : 0
    if (errno === 0 && type === BLK_OUT) errno = this.queue.gather(id, this.content, at, out, 0)
    if (errno === 0 && type === BLK_IN) errno = this.queue.scatter(id, this.content, at, wanted, 0)
    this.queue.complete(id, errno === 0 ? 0 : 1, errno === 0 ? wanted : 0)
  }

  /** As a driver signals. */
  kickNow(): void {
    const one = Buffer.alloc(8)
    one.writeBigUInt64LE(1n)
    writeSync(this.kick, one)
  }

  /** How often the call was signalled since this was asked last. */
  calls(): number {
    const times = Buffer.alloc(8)
    try {
      readSync(this.call, times)
    } catch {
      return 0
    }
    return Number(times.readBigUInt64LE())
  }

  async until(reached: () => boolean): Promise<void> {
    while (!reached()) await once(this, 'event')
  }

  close(): void {
    this.queue.close()
    closeSync(this.kick)
    closeSync(this.call)
  }
}

/** A chain: header, data in pieces, status. The status byte is 0xff until it is written. */
export function blockRequest(
  guest: GuestMemory,
  type: number,
  sector: number,
  pieces: readonly number[],
): { readonly chain: Descriptor[]; readonly data: readonly number[]; readonly status: number } {
  const header = guest.allocate(16)
  const bytes = Buffer.alloc(16)
  bytes.writeUInt32LE(type)
  bytes.writeBigUInt64LE(BigInt(sector), 8)
  guest.write(header, bytes)
  // Apart, so that no two of them are one piece of memory.
  const data = pieces.map((length) => guest.allocate(length + 1, 64))
  const status = guest.allocate(1, 64)
  guest.write(status, Uint8Array.of(0xff))
  const part = (at: number, length: number, writable: boolean) => ({
    address: GUEST_BASE + BigInt(at),
    length,
    writable,
  })
  const chain = [
    part(header, 16, false),
    ...data.map((at, index) => part(at, pieces[index] ?? 0, type === BLK_IN)),
    part(status, 1, true),
  ]
  return { chain, data, status }
}
