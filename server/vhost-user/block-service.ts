// What is done with one request of a ring. Law: each ends with OK, IOERR or UNSUPP, by what storage said, and OK means that
// the data are where the guest looks for them; or it stays unanswered, where the next server will find it.
import { commandIndex, NBD_CMD_FLUSH, NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES } from 'nbd-protocol'
import {
  DISCARD_SEGMENT_BYTES,
  type DiscardSegment,
  decodeDiscardSegments,
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_SECTOR_BYTES,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
} from 'vhost-user-protocol'
import {
  DONE,
  EFAULT,
  EINVAL,
  type IoData,
  type Outcome,
  type VhostMemory,
  type VhostQueue,
  WOULD_BLOCK,
  ZERO_PUNCH,
} from '../../backends/index.js'
import type { KeptTask, RequestRunner, Task } from '../exports/request-runner.js'
import { count, VHOST_USER_REQUESTS_AT } from '../observe/counters.js'
import { type BlockRequest, commandOf, refusalOfData, refusalOfSegment } from './block-request.js'
import { type BlockDevice, DISCARD_SEGMENTS_MAX } from './device.js'
import { Pieces, type Placed } from './pieces.js'

const UNKNOWN_COMMAND = 0xffff
const NO_DATA: Placed<Uint8Array> = { buffer: new Uint8Array(0), start: 0 }

/** The ring that the requests came from. */
export interface Desk {
  /** Answers a request, if anybody still looks for answers. */
  complete(id: number, status: number, written: number): void
  /** Counts work that goes on after this turn; `bytes` are what it holds in copies. */
  wait(bytes: number, work: Promise<void>): void
}

type Where = Pick<Task, 'command' | 'offset' | 'length' | 'mode' | 'durable'>

const NOTHING_BUT_FLUSH: Where = { command: NBD_CMD_FLUSH, offset: 0, length: 0, mode: 0, durable: true }

/** Always of one shape, field by field: spread out of two objects it would cost the engine a shape of its own each time. */
function taskAt<Data extends IoData>(where: Where, { buffer, start }: Placed<Data>): Task<Data> {
  const { command, offset, length, mode, durable } = where
  return { command, offset, length, mode, durable, buffer, start }
}

export class BlockService {
  readonly #device: BlockDevice
  readonly #runner: RequestRunner
  readonly #queue: VhostQueue
  readonly #pieces: Pieces
  readonly #desk: Desk

  constructor(device: BlockDevice, runner: RequestRunner, memory: VhostMemory, queue: VhostQueue, desk: Desk) {
    this.#device = device
    this.#runner = runner
    this.#queue = queue
    this.#pieces = new Pieces(memory, queue, device.served.backend.can.vectors === true)
    this.#desk = desk
  }

  /** Serves one request, within a batch of the runner; returns the bytes of data that it is about. */
  take(request: BlockRequest): number {
    const command = commandOf(request.type)
    count(this.#device.served.counters, VHOST_USER_REQUESTS_AT + commandIndex(command ?? UNKNOWN_COMMAND))
    if (command === NBD_CMD_READ) return this.#transfer(request, command, request.inLength)
    if (command === NBD_CMD_WRITE) return this.#transfer(request, command, request.outLength)
    if (command === NBD_CMD_FLUSH) this.#serve(request, this.#task(command, 0, 0, NO_DATA))
    else if (command !== undefined) this.#takeSegments(request, command)
    else this.#takeOther(request)
    return 0
  }

  #fail(id: number): void {
    this.#desk.complete(id, VIRTIO_BLK_S_IOERR, 0)
  }

  #refuse({ id }: BlockRequest, command: number, errno: number, offset: number, length: number): void {
    this.#runner.refuse(command, errno, offset, length)
    this.#fail(id)
  }

  #takeOther({ id, type, inLength }: BlockRequest): void {
    if (type !== VIRTIO_BLK_T_GET_ID) return this.#desk.complete(id, VIRTIO_BLK_S_UNSUPP, 0)
    const name = this.#device.id
    const length = Math.min(inLength, name.length)
    if (this.#queue.scatter(id, name, 0, length, 0) !== 0) return this.#fail(id)
    this.#desk.complete(id, VIRTIO_BLK_S_OK, length)
  }

  #task(command: number, offset: number, length: number, data: Placed, mode = 0): Task {
    const durable = command !== NBD_CMD_READ && this.#device.isDurable
    return taskAt({ command, offset, length, mode, durable }, data)
  }

  #transfer(request: BlockRequest, command: number, length: number): number {
    const { offset } = request
    const refusal = refusalOfData(command, offset, length, this.#device)
    if (refusal !== DONE) {
      this.#refuse(request, command, refusal, offset, length)
      return 0
    }
    const data = command === NBD_CMD_READ ? this.#pieces.forRead(request) : this.#pieces.forWrite(request)
    if (data === undefined) this.#refuse(request, command, EFAULT, offset, length)
    else this.#serve(request, this.#task(command, offset, length, data))
    return length
  }

  /** Now, or later with data that last. */
  #serve(request: BlockRequest, task: Task): void {
    const outcome = this.#runner.now(task)
    if (outcome !== WOULD_BLOCK) return this.#answer(request, task, outcome)
    const kept = this.#kept(request, task)
    if (kept === undefined) return this.#refuse(request, task.command, EFAULT, task.offset, task.length)
    this.#desk.wait(this.#pieces.isCopy(request, kept) ? task.length : 0, this.#serveLater(request, taskAt(task, kept)))
  }

  #kept(request: BlockRequest, task: Task): Placed<Uint8Array> | undefined {
    if (task.command === NBD_CMD_READ) return this.#pieces.keptRead(task, task.length)
    return task.command === NBD_CMD_WRITE ? this.#pieces.keptWrite(request, task.length) : NO_DATA
  }

  /** A change that began before the cache was turned off, and ends after it, is durable too when it is answered. */
  async #later(task: KeptTask): Promise<Outcome | undefined> {
    const outcome = await this.#runner.later(task)
    const isCached = !task.durable && task.command !== NBD_CMD_READ && task.command !== NBD_CMD_FLUSH
    if (outcome !== DONE || !isCached || !this.#device.isDurable) return outcome
    return this.#runner.later(taskAt(NOTHING_BUT_FLUSH, NO_DATA))
  }

  async #serveLater(request: BlockRequest, task: KeptTask): Promise<void> {
    const outcome = await this.#later(task)
    if (outcome !== undefined) this.#answer(request, task, outcome)
  }

  #answer(request: BlockRequest, task: Task, outcome: Outcome): void {
    if (outcome !== DONE) return this.#fail(request.id)
    if (task.command !== NBD_CMD_READ) return this.#desk.complete(request.id, VIRTIO_BLK_S_OK, 0)
    if (task.length > 0 && !this.#pieces.deliver(request, task)) return this.#fail(request.id)
    this.#desk.complete(request.id, VIRTIO_BLK_S_OK, task.length)
  }

  #takeSegments(request: BlockRequest, command: number): void {
    const segments = this.#segmentsOf(request)
    if (segments === undefined) return this.#refuse(request, command, EINVAL, request.offset, 0)
    const known = command === NBD_CMD_WRITE_ZEROES ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0
    // Flags that are not known, or not for this command, are unsupported rather than wrong ("Device Operation").
    if (segments.some(({ flags }) => (flags & ~known) !== 0)) {
      return this.#desk.complete(request.id, VIRTIO_BLK_S_UNSUPP, 0)
    }
    for (const segment of segments) {
      const refusal = refusalOfSegment(segment, this.#device)
      if (refusal !== DONE) return this.#refuse(request, command, refusal, ...bytesOf(segment))
    }
    this.#desk.wait(0, this.#serveSegments(request, command, segments))
  }

  #segmentsOf({ id, outLength }: BlockRequest): DiscardSegment[] | undefined {
    if (outLength > DISCARD_SEGMENTS_MAX * DISCARD_SEGMENT_BYTES) return undefined
    const bytes = new Uint8Array(outLength)
    if (this.#queue.gather(id, bytes, 0, outLength, 0) !== 0) return undefined
    return decodeDiscardSegments(new DataView(bytes.buffer), 0, outLength)
  }

  async #serveSegments({ id }: BlockRequest, command: number, segments: readonly DiscardSegment[]): Promise<void> {
    for (const segment of segments) {
      const [offset, length] = bytesOf(segment)
      if (length === 0) continue
      const mode = (segment.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) === 0 ? 0 : ZERO_PUNCH
      const where = { command, offset, length, mode, durable: this.#device.isDurable }
      const outcome = await this.#later(taskAt(where, NO_DATA))
      if (outcome === undefined) return
      if (outcome !== DONE) return this.#fail(id)
    }
    this.#desk.complete(id, VIRTIO_BLK_S_OK, 0)
  }
}

function bytesOf({ sector, sectors }: DiscardSegment): [offset: number, length: number] {
  return [sector * VIRTIO_BLK_SECTOR_BYTES, sectors * VIRTIO_BLK_SECTOR_BYTES]
}
