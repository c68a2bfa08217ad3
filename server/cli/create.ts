// `candor create`: makes a sparse image, and its name durable.
import { resolve } from 'node:path'
import { createImage } from '../../backends/index.js'
import { parseSize, UsageError } from '../values.js'
import type { Command } from './command.js'
import { formatBytes } from './format.js'

interface CreateFlags {
  readonly image: string
  readonly size: string
}

async function run({ image, size }: CreateFlags): Promise<number> {
  const bytes = parseSize(size, 'SIZE')
  if (image.endsWith('/')) throw new UsageError(`${image} names a folder: write the name of the image itself`)
  createImage(resolve(image), bytes)
  process.stdout.write(`${image}: ${formatBytes(bytes)}, sparse\n`)
  return 0
}

export const create: Command<CreateFlags> = {
  words: 'create <image> <size>',
  describe: 'make a sparse disk image',
  flags: (yargs) =>
    yargs
      .positional('image', { describe: 'the file to make; it must not exist', type: 'string' })
      .positional('size', { describe: 'bytes, or 64K, 10M, 1G, 2T', type: 'string' })
      .example('$0 create disk.img 10G', 'ten GiB that take no space until they are written'),
  run,
}
