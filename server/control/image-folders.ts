// The folders of a server, each with its images. Law: they are looked at only while the server is the one that serves.
import type { Config } from '../config.js'
import { folderExport } from '../config-added.js'
import { ImageFolder, type ImageFolderOptions } from './image-folder.js'

export interface ImageFoldersOptions extends Pick<ImageFolderOptions, 'desk' | 'directory' | 'sessionsOf' | 'log'> {
  /** The words that the server goes by now. */
  readonly config: () => Config
}

export class ImageFolders {
  readonly #options: ImageFoldersOptions
  readonly #folders: ImageFolder[] = []

  constructor(options: ImageFoldersOptions) {
    this.#options = options
  }

  /** Serves what is in the folders of the configuration, and follows them. @throws OpenError */
  async open(): Promise<void> {
    const { config, ...others } = this.#options
    const imagesMax = config().limits.folderImagesMax
    const configOf = (name: string, image: string) => folderExport(config(), name, image)
    for (const path of config().folders) {
      const folder = new ImageFolder({ ...others, path, imagesMax, configOf })
      this.#folders.push(folder)
      await folder.start()
    }
  }

  /** What is served of them. */
  get images(): { readonly name: string; readonly path: string }[] {
    return this.#folders.flatMap((folder) => folder.images)
  }

  /** Tries again what has failed, and what an operator has removed. */
  forgive(): void {
    for (const folder of this.#folders) void folder.forgive()
  }

  close(): void {
    for (const folder of this.#folders) folder.close()
  }
}
