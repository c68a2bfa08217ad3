// Says whether guests can run here, and prepares once per process what every boot shares.
// Law: a machine that lacks something is named with its reason, and in CI that is a failure, not a skipped test.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { buildInitramfs, GUEST_TOOLS } from './guest-initramfs.js'
import { obtainKernel } from './guest-kernel.js'
import { findTool } from './guest-tools.js'

export interface GuestParts {
  readonly kernelImage: string
  readonly initramfs: string
}

const REQUIRED_TOOLS = [
  'qemu-system-x86_64',
  'apt-cache',
  'apt-get',
  'dpkg',
  'ldd',
  'busybox',
  'debugfs',
  ...GUEST_TOOLS,
]
const CACHE = join(import.meta.dirname, '../../../.cache/guest')

let prepared: GuestParts | Error | undefined

/** The reason why guests cannot run here, or undefined if they can. The first call may download a kernel. */
export function guestRequirements(): string | undefined {
  const parts = prepareOnce()
  return parts instanceof Error ? parts.message : undefined
}

/** For the `skip` option of a test: in CI nothing is skipped, and the first boot then throws the reason. */
export function skipWithoutGuests(): string | false {
  if (process.env['CI'] === 'true') return false
  return guestRequirements() ?? false
}

export function guestParts(): GuestParts {
  const parts = prepareOnce()
  if (parts instanceof Error) throw new Error(`no guest can run here: ${parts.message}`)
  return parts
}

function prepareOnce(): GuestParts | Error {
  prepared ??= prepare()
  return prepared
}

function prepare(): GuestParts | Error {
  // The guest borrows the host's programs, so host and guest must be of one architecture.
  if (process.arch !== 'x64') return new Error(`the guest is an x86_64 machine, this host is ${process.arch}`)
  const missing = REQUIRED_TOOLS.filter((name) => findTool(name) === undefined)
  if (missing.length > 0) return new Error(`not installed: ${missing.join(', ')}`)
  try {
    mkdirSync(CACHE, { recursive: true })
    const kernel = obtainKernel(CACHE)
    return { kernelImage: kernel.image, initramfs: buildInitramfs(CACHE, kernel) }
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error))
  }
}
