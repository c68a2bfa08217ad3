// The file systems under the exports, as the main thread knows them: who has which part of their blocks, and which could
// be outgrown. Thin provisioning is normal, and worth one line.
import type { OpenedImage } from '../../backends/index.js'
import {
  type BackingBlock,
  type BackingShare,
  backingBlock,
  FREE,
  lastLook,
  MAY_TAKE,
  overcommitOf,
  sumOf,
  takePart,
} from '../observe/backing-block.js'
import type { ObservedBacking } from '../observe/family.js'

/** Images named in a line; more are counted. */
const NAMES_MAX = 5

/** A file system that is too small for what its images may still take. */
export interface Outgrowing {
  readonly mount: string
  /** Exports, the first few; `and N more` stands for the others. */
  readonly exports: readonly string[]
  /** Bytes that the images may still take, and that are free. */
  readonly mayTake: number
  readonly free: number
}

interface Known {
  readonly device: string
  readonly mount: string
  readonly block: BackingBlock
  readonly parts: Map<object, number>
  exports: string[]
}

export class BackingDesk {
  readonly #known = new Map<string, Known>()
  readonly #deviceByExport = new Map<string, string>()

  /** The part that `host` has of the file system of one of its images; undefined where there is none. */
  shareFor(exportName: string, place: OpenedImage['place'], host: object): BackingShare | undefined {
    if (place === undefined) return undefined
    const { device, mount } = place
    const known: Known = this.#known.get(device) ?? {
      device,
      mount,
      block: backingBlock(),
      parts: new Map(),
      exports: [],
    }
    this.#known.set(device, known)
    known.exports.push(exportName)
    this.#deviceByExport.set(exportName, device)
    const at = known.parts.get(host) ?? takePart(known.block)
    known.parts.set(host, at)
    return { device, mount: known.mount, block: known.block, at }
  }

  /** An export was closed. */
  left(exportName: string): void {
    const device = this.#deviceByExport.get(exportName)
    const known = device === undefined ? undefined : this.#known.get(device)
    if (known !== undefined) known.exports = known.exports.filter((name) => name !== exportName)
    this.#deviceByExport.delete(exportName)
  }

  /** The file system of an export, by the name that `observed` gives it. */
  deviceOf(exportName: string): string | undefined {
    return this.#deviceByExport.get(exportName)
  }

  get #used(): Known[] {
    return [...this.#known.values()].filter(({ exports }) => exports.length > 0)
  }

  observed(): ObservedBacking[] {
    return this.#used.map(({ device, mount, block }) => ({ device, mount, block }))
  }

  outgrowing(): Outgrowing[] {
    return this.#used
      .filter(({ block }) => overcommitOf(block) > 0)
      .map(({ mount, device, exports, block }) => {
        const more = exports.length - NAMES_MAX
        const names = more > 0 ? [...exports.slice(0, NAMES_MAX), `and ${more} more`] : exports
        const [mayTake, free] = [sumOf(block, MAY_TAKE), lastLook(block)?.(FREE) ?? 0]
        return { mount: mount === '' ? `device ${device}` : mount, exports: names, mayTake, free }
      })
  }
}
