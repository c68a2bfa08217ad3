// What a guest asks of an export without a ring in between: the code that both split and packed rings serve requests with,
// as a client that the models can tell to do anything.
import {
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  RequestError,
} from 'nbd-protocol'
import { DONE, WOULD_BLOCK, ZERO_PUNCH } from '../../backends/index.js'
import type { Export } from '../../server/exports/export.js'
import { type Audience, type KeptTask, RequestRunner, type Task } from '../../server/exports/request-runner.js'
import { hostSays, nbdErrorOf } from '../../server/nbd/nbd-errno.js'
import type { TruthPeer } from './truth-clients.js'

const FUA = 1
const NO_HOLE = 2
const NOTHING = { buffer: new Uint8Array(0), start: 0 }
/** Data lies anywhere in a guest's memory. */
const START = 7

export class GuestPeer implements TruthPeer, Audience {
  readonly negotiation = { replyStyle: 'simple' } as const
  readonly client = 'guest'
  readonly stopping = false
  readonly remembers = false
  gone = false
  readonly #served: Export
  readonly #runner: RequestRunner

  constructor(served: Export) {
    this.#served = served
    this.#runner = new RequestRunner(served, this)
  }

  async #do(command: number, name: string, task: Partial<KeptTask> & Pick<Task, 'offset' | 'length'>): Promise<void> {
    const whole = { durable: false, mode: 0, ...NOTHING, ...task, command }
    this.#runner.beginBatch()
    const now = this.#runner.now(whole)
    this.#runner.endBatch()
    const outcome = now === WOULD_BLOCK ? await this.#runner.later(whole) : now
    if (outcome === undefined || this.gone) throw new Error('nobody hears the answer')
    if (outcome !== DONE) throw new RequestError(name, nbdErrorOf(outcome), hostSays(command, outcome), undefined)
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const buffer = new Uint8Array(START + length)
    await this.#do(NBD_CMD_READ, 'read', { offset, length, buffer, start: START })
    return buffer.subarray(START)
  }

  async write(offset: number, data: Uint8Array, flags = 0): Promise<void> {
    const buffer = new Uint8Array(START + data.length)
    buffer.set(data, START)
    const { length } = data
    await this.#do(NBD_CMD_WRITE, 'write', { offset, length, buffer, start: START, durable: (flags & FUA) !== 0 })
  }

  async writeZeroes(offset: number, length: number, flags = 0): Promise<void> {
    const mode = (flags & NO_HOLE) === 0 ? ZERO_PUNCH : 0
    await this.#do(NBD_CMD_WRITE_ZEROES, 'write_zeroes', { offset, length, mode, durable: (flags & FUA) !== 0 })
  }

  async trim(offset: number, length: number, flags = 0): Promise<void> {
    await this.#do(NBD_CMD_TRIM, 'trim', { offset, length, durable: (flags & FUA) !== 0 })
  }

  async flush(): Promise<void> {
    await this.#do(NBD_CMD_FLUSH, 'flush', { offset: 0, length: 0 })
  }

  /** A guest has no word for it. */
  async cache(): Promise<void> {}

  async blockStatus(): Promise<never> {
    throw new TypeError('a guest cannot ask where data lies')
  }

  async disconnect(): Promise<void> {
    await this.abandon()
  }

  async abandon(): Promise<void> {
    this.gone = true
    this.#served.space.dropUnwanted()
    this.#served.recess.dropUnwanted()
  }
}
