// Whose image is whose. Law: an image has one writer, and no two that write share a record: each would forget what the
// other may have lost.
import { resolve } from 'node:path'
import { OpenError, type OpenedImage } from '../../backends/index.js'
import type { ExportConfig } from '../config.js'

export class ImageClaims {
  /** Exports that write, by the identity of their image. */
  readonly #writers = new Map<string, string>()

  /** @throws OpenError where another export writes to an image that nothing tells from this one */
  claim({ name, readOnly }: ExportConfig, { path, identity }: OpenedImage): void {
    if (readOnly) return
    const twin = this.#writers.get(identity)
    if (twin !== undefined) {
      throw new OpenError(
        `${path} cannot be told from the image of export '${twin}', as on a clone of its file system: give one of these a ` +
          'UUID of its own (tune2fs -U random, xfs_admin -U generate), or serve it with another --state-dir',
      )
    }
    this.#writers.set(identity, name)
  }

  /** An export is gone, or never came. */
  leave(name: string): void {
    for (const [identity, writer] of this.#writers) if (writer === name) this.#writers.delete(identity)
  }
}

/** Readers may share an image; a writer is alone. @throws OpenError */
export function refuseSharedImages(configs: readonly ExportConfig[]): void {
  const known = new Map<string, ExportConfig>()
  for (const config of configs) {
    const { name, path, readOnly } = config
    const other = known.get(resolve(path))
    if (other !== undefined && !(readOnly && other.readOnly)) {
      throw new OpenError(`${path} is to be served twice, as '${other.name}' and '${name}': leave one out`)
    }
    known.set(resolve(path), config)
  }
}
