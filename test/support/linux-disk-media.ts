// What a LinuxDisk keeps its bytes in: memory, or a sparse file on the host. Law: both let a page be looked at and put
// back behind the backend's back, and both can be truncated.
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs'
import type { Backend } from '../../backends/backend.js'
import { DONE, EIO, isSyncFailure, type Outcome, openBackend } from '../../backends/index.js'
import { sparseFile } from './loop-disk.js'

const PAGE_BYTES = 4096

export interface Medium {
  readonly inner: Backend
  /** The page as a read would find it; zeroes past the end. */
  peek(page: number): Uint8Array
  /** Puts a page back, as far as the file still reaches. */
  poke(page: number, bytes: Uint8Array): void
  truncate(size: number): void
  close(): Promise<void>
}

/** Memory that can be truncated like a file: reads past its end fail, writes make it longer. */
export async function memoryMedium(size: number): Promise<Medium> {
  const memory = await openBackend('memory', { size })
  let present = size
  const reads: Pick<Backend, 'readNow' | 'read' | 'readSparse'> = {
    readNow: (...range) => (range[3] + range[2] > present ? EIO : memory.readNow(...range)),
    read: async (...range) => (range[3] + range[2] > present ? EIO : memory.read(...range)),
    readSparse: async (...range) => (range[2] + range[1] > present ? EIO : memory.readSparse(...range)),
  }
  const grown = (end: number) => {
    present = Math.max(present, end)
  }
  const changes: Pick<Backend, 'writeNow' | 'write' | 'zero' | 'look'> = {
    writeNow: (...range) => {
      grown(range[3] + range[2])
      return memory.writeNow(...range)
    },
    write: (...range) => {
      grown(range[3] + range[2])
      return memory.write(...range)
    },
    zero: (...range) => {
      grown(range[0] + range[1])
      return memory.zero(...range)
    },
    look: () => ({ present, unlinked: false }),
  }
  const inner = changed(memory, { ...reads, ...changes })
  const peek = (page: number) => {
    const bytes = new Uint8Array(PAGE_BYTES)
    memory.readNow(bytes, 0, PAGE_BYTES, page * PAGE_BYTES)
    return bytes
  }
  const poke = (page: number, bytes: Uint8Array) => {
    const length = Math.min(PAGE_BYTES, present - page * PAGE_BYTES)
    if (length <= 0) return
    // A page that storage never had is a hole again.
    if (bytes.every((byte) => byte === 0)) void memory.zero(page * PAGE_BYTES, length, 0, false)
    else memory.writeNow(bytes, 0, length, page * PAGE_BYTES)
  }
  const truncate = (to: number) => {
    present = to
    void memory.zero(to, size - to, 0, false)
  }
  return { inner, peek, poke, truncate, close: () => memory.close() }
}

/** A new sparse file at `path`, served by the real backend. */
export async function fileMedium(path: string, size: number): Promise<Medium> {
  const inner = await openBackend('sparse-file', { path: sparseFile(path, size), readOnly: false })
  const fd = openSync(path, 'r+')
  const peek = (page: number) => {
    const bytes = new Uint8Array(PAGE_BYTES)
    const found = readSync(fd, bytes, 0, PAGE_BYTES, page * PAGE_BYTES)
    return found === PAGE_BYTES ? bytes : bytes.fill(0, found)
  }
  const poke = (page: number, bytes: Uint8Array) => {
    const length = Math.min(PAGE_BYTES, inner.look().present - page * PAGE_BYTES)
    if (length > 0) writeSync(fd, bytes, 0, length, page * PAGE_BYTES)
  }
  const close = async () => {
    closeSync(fd)
    await inner.close()
  }
  return { inner, peek, poke, truncate: (to) => ftruncateSync(fd, to), close }
}

export interface Overheard {
  readonly backend: Backend
  /** Ranges of the changes that the server has given to storage, and that have not come back. */
  readonly changes: ReadonlySet<readonly [offset: number, end: number]>
}

/** `inner` with an ear at everything that tells of a failed sync; `heard` is called as it is told. */
export function overheard(inner: Backend, heard: () => void): Overheard {
  const changes = new Set<readonly [number, number]>()
  const told = (outcome: Outcome): Outcome => {
    if (isSyncFailure(outcome)) heard()
    return outcome
  }
  const change = async (offset: number, length: number, run: () => Promise<Outcome>): Promise<Outcome> => {
    const range = [offset, offset + length] as const
    changes.add(range)
    try {
      return told(await run())
    } finally {
      changes.delete(range)
    }
  }
  const ears: Pick<Backend, 'flush' | 'write' | 'zero' | 'trim' | 'probe'> = {
    flush: async () => told(await inner.flush()),
    write: (...range) => change(range[3], range[2], () => inner.write(...range)),
    zero: (...range) => change(range[0], range[1], () => inner.zero(...range)),
    trim: (...range) => change(range[0], range[1], () => inner.trim(...range)),
    probe: () => {
      const errno = inner.probe()
      if (errno !== DONE) heard()
      return errno
    },
  }
  return { backend: changed(inner, ears), changes }
}

/** `backend` with some of its operations in other words. */
export function changed(backend: Backend, others: Partial<Backend>): Backend {
  return new Proxy(backend, {
    get: (target, key) => {
      const value: unknown = Reflect.get(others, key) ?? Reflect.get(target, key, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}
