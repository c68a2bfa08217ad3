// When a front-end hears that the disk has another size. Law: only while its device is started, and not amid what it says:
// told before, QEMU up to 7.1 ends and later ones make nothing of it; amid, QEMU 6.0 to 7.2.1 mistakes one answer for another.
// A front-end that comes again has not asked for the size, and may know another one.
import type { BlockDevice } from './device.js'

/** Silence of a front-end that has said all that starting its device takes. */
const QUIET_MS = 500

export interface SizeNewsOptions {
  readonly device: Pick<BlockDevice, 'size' | 'sizeTold'>
  readonly isStarted: () => boolean
  /** The front-end waits for an answer: its silence is none. */
  readonly isBusy: () => boolean
  readonly tell: () => void
}

export class SizeNews {
  readonly #options: SizeNewsOptions
  #timer: NodeJS.Timeout | undefined

  constructor(options: SizeNewsOptions) {
    this.#options = options
  }

  /** The size has changed, or the device was started. */
  due(): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#tell(), QUIET_MS)
  }

  /** The front-end has said something. */
  heard(): void {
    if (this.#timer !== undefined) this.due()
  }

  end(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #tell(): void {
    this.#timer = undefined
    const { device, isStarted, isBusy, tell } = this.#options
    if (isBusy()) return this.due()
    if (isStarted() && device.sizeTold !== device.size) tell()
  }
}
