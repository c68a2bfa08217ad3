// Which files of a folder are images: raw ones, whole ones, those that nobody hides. Law: what is left out is left out for
// a reason that can be told.
import { open } from 'node:fs/promises'

export interface FileStatus {
  readonly ino: number
  readonly dev: number
  readonly size: number
  readonly mtimeMs: number
  isFile(): boolean
  isDirectory(): boolean
  isBlockDevice(): boolean
}

export function isSameFile(one: FileStatus, other: FileStatus): boolean {
  return one.ino === other.ino && one.dev === other.dev
}

const HEAD_BYTES = 72
/** Names under which copies are made, before they get their own. */
const UNFINISHED = /(?:\.(?:part|partial|tmp|temp|swp|crdownload|filepart)|~)$/i

const latin = (text: string) => Buffer.from(text, 'latin1')

/** Formats that are no raw images: bytes, and where they stand. */
const FORMATS: readonly (readonly [format: string, at: number, bytes: Buffer])[] = [
  ['qcow2', 0, latin('QFI\xfb')],
  ['QED', 0, latin('QED\0')],
  ['VMDK', 0, latin('KDMV')],
  ['VMDK', 0, latin('# Disk Descriptor')],
  ['VHDX', 0, latin('vhdxfile')],
  ['VHD', 0, latin('conectix')],
  ['VDI', 64, latin('\x7f\x10\xda\xbe')],
  ['gzip', 0, latin('\x1f\x8b\x08')],
  ['xz', 0, latin('\xfd7zXZ\0')],
  ['zstd', 0, latin('\x28\xb5\x2f\xfd')],
  ['zip', 0, latin('PK\x03\x04')],
]

async function formatOf(path: string): Promise<string | undefined> {
  const file = await open(path, 'r')
  try {
    const head = Buffer.alloc(HEAD_BYTES)
    await file.read(head, 0, HEAD_BYTES, 0)
    return FORMATS.find(([, at, bytes]) => head.subarray(at, at + bytes.length).equals(bytes))?.[0]
  } finally {
    await file.close()
  }
}

/** Why a file is left out; undefined for an image. */
export async function unfitness(name: string, path: string, status: FileStatus): Promise<string | undefined> {
  if (name.startsWith('.')) return 'a hidden file'
  if (status.isDirectory()) return 'a folder'
  if (!status.isFile() && !status.isBlockDevice()) return 'neither a file nor a block device'
  if (name.includes('=')) return "a name with '=', which no export may have"
  if (UNFINISHED.test(name)) return 'a name of files that are not whole'
  if (status.isFile() && status.size === 0) return 'an empty file'
  try {
    const format = await formatOf(path)
    return format === undefined ? undefined : `no raw image, but ${format}: convert it, or name it on the command line`
  } catch (error) {
    return `a file that cannot be read (${(error as NodeJS.ErrnoException).code})`
  }
}
