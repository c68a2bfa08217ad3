// The image while it is open: its descriptors, and who is in the kernel with them. Law: one open file description for
// all; it is let go of or changed only when nobody is in the kernel with it, and what comes meanwhile waits.
import { closeSync, openSync } from 'node:fs'
import { type Condition, OpenError } from '../backend.js'
import { EBUSY, EIO, EOPNOTSUPP } from '../errno.js'
import { fileIo, IO_FLUSH, IO_SAME_FILE, IO_TRUNCATE, IO_WRITE_BACK } from '../native/file-io.js'
import type { IoEngine } from '../native/io-engine.js'
import { type IoPool, poolForDevice } from '../native/io-pool.js'
import { DONE, errnoOf, type Outcome, SHUT_DOWN, SYNC_FAILED } from '../outcome.js'
import { deviceBytes } from './device-size.js'
import { type Gate, newGate } from './gate.js'
import type { OpenedImage } from './open-image.js'
import { type KnownWriteBack, WriteBack } from './write-back.js'

/** How long `release` waits for what is in the kernel; a file system that gave up answers at once. */
export const RELEASE_PATIENCE_MS = 3000

/** Opens the image at the same path again, and locks it. @throws OpenError */
export type Reopen = (image: { readonly path: string; readonly readOnly: boolean }) => Promise<OpenedImage>

export interface HoldingOptions {
  readonly writable: boolean
  readonly engine: IoEngine
  readonly reopen: Reopen
}

/** An image that another process holds, and how it stands: descriptors share their open file descriptions. */
export interface KnownImage {
  /** Negative: it was let go of. */
  readonly fd: number
  readonly witnessFd: number
  /** The outcome of the sync that went before letting go. */
  readonly lastSync: Outcome
  readonly writeBack: KnownWriteBack
  /** The magic number of statfs(2): of what was let go of it cannot be asked. */
  readonly fileSystem: number
}

export class HeldImage {
  /** With the NUL that system calls want; null for block devices, which are known by their number alone. */
  readonly path: Uint8Array | null
  readonly identity: string
  /** Of an image that is being let go of nothing is begun: it is synced, and what waits at the gate would wait for an operator. */
  readonly writeBack = new WriteBack(async (at, length) =>
    this.#gate === undefined ? this.run(IO_WRITE_BACK, 0, null, 0, length, at) : DONE,
  )
  readonly #engine: IoEngine
  readonly #name: string
  readonly #writable: boolean
  readonly #reopen: Reopen
  readonly #deviceNumber: number
  #size: number
  readonly #status = new Float64Array(2)
  #condition: Condition
  #fd: number
  /** A second open file description, to ask whether write-back failed: the kernel tells each description once. */
  #witnessFd: number
  #pool: IoPool
  /** Operations that the kernel has, and that do not end in this turn. */
  inKernel = 0
  #whenIdle = () => {}
  #gate: Gate | undefined
  /** The outcome of the sync that went before letting go. */
  #lastSync: Outcome = DONE

  constructor(image: OpenedImage, { writable, engine, reopen }: HoldingOptions) {
    this.path = image.isBlockDevice ? null : new TextEncoder().encode(`${image.path}\0`)
    this.identity = image.identity
    this.#name = image.path
    this.#writable = writable
    this.#engine = engine
    this.#reopen = reopen
    this.#size = image.size
    this.#deviceNumber = image.device
    this.#condition = { present: image.size, unlinked: false }
    this.#fd = image.fd
    this.#pool = poolForDevice(image.device, engine)
    if (image.known === undefined) {
      this.#witnessFd = openSync(`/proc/self/fd/${image.fd}`, 'r')
      return
    }
    this.#witnessFd = image.known.witnessFd
    this.#lastSync = image.known.lastSync
    this.writeBack.goOn(image.known.writeBack)
    if (this.released) this.#gate = newGate()
  }

  /** For the process that takes over, while nothing is in the kernel but looks, and write-back is quiet. */
  get known(): Omit<KnownImage, 'fileSystem'> {
    const { known: writeBack } = this.writeBack
    return { fd: this.#fd, witnessFd: this.#witnessFd, lastSync: this.#lastSync, writeBack }
  }

  /** For calls that end in this turn; negative while they may not be made. */
  get fd(): number {
    return this.#gate === undefined ? this.#fd : -1
  }

  get released(): boolean {
    return this.#fd < 0
  }

  /** Runs one operation of io-ops.h in the pool, as soon as the image is held. */
  async run(
    kind: number,
    flags: number,
    bytes: Uint8Array | null,
    start: number,
    length: number,
    offset: number,
  ): Promise<Outcome> {
    while (this.#gate !== undefined) await this.#gate.opened
    if (this.#fd < 0) return SHUT_DOWN
    this.inKernel += 1
    try {
      return await this.#pool.run(kind, flags, this.#fd, bytes, start, length, offset)
    } finally {
      this.inKernel -= 1
      if (this.inKernel === 0) this.#whenIdle()
    }
  }

  /** fdatasync(2), and whether the path still leads here. */
  flush(): Promise<Outcome> {
    if (!this.#writable) return Promise.resolve(DONE)
    if (this.released) return Promise.resolve(this.#lastSync)
    const { path } = this
    return this.writeBack.around(() => this.run(IO_FLUSH, 0, path, 0, path?.length ?? 0, 0))
  }

  /** The witness hears all that our own description does but what was told to others before there was a witness. */
  probe(quick = false): Outcome {
    if (this.released) return DONE
    const witness = fileIo.probe(this.#witnessFd)
    if (quick && witness === DONE && !this.writeBack.hasFailed) return DONE
    return this.writeBack.probed(fileIo.probe(this.#fd), witness)
  }

  /** The last one while there is nothing to look at. */
  look(): Condition {
    if (this.path === null || this.fd < 0 || fileIo.lookAt(this.#fd, this.#status) !== 0) return this.#condition
    const [size = this.#size, links = 1] = this.#status
    this.#condition = { present: Math.min(size, this.#size), unlinked: links === 0 }
    return this.#condition
  }

  get size(): number {
    return this.#size
  }

  measure(): number {
    if (this.fd < 0) return this.#size
    if (this.path === null) return deviceBytes(this.#deviceNumber) ?? this.#size
    return fileIo.lookAt(this.#fd, this.#status) === 0 ? (this.#status[0] ?? this.#size) : this.#size
  }

  async resize(size: number): Promise<Outcome> {
    const before = this.#size
    // What is cut off on purpose is not missed by the next look.
    if (size < before) this.#size = size
    const isFixed = this.path === null || !this.#writable
    const cut = () => (isFixed ? EOPNOTSUPP : this.run(IO_TRUNCATE, 0, null, 0, size, 0))
    const outcome = size === this.measure() ? DONE : await cut()
    this.#size = outcome === DONE ? size : before
    if (outcome === DONE) this.#condition = { ...this.#condition, present: size }
    return outcome
  }

  async release(): Promise<Outcome> {
    if (this.#gate !== undefined) return this.released ? this.#lastSync : EBUSY
    this.#gate = newGate()
    if (!(await this.#idle())) {
      this.#openGate()
      return EBUSY
    }
    const outcome = this.#writable ? await this.#pool.run(IO_FLUSH, 0, this.#fd, null, 0, 0, 0) : DONE
    // Nobody can be asked any more once the descriptors are closed.
    const untold = this.probe()
    this.#lastSync = outcome === DONE && untold !== DONE ? untold | SYNC_FAILED : outcome
    // Nothing is begun on the image that comes back before a sync of it has succeeded.
    if (outcome !== DONE) this.writeBack.probed(errnoOf(outcome), DONE)
    this.#closeDescriptors()
    return this.#lastSync
  }

  /** False when the kernel keeps something for longer than we wait. */
  #idle(): Promise<boolean> {
    if (this.inKernel === 0) return Promise.resolve(true)
    return new Promise((settle) => {
      const timer = setTimeout(() => settle(false), RELEASE_PATIENCE_MS)
      this.#whenIdle = () => {
        clearTimeout(timer)
        settle(true)
      }
    })
  }

  async reopen(): Promise<Outcome> {
    if (!this.released && (await this.#leadsHere())) return DONE
    const next = await this.#reopen({ path: this.#name, readOnly: !this.#writable })
    const wasReleased = this.released
    try {
      if (next.identity !== this.identity) {
        throw new OpenError(`${this.#name} leads to another image than the one that is served: put that one back`)
      }
      if (!wasReleased && (await this.release()) === EBUSY) {
        throw new OpenError(`${this.#name} is on another mount, but the kernel still keeps requests to the old one`)
      }
    } catch (error) {
      closeSync(next.fd)
      throw error
    }
    this.#witnessFd = openSync(`/proc/self/fd/${next.fd}`, 'r')
    this.#fd = next.fd
    this.#pool = poolForDevice(next.device, this.#engine)
    this.#openGate()
    // Two mounts at a time know nothing of each other: what one of them synced, the other may have read before.
    return wasReleased ? DONE : EIO | SYNC_FAILED
  }

  async #leadsHere(): Promise<boolean> {
    const { path } = this
    return path === null || (await this.run(IO_SAME_FILE, 0, path, 0, path.length, 0)) === DONE
  }

  #openGate(): void {
    this.#gate?.open()
    this.#gate = undefined
  }

  #closeDescriptors(): void {
    this.writeBack.rest()
    if (this.#fd < 0) return
    closeSync(this.#witnessFd)
    closeSync(this.#fd)
    this.#fd = -1
    this.#witnessFd = -1
  }

  /** For good: what still waits is told that the server leaves. */
  close(): void {
    this.#closeDescriptors()
    this.#openGate()
  }
}
