// The space of an image's file system: where it is mounted, what it has left, what a write would take of it. Law: what
// is asked of storage is asked in the pool, since statfs waits as long as storage hangs.
import { readFileSync } from 'node:fs'
import type { BackingSpace, Space } from '../backend.js'
import { IO_ALLOCATES, IO_FLAG_SETTLE, IO_SPACE, IO_SPACE_NUMBERS } from '../native/file-io.js'
import { DONE } from '../outcome.js'
import type { HeldImage } from './held-image.js'

const BLOCK_BYTES_USUAL = 4096
const BLOCK_BYTES_MIN = 512
const BLOCK_BYTES_MAX = 64 << 10

/** proc_pid_mountinfo(5) writes spaces and backslashes as octal numbers. */
function plainPath(escaped: string): string {
  return escaped.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
}

/** The file system that a file lies on. */
export interface Place {
  /** Its number as mountinfo writes it, `8:1`: the same for all images on it. */
  readonly device: string
  /** Where it is mounted; empty where this process cannot see that. */
  readonly mount: string
}

/** Finds the mount of an open file; of a mount that this process cannot see only the device's number is known. */
export function placeOf(fd: number, device: number): Place {
  const id = /^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1]
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n')
  const [, , number, , mount] = lines.find((line) => line.startsWith(`${id} `))?.split(' ') ?? []
  return { device: number ?? String(device), mount: plainPath(mount ?? '') }
}

/** The space of an image; while it is let go of, nobody says anything. */
export function imageSpace(image: HeldImage, lags: boolean): BackingSpace {
  let block = BLOCK_BYTES_USUAL
  const look = async (settle: boolean): Promise<Space | undefined> => {
    if (image.fd < 0) return undefined
    const numbers = new Float64Array(IO_SPACE_NUMBERS)
    const bytes = new Uint8Array(numbers.buffer)
    const outcome = await image.run(IO_SPACE, settle ? IO_FLAG_SETTLE : 0, bytes, 0, 0, 0)
    if (outcome !== DONE) return undefined
    const [free = 0, size = 0, allocated = 0, unit = 0] = numbers
    // Network file systems tell the size of a transfer in its place.
    block = Math.min(BLOCK_BYTES_MAX, Math.max(BLOCK_BYTES_MIN, unit))
    return { free, size, allocated }
  }
  const allocates = async (offset: number, length: number): Promise<number> => {
    const answer = new Float64Array(1)
    const bytes = new Uint8Array(answer.buffer)
    const outcome = await image.run(IO_ALLOCATES, block, bytes, 0, length, offset)
    return outcome === DONE ? (answer[0] ?? length) : length
  }
  return { lags, look, allocates }
}
