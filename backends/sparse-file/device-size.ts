// How long a block device is now: sysfs knows without asking the device, in whichever thread.
import { readFileSync } from 'node:fs'

const SECTOR_BYTES = 512

/** Bytes of a device by its number (st_rdev); undefined where sysfs is not to be seen. */
export function deviceBytes(device: number): number | undefined {
  const number = BigInt(device)
  const major = ((number >> 8n) & 0xfffn) | ((number >> 32n) & ~0xfffn)
  const minor = (number & 0xffn) | ((number >> 12n) & ~0xffn & 0xffffffffn)
  try {
    return Number(readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'utf8')) * SECTOR_BYTES
  } catch {
    return undefined
  }
}
