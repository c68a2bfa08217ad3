// Obtains Debian's cloud kernel for the guest: downloaded and unpacked into a cache, never installed.
// Law: a folder in the cache is whole, because it gets its final name only when everything is in it.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'

export interface GuestKernel {
  /** The path of the compressed kernel. */
  readonly image: string
  /** The folder with the modules, named after the kernel's release. */
  readonly modules: string
}

const META_PACKAGE = 'linux-image-cloud-amd64'

/** Takes the kernel that apt would install today; without apt's answer the newest one in the cache serves as well. */
export function obtainKernel(cache: string): GuestKernel {
  mkdirSync(cache, { recursive: true })
  const candidate = findCandidate()
  const folder = candidate === undefined ? newestCached(cache) : join(cache, `${candidate.name}_${candidate.version}`)
  if (folder === undefined) throw new Error(`apt knows no ${META_PACKAGE} (has apt-get update been run?)`)
  if (candidate !== undefined && !existsSync(folder)) unpack(candidate, folder)
  return readKernel(folder)
}

interface Candidate {
  readonly name: string
  readonly version: string
}

function findCandidate(): Candidate | undefined {
  const name = /Depends: (linux-image-\S+)/.exec(askApt('depends', META_PACKAGE))?.[1]
  if (name === undefined) return undefined
  const version = /Candidate: (\d\S*)/.exec(askApt('policy', name))?.[1]
  return version === undefined ? undefined : { name, version }
}

function askApt(question: string, name: string): string {
  try {
    const env = { ...process.env, LC_ALL: 'C' }
    return execFileSync('apt-cache', [question, name], { encoding: 'utf8', env, stdio: ['ignore', 'pipe', 'ignore'] })
  } catch {
    // No apt, or no such package: both mean that apt has nothing to offer.
    return ''
  }
}

function newestCached(cache: string): string | undefined {
  const kernels = readdirSync(cache).filter((name) => name.startsWith('linux-image-'))
  const folders = kernels.map((name) => join(cache, name))
  return folders.sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)[0]
}

function unpack(candidate: Candidate, folder: string): void {
  const scratch = mkdtempSync(join(folder, '..', 'unpacking-'))
  try {
    const packageName = `${candidate.name}=${candidate.version}`
    // apt's warning that it downloads as root into a folder of ours says nothing new; a failure still carries stderr.
    execFileSync('apt-get', ['-q', 'download', packageName], { cwd: scratch, stdio: 'pipe' })
    const archive = readdirSync(scratch).find((name) => name.endsWith('.deb'))
    if (archive === undefined) throw new Error(`apt-get download ${packageName} left no file`)
    execFileSync('dpkg', ['-x', archive, 'tree'], { cwd: scratch, stdio: 'pipe' })
    moveUnlessThere(join(scratch, 'tree'), folder)
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

/** Two test processes may unpack the same kernel at the same time: the first one's folder stays. */
function moveUnlessThere(tree: string, folder: string): void {
  try {
    renameSync(tree, folder)
  } catch (error) {
    if (!existsSync(folder)) throw error
  }
}

function readKernel(folder: string): GuestKernel {
  const boot = join(folder, 'boot')
  const image = readdirSync(boot).find((name) => name.startsWith('vmlinuz-'))
  if (image === undefined) throw new Error(`${boot} holds no kernel`)
  // Newer Debian releases ship the modules in /usr/lib, older ones in /lib.
  const library = ['lib/modules', 'usr/lib/modules'].map((path) => join(folder, path)).find((path) => existsSync(path))
  if (library === undefined) throw new Error(`${folder} holds no modules`)
  return { image: join(boot, image), modules: join(library, image.slice('vmlinuz-'.length)) }
}
