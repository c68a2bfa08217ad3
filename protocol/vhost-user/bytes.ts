// The few ways in which this package touches bytes. The spec's numbers are the machine's own; those that candor runs on
// are little-endian, as virtio's are everywhere.

export const LITTLE = true

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** `length` bytes that `write` fills in. */
export function written(length: number, write: (view: DataView) => void): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length)
  write(viewOf(bytes))
  return bytes
}
