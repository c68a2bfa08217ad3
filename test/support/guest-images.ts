// What the tests with guests know about disk images on the host's side: content that host and guest can both tell, and
// a look into an image that needs neither root nor a mount.
import { execFileSync } from 'node:child_process'
import { createCipheriv, createHash } from 'node:crypto'
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { requireTool } from './guest-tools.js'

/** The part of node:test's context that is used here. */
export interface TestScope {
  after(cleanUp: () => unknown): void
}

const MIB = 2 ** 20

/** A folder that goes away with the test. */
export function scratchFolder(scope: TestScope): string {
  const folder = mkdtempSync(join(tmpdir(), 'candor-images-'))
  scope.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** Bytes that look random, so that nothing can compress or deduplicate them, and are the same in every run. */
export function patternBytes(length: number): Buffer {
  return createCipheriv('aes-128-ctr', Buffer.alloc(16), Buffer.alloc(16)).update(Buffer.alloc(length))
}

/** QEMU's arguments for a read-only disk of these bytes, by which a guest gets content that the host knows. */
export function patternDrive(scope: TestScope, content: Buffer): string[] {
  const path = join(scratchFolder(scope), 'pattern')
  writeFileSync(path, content)
  return ['-drive', `if=virtio,format=raw,readonly=on,file=${path}`]
}

export function sha256(content: Buffer | string): string {
  return createHash('sha256').update(content).digest('hex')
}

export function sha256OfFile(path: string): string {
  const hash = createHash('sha256')
  const piece = Buffer.alloc(4 * MIB)
  const descriptor = openSync(path, 'r')
  for (let read = 1; read > 0; ) {
    read = readSync(descriptor, piece)
    hash.update(piece.subarray(0, read))
  }
  closeSync(descriptor)
  return hash.digest('hex')
}

export function allocatedMiB(path: string): number {
  return (statSync(path).blocks * 512) / MIB
}

/** Throws with e2fsck's findings if the file system at the start of the image has any fault. Changes nothing. */
export function checkFileSystem(image: string): void {
  execFileSync(requireTool('e2fsck'), ['-f', '-n', image], { stdio: 'pipe' })
}

/** The regular files below a folder of the image's file system: path below that folder -> sha256 of the content. */
export function filesInside(scope: TestScope, image: string, folder: string): Record<string, string> {
  const copy = scratchFolder(scope)
  execFileSync(requireTool('debugfs'), ['-R', `rdump ${folder} ${copy}`, image], { stdio: 'pipe' })
  const entries = readdirSync(copy, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  const paths = entries.map((entry) => join(entry.parentPath, entry.name))
  const root = join(copy, folder)
  return Object.fromEntries(paths.map((path) => [path.slice(root.length + 1), sha256(readFileSync(path))]))
}
