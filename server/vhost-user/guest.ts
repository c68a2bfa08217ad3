// The guest behind a session: its memory, its rings and the log of what they have in flight; here a session's orders are
// carried out. Law: no ring runs before storage has let go of what an earlier session of the same export left behind.
import {
  DONE,
  type MappedRegion,
  type Order,
  type Result,
  type RingSetup,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
} from 'vhost-user-protocol'
import { closeForeign, errnoName, type RegionName, VhostMemory } from '../../backends/index.js'
import { Patience } from '../exports/patience.js'
import { Copies } from './copies.js'
import type { BlockDevice } from './device.js'
import { InflightLog, QUEUE_SIZE_MAX } from './inflight-log.js'
import { Ring } from './ring.js'
import { emptyCache } from './write-cache.js'

export interface GuestLimits {
  /** Requests of a ring that may be out at once; more are not read. */
  readonly slowRequestsMax: number
  /** Bytes that the requests of all rings may hold in copies; past them the next ones wait. */
  readonly slowBytesMax: number
}

export interface GuestOptions {
  readonly device: BlockDevice
  readonly client: string
  readonly limits: GuestLimits
  readonly before: Promise<unknown>
  readonly onBroken: (index: number, reason: string) => void
  readonly onChannel: (descriptor: number) => void
  /** The first of the rings runs: the device is started. */
  readonly onStarted: () => void
}

function refused(reason: string): Result {
  return { kind: 'refused', reason }
}

export class Guest {
  readonly #options: GuestOptions
  readonly #memory = new VhostMemory()
  readonly #patience = new Patience()
  readonly #copies: Copies
  readonly #rings = new Map<number, Ring>()
  #regions: RegionName[] = []
  #log: InflightLog | undefined
  #settledBefore = false
  #draining = false
  #gone = false

  constructor(options: GuestOptions) {
    this.#options = options
    this.#copies = new Copies(options.limits.slowBytesMax)
    void options.before.then(() => {
      this.#settledBefore = true
    })
  }

  get inFlight(): number {
    let requests = 0
    for (const ring of this.#rings.values()) requests += ring.inFlight
    return requests
  }

  /** A ring runs: the driver uses its device. */
  get isStarted(): boolean {
    return this.#rings.size > 0
  }

  carryOut(order: Order): Result | Promise<Result> {
    const { device, onChannel } = this.#options
    switch (order.do) {
      case 'agree':
        device.agree(order.features)
        return DONE
      case 'map':
        return this.#map(order.regions)
      case 'add-region':
        return this.#add(order.region)
      case 'remove-region':
        return this.#remove(order.region)
      case 'start-ring':
        return this.#settledBefore ? this.#start(order.ring) : this.#startAfter(order.ring)
      case 'stop-ring':
        return this.#stop(order.index)
      case 'set-call':
        return told(this.#rings.get(order.index)?.setCall(order.call ?? -1) ?? 0)
      case 'set-kick':
        return order.kick === undefined ? POLLING : told(this.#rings.get(order.index)?.setKick(order.kick) ?? 0)
      case 'write-config':
        return this.#writeConfig(order.offset, order.data)
      case 'make-inflight':
        return this.#makeLog(order.queues, order.queueSize)
      case 'take-inflight':
        return this.#takeLog(InflightLog.take(order.descriptor, order.area, this.#packed))
      case 'take-channel':
        onChannel(order.descriptor)
        return DONE
      case 'reset':
        return this.#reset()
    }
  }

  get #packed(): boolean {
    return this.#options.device.has(VIRTIO_F_RING_PACKED)
  }

  #map(regions: readonly MappedRegion[]): Result {
    for (const region of this.#regions.splice(0)) this.#memory.remove(region)
    const results = regions.map((region) => this.#add(region))
    return results.find(({ kind }) => kind === 'refused') ?? DONE
  }

  #add(region: MappedRegion): Result {
    const errno = this.#memory.add({ ...region, fd: region.descriptor })
    closeForeign(region.descriptor)
    if (errno !== 0) return refused(`${region.size} bytes of guest memory cannot be mapped: ${errnoName(errno)}`)
    this.#regions.push(region)
    return DONE
  }

  #remove(region: RegionName): Result {
    const isIt = (known: RegionName) =>
      known.guestAddress === region.guestAddress &&
      known.userAddress === region.userAddress &&
      known.size === region.size
    this.#regions = this.#regions.filter((known) => !isIt(known))
    return told(this.#memory.remove(region))
  }

  async #startAfter(setup: RingSetup): Promise<Result> {
    await this.#options.before
    return this.#gone ? refused('the session has ended') : this.#start(setup)
  }

  #start({ index, size, base, addresses, kick, call }: RingSetup): Result {
    if (kick === undefined) return POLLING
    if (this.#draining) return refused('the server leaves')
    const { device, client, limits, onBroken, onStarted } = this.#options
    const [memory, patience, copies] = [this.#memory, this.#patience, this.#copies]
    const { descriptor: descriptors, available: driver, used } = addresses
    const inflight = this.#log?.regionOf(index)
    if (inflight !== undefined && size > QUEUE_SIZE_MAX) {
      return refused(`ring ${index} has ${size} entries, and an in-flight log has room for ${QUEUE_SIZE_MAX}`)
    }
    const onRingBroken = (reason: string) => onBroken(index, reason)
    const remembers = inflight !== undefined
    const ring = Ring.open(
      { device, memory, patience, copies, client, remembers, onBroken: onRingBroken },
      {
        ...{ size, base, descriptors, driver, kick, inflight },
        device: used,
        call: call ?? -1,
        packed: this.#packed,
        eventIdx: device.has(VIRTIO_F_EVENT_IDX),
        indirect: device.has(VIRTIO_F_INDIRECT_DESC),
        requestsMax: Math.min(size, limits.slowRequestsMax),
      },
    )
    if (typeof ring === 'number') return refused(`ring ${index} cannot be served: ${errnoName(ring)}`)
    this.#rings.set(index, ring)
    if (this.#rings.size === 1) onStarted()
    return DONE
  }

  async #stop(index: number): Promise<Result> {
    const ring = this.#rings.get(index)
    if (ring === undefined) return { kind: 'base', base: 0 }
    const base = await ring.stop()
    this.#rings.delete(index)
    return { kind: 'base', base }
  }

  async #reset(): Promise<Result> {
    await Promise.all([...this.#rings.values()].map((ring) => ring.stop()))
    this.#rings.clear()
    // What was held is dropped, and its descriptors are of a table that the driver makes anew.
    return this.#log === undefined || this.#log.clear() ? DONE : refused(UNWRITABLE)
  }

  #writeConfig(offset: number, data: Uint8Array): Result | Promise<Result> {
    const { device, client } = this.#options
    if (!device.write(offset, data)) {
      return refused(`${data.length} bytes at ${offset} of the configuration space cannot be written`)
    }
    if (this.#log?.noteCache(device.writeback) === false) return refused(UNWRITABLE)
    // Also where it was off before: what an earlier session was answered, or a flush that failed, may have left something.
    return device.writeback ? DONE : emptyCache(device.served, client)
  }

  #makeLog(queues: number, queueSize: number): Result {
    const log = InflightLog.make(queues, queueSize, this.#packed)
    if (typeof log === 'string') return refused(log)
    const { device } = this.#options
    // A front-end keeps the driver's word over a reset that frees its log, and asks for the next one with it in mind: only
    // one that asked us what the cache is has no other.
    device.knowsCache ||= device.hasToldCache
    const kept = this.#keepLog(log)
    if (kept !== DONE) return kept
    return { kind: 'area', size: log.area.size, offset: log.area.offset, descriptor: log.fd }
  }

  #takeLog(log: InflightLog | string): Result {
    if (typeof log === 'string') return refused(log)
    const { device } = this.#options
    if (log.cacheWasOff) device.writeback = false
    device.knowsCache = true
    return this.#keepLog(log)
  }

  #keepLog(log: InflightLog): Result {
    this.#log?.close()
    this.#log = log
    const { writeback, knowsCache } = this.#options.device
    return log.noteCache(writeback && knowsCache) ? DONE : refused(UNWRITABLE)
  }

  drain(): void {
    this.#draining = true
    for (const ring of this.#rings.values()) void ring.stop()
  }

  /** The session has ended. Resolves when nothing touches the guest's memory any more. */
  async leave(): Promise<void> {
    this.#gone = true
    this.#patience.end()
    const rings = [...this.#rings.values()]
    await Promise.all(rings.map((ring) => ring.lost()))
    this.#log?.close()
    this.#memory.close()
  }
}

const UNWRITABLE = 'the in-flight log cannot be written'
const POLLING = refused('a ring without a kick would have to be polled, which is not done here')

function told(errno: number): Result {
  return errno === 0 ? DONE : refused(errnoName(errno))
}
