// A guest and its front-end in one, for tests of whole sessions: real sockets, real shared memory, one ring. Law: it says
// and writes what a test tells it to, right or wrong, and looks for answers where a driver would.
import assert from 'node:assert/strict'
import { readSync, writeSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import {
  bits,
  decodeInflightArea,
  decodeVringState,
  encodeInflightArea,
  encodeMemoryTable,
  encodeMessage,
  encodeU64,
  encodeVringAddress,
  encodeVringFile,
  encodeVringState,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VHOST_USER_GET_FEATURES,
  VHOST_USER_GET_INFLIGHT_FD,
  VHOST_USER_GET_PROTOCOL_FEATURES,
  VHOST_USER_GET_VRING_BASE,
  VHOST_USER_SET_FEATURES,
  VHOST_USER_SET_INFLIGHT_FD,
  VHOST_USER_SET_MEM_TABLE,
  VHOST_USER_SET_OWNER,
  VHOST_USER_SET_PROTOCOL_FEATURES,
  VHOST_USER_SET_VRING_ADDR,
  VHOST_USER_SET_VRING_BASE,
  VHOST_USER_SET_VRING_CALL,
  VHOST_USER_SET_VRING_ENABLE,
  VHOST_USER_SET_VRING_KICK,
  VHOST_USER_SET_VRING_NUM,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from 'vhost-user-protocol'
import { type Descriptor, GUEST_BASE } from './vhost-guest.js'
import { cacheOf } from './vhost-user-cache.js'
import { Conversation, socketTo } from './vhost-user-conversation.js'
import {
  descriptorsOf,
  type GuestMachine,
  type Piece,
  RING_SIZE,
  type RingPlace,
  scattered,
} from './vhost-user-machine.js'

export const NEEDED = bits(VHOST_USER_F_PROTOCOL_FEATURES, VIRTIO_F_VERSION_1, VIRTIO_F_INDIRECT_DESC)
export const CACHED = bits(VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_CONFIG_WCE)
export const PACKED = bits(VIRTIO_F_RING_PACKED)

export interface Answer {
  readonly status: number
  readonly written: number
  readonly data: Buffer
}

interface Sent {
  readonly statusAt: number
  /** Where the data lie that the guest wants. */
  readonly wanted: readonly Piece[]
}

/** Pieces that the data of a request lies in. */
export type Shape = { readonly pieces?: number; readonly indirect?: boolean }

export class FrontEnd extends Conversation {
  readonly machine: GuestMachine
  readonly #answers = new Map<number, Answer>()
  readonly #sent = new Map<number, Sent>()

  constructor(machine: GuestMachine, fd: number) {
    super(fd)
    this.machine = machine
  }

  static async connect(path: string, machine: GuestMachine): Promise<FrontEnd> {
    return new FrontEnd(machine, await socketTo(path))
  }

  /** As far as a front-end gets before it starts rings. `features`: what the driver wants besides what it needs. */
  async agree(features: bigint): Promise<void> {
    const offered = await this.u64(VHOST_USER_GET_FEATURES)
    this.send(
      encodeMessage(VHOST_USER_SET_PROTOCOL_FEATURES, encodeU64(await this.u64(VHOST_USER_GET_PROTOCOL_FEATURES))),
    )
    await this.tell(VHOST_USER_SET_OWNER)
    await this.tell(VHOST_USER_SET_FEATURES, encodeU64((features | NEEDED) & offered))
    const { region } = this.machine.memory
    await this.tell(VHOST_USER_SET_MEM_TABLE, encodeMemoryTable([region]), [region.fd])
  }

  /** Hands over the log that the machine has, or asks for one: of fewer entries than the ring has, as QEMU's firmware does. */
  async useLog(): Promise<void> {
    const { machine } = this
    const wanted = { size: 0n, offset: 0n, queues: 1, queueSize: RING_SIZE / 2 }
    if (machine.inflight === undefined) {
      const { payload, descriptors } = await this.ask(VHOST_USER_GET_INFLIGHT_FD, encodeInflightArea(wanted))
      const [area, fd] = [decodeInflightArea(payload), descriptors[0]]
      assert.ok(area !== undefined && area.size > 0n && fd !== undefined)
      machine.inflight = { area, fd }
    }
    const { area, fd } = machine.inflight
    await this.tell(VHOST_USER_SET_INFLIGHT_FD, encodeInflightArea(area), [fd])
  }

  /** Another than the first ring may lie elsewhere in the same memory. */
  async startRing(base: number, index = 0, place: RingPlace = this.machine): Promise<void> {
    const { ring, kick, call } = place
    const file = encodeVringFile({ index, hasDescriptor: true })
    await this.tell(VHOST_USER_SET_VRING_NUM, encodeVringState({ index, num: ring.size }))
    await this.tell(VHOST_USER_SET_VRING_BASE, encodeVringState({ index, num: base }))
    const { descriptors: descriptor, driver: available, device: used } = ring
    await this.tell(
      VHOST_USER_SET_VRING_ADDR,
      encodeVringAddress({ index, flags: 0, descriptor, available, used, log: 0n }),
    )
    await this.tell(VHOST_USER_SET_VRING_KICK, file, [kick])
    await this.tell(VHOST_USER_SET_VRING_CALL, file, [call])
    await this.tell(VHOST_USER_SET_VRING_ENABLE, encodeVringState({ index, num: 1 }))
  }

  /** Where the ring stands once it is stopped. */
  async stopRing(index = 0): Promise<number> {
    const { payload } = await this.ask(VHOST_USER_GET_VRING_BASE, encodeVringState({ index, num: 0 }))
    return decodeVringState(payload)?.num ?? assert.fail('the base cannot be read')
  }

  /** Puts a request into the ring and kicks; `data` is what the driver hands over, `wants` how much it wants. */
  submit(type: number, sector: number, data: Uint8Array, wants: number, shape: Shape = {}): number {
    const { memory, ring } = this.machine
    const header = memory.allocate(16)
    const bytes = Buffer.alloc(16)
    bytes.writeUInt32LE(type)
    bytes.writeBigUInt64LE(BigInt(sector), 8)
    memory.write(header, bytes)
    const given = scattered(memory, data.length, shape.pieces ?? 1)
    const wanted = scattered(memory, wants, shape.pieces ?? 1)
    let written = 0
    for (const { at, length } of given) {
      memory.write(at, data.subarray(written, written + length))
      written += length
    }
    const statusAt = memory.allocate(1)
    memory.write(statusAt, Uint8Array.of(0xff))
    const chain: Descriptor[] = [{ address: GUEST_BASE + BigInt(header), length: 16, writable: false }]
    chain.push(...descriptorsOf(given, false), ...descriptorsOf(wanted, true))
    chain.push({ address: GUEST_BASE + BigInt(statusAt), length: 1, writable: true })
    const id = ring.add(chain, shape.indirect ?? false)
    this.#sent.set(id, { statusAt, wanted })
    this.kick()
    return id
  }

  kick(): void {
    writeSync(this.machine.kick, BigUint64Array.of(1n))
  }

  /** Requests that were answered since they were last asked for. */
  #collect(): void {
    const { memory, ring, call } = this.machine
    try {
      readSync(call, new Uint8Array(8))
    } catch {
      // EAGAIN: nobody called, and a driver may look all the same.
    }
    for (const { id, written } of ring.used()) {
      const sent = this.#sent.get(id)
      assert.ok(sent !== undefined, `request ${id} was answered, which nobody waits for`)
      this.#sent.delete(id)
      const status = memory.read(sent.statusAt, 1).readUInt8()
      const data = Buffer.concat(sent.wanted.map(({ at, length }) => memory.read(at, length)))
      this.#answers.set(id, { status, written, data })
    }
  }

  isAnswered(id: number): boolean {
    this.#collect()
    return this.#answers.has(id)
  }

  /** The answer, when it comes. */
  async answer(id: number): Promise<Answer> {
    while (!this.isAnswered(id)) {
      assert.ok(!this.ended, `the session ended instead of an answer to request ${id}`)
      await pause(1)
    }
    const answer = this.#answers.get(id)
    this.#answers.delete(id)
    return answer ?? assert.fail()
  }

  /** The ring and memory of an earlier session, with what it had sent and not been told. */
  inherit(earlier: FrontEnd): void {
    for (const [id, sent] of earlier.#sent) this.#sent.set(id, sent)
  }

  do(type: number, sector: number, data: Uint8Array, wants: number, shape?: Shape): Promise<Answer> {
    return this.answer(this.submit(type, sector, data, wants, shape))
  }
}

/** A session that serves, from the beginning. */
export async function attachGuest(
  path: string,
  machine: GuestMachine,
  features: bigint,
  { base = machine.ring.packed ? 0x8000_8000 : 0, log = true, asks = true } = {},
): Promise<FrontEnd> {
  const frontEnd = await FrontEnd.connect(path, machine)
  await frontEnd.agree(machine.ring.packed ? features | PACKED : features)
  // As QEMU does when its device is made, and not when it comes again.
  if (asks && log && machine.inflight === undefined) await cacheOf(frontEnd)
  if (log) await frontEnd.useLog()
  await frontEnd.startRing(base)
  return frontEnd
}
