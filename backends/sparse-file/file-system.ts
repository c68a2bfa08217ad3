// What we know of the file systems that images lie on: how I/O without waiting behaves there, and what an operator
// should be told. Magic numbers: statfs(2).

/** How to do I/O that must not stall the event loop. */
export interface FileSystemTraits {
  readonly name: string
  /** `nowait`: ask the page cache (RWF_NOWAIT). `inline`: all is memory. `wait`: always in the pool. */
  readonly reads: 'nowait' | 'inline' | 'wait'
  /** `inline`: into the page cache, timed. `wait`: always in the pool, since one write may take a network's time. */
  readonly writes: 'inline' | 'wait'
  /**
   * Whether splice(2) waits for nothing but pages: `free`, and `alone` where it waits for the inode's lock, which others hold who
   * are in the kernel with the image.
   */
  readonly splices?: 'free' | 'alone'
  /** statfs(2) counts data that wait for write-back as free. */
  readonly spaceLags?: boolean
  /** What is weaker here, as a sentence; undefined where nothing is. */
  readonly warning?: string
}

const NETWORK =
  'a server on the network may lose writes that it has acknowledged, and may report errors late or not at all'

function network(name: string): FileSystemTraits {
  return { name, reads: 'wait', writes: 'wait', warning: `the image lies on ${name}: ${NETWORK}` }
}

const KNOWN: Readonly<Record<number, FileSystemTraits>> = {
  61267: { name: 'ext4', reads: 'nowait', writes: 'inline', splices: 'free' },
  1481003842: { name: 'xfs', reads: 'nowait', writes: 'inline', splices: 'alone' },
  2435016766: { name: 'btrfs', reads: 'nowait', writes: 'inline', splices: 'free', spaceLags: true },
  16914836: { name: 'tmpfs', reads: 'inline', writes: 'inline' },
  2240043254: { name: 'ramfs', reads: 'inline', writes: 'inline' },
  26985: network('NFS'),
  20859: network('SMB'),
  4283649346: network('CIFS'),
  4266872130: network('SMB'),
  16914839: network('9p'),
  12805120: network('Ceph'),
  1702057286: {
    name: 'FUSE',
    reads: 'wait',
    writes: 'wait',
    warning: 'the image lies on FUSE: whether errors of write-back are reported depends on the program behind it',
  },
  2035054128: {
    name: 'overlayfs',
    reads: 'wait',
    writes: 'inline',
    warning:
      'the image lies on overlayfs, a container file system that may hide errors of write-back: put it on a volume',
  },
}

const OTHER: FileSystemTraits = { name: 'this file system', reads: 'nowait', writes: 'inline' }

/** Traits by statfs(2)'s f_type; unknown ones are asked like a disk's, and learnt about as they answer. */
export function fileSystemTraits(magic: number): FileSystemTraits {
  return KNOWN[magic] ?? OTHER
}

const SECTOR_BYTES = 512

/** What an operator should know of an image of this size on such a file system, a sentence each. */
export function warningsFor(traits: FileSystemTraits, size: number): string[] {
  const warnings = traits.warning === undefined ? [] : [traits.warning]
  return size % SECTOR_BYTES === 0 ? warnings : [...warnings, tailWarning(size)]
}

function tailWarning(size: number): string {
  const tail = size % SECTOR_BYTES
  return `the image's size, ${size} bytes, is no multiple of 512: Linux's nbd driver hides its last ${tail} bytes`
}
