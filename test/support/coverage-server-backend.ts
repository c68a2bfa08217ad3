// Memory with a temper, so that every answer of a backend is met with: at once, later, never for writing, or an error.
import { type Backend, type Outcome, WOULD_BLOCK } from '../../backends/index.js'

export const SIZE = 1 << 18
const EIO = 5
/** Where `sour` memory fails. */
const SOUR_START = SIZE / 4
const SOUR_END = SOUR_START + 4096

/** All of them let requests of the second half wait; `read-only` ones also cannot change, `sour` ones fail in a block. */
export type Temper = 'late' | 'read-only' | 'sour'

type Transfer = (bytes: Uint8Array, start: number, length: number, offset: number, durable: boolean) => unknown

export function moody(memory: Backend, temper: Temper): Backend {
  const sour = (offset: number, length: number) =>
    temper === 'sour' && offset < SOUR_END && offset + length > SOUR_START ? EIO : undefined
  const late = (offset: number, length: number): Outcome | undefined =>
    offset + length > SIZE / 2 ? WOULD_BLOCK : sour(offset, length)
  const now = (transfer: Transfer): Transfer => {
    return (bytes, start, length, offset, durable) =>
      late(offset, length) ?? transfer.call(memory, bytes, start, length, offset, durable)
  }
  const ranged = (work: Backend['trim']): Backend['trim'] => {
    return async (offset, length, durable) => sour(offset, length) ?? work.call(memory, offset, length, durable)
  }
  const changed: Readonly<Record<PropertyKey, unknown>> = {
    can: { ...memory.can, ...(temper === 'read-only' && { write: false, trim: false, fastZero: false }) },
    readNow: now(memory.readNow),
    writeNow: now(memory.writeNow),
    write: async (...[bytes, start, length, offset, durable]: Parameters<Backend['write']>) =>
      sour(offset, length) ?? memory.write(bytes, start, length, offset, durable),
    trim: ranged(memory.trim),
    readSparse: async (...[headroom, length, offset]: Parameters<Backend['readSparse']>) =>
      sour(offset, length) ?? memory.readSparse(headroom, length, offset),
    extents: async (...[offset, length, limit]: Parameters<Backend['extents']>) =>
      (offset === SOUR_START ? sour(offset, length) : undefined) ?? memory.extents(offset, length, limit),
  }
  return new Proxy(memory, {
    get: (target, key) => {
      if (key in changed) return changed[key]
      const value: unknown = Reflect.get(target, key, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}
