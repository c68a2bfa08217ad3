// Numbers as people read them.

const UNITS = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const

/** 1 GiB for 1073741824; up to two decimals, and plain bytes below 1 KiB. */
export function formatBytes(bytes: number): string {
  let value = bytes
  let unit = 'bytes'
  for (const larger of UNITS) {
    if (value < 1024) break
    value /= 1024
    unit = larger
  }
  return `${Number(value.toFixed(2))} ${unit}`
}

const SECTOR_BYTES = 512

/** The sectors that a range touches, as the guest's kernel numbers them. */
export function formatSectors(offset: number, length: number): string {
  return `sectors ${Math.floor(offset / SECTOR_BYTES)}-${Math.ceil((offset + length) / SECTOR_BYTES) - 1}`
}
