// Writes a cpio archive of the "newc" kind, which is what Linux unpacks as its initramfs.
// Law: the same entries give the same bytes, so that an archive can be named by its content.

export interface ArchiveEntry {
  /** Without a leading slash. */
  readonly path: string
  readonly kind: 'file' | 'folder' | 'link'
  /** The file's bytes, or the link's target. Empty for a folder. */
  readonly content: Buffer
}

const MODES = { file: 0o100755, folder: 0o040755, link: 0o120777 } as const
const MAGIC = '070701'
const TRAILER: ArchiveEntry = { path: 'TRAILER!!!', kind: 'file', content: Buffer.alloc(0) }

/** Adds the folders above each entry, once and before it, because the kernel creates none by itself. */
export function encodeArchive(entries: readonly ArchiveEntry[]): Buffer {
  const withFolders = new Map<string, ArchiveEntry>()
  for (const entry of entries) {
    for (const path of foldersAbove(entry.path)) {
      if (!withFolders.has(path)) withFolders.set(path, { path, kind: 'folder', content: Buffer.alloc(0) })
    }
    withFolders.set(entry.path, entry)
  }
  const all = [...withFolders.values(), TRAILER]
  return Buffer.concat(all.flatMap((entry, index) => encodeEntry(entry, index + 1)))
}

function foldersAbove(path: string): string[] {
  const names = path.split('/').slice(0, -1)
  return names.map((_, index) => names.slice(0, index + 1).join('/'))
}

function encodeEntry(entry: ArchiveEntry, inode: number): Buffer[] {
  const name = Buffer.from(`${entry.path}\0`)
  // inode, mode, uid, gid, links, mtime, size, device (major, minor), rdev (major, minor), length of the name, check sum
  const fields = [inode, MODES[entry.kind], 0, 0, 1, 0, entry.content.length, 0, 0, 0, 0, name.length, 0]
  const header = Buffer.from(MAGIC + fields.map((field) => field.toString(16).padStart(8, '0')).join(''))
  return [header, name, paddingAfter(header.length + name.length), entry.content, paddingAfter(entry.content.length)]
}

function paddingAfter(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4)
}
