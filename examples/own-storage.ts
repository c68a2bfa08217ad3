// A disk of one's own in 30 lines: blocks in a Map, a quota, and its errors told to the guest as they are.
// Run it with `node own-storage.js`, then attach: qemu-img info nbd://127.0.0.1:10809/own
import { serve, storageBackend } from 'candor'

const BLOCK = 4096
const BLOCKS_MAX = 1024
const blocks = new Map<number, Uint8Array>()

/** The parts of blocks that a range covers: [block, from, to, place in the range]. */
function* parts(offset: number, length: number): Iterable<[number, number, number, number]> {
  for (let at = 0; at < length; ) {
    const [block, from] = [Math.floor((offset + at) / BLOCK), (offset + at) % BLOCK]
    const to = Math.min(BLOCK, from + length - at)
    yield [block, from, to, at]
    at += to - from
  }
}

const backend = storageBackend({
  size: 64 << 20,
  read: async (offset, length) => {
    const bytes = new Uint8Array(length)
    for (const [block, from, to, at] of parts(offset, length)) {
      bytes.set(blocks.get(block)?.subarray(from, to) ?? [], at)
    }
    return bytes
  },
  write: async (offset, bytes) => {
    for (const [block, from, to, at] of parts(offset, bytes.length)) {
      if (!blocks.has(block) && blocks.size >= BLOCKS_MAX) throw Object.assign(new Error('full'), { code: 'ENOSPC' })
      if (!blocks.has(block)) blocks.set(block, new Uint8Array(BLOCK))
      blocks.get(block)?.set(bytes.subarray(at, at + to - from), from)
    }
  },
})

const { uris, close } = await serve({
  exports: [{ name: 'own', backend }],
  listen: [process.argv[2] ?? 'tcp:127.0.0.1:10809'],
})
console.log(uris.join('\n'))
process.once('SIGTERM', async () => process.exit((await close()).synced ? 0 : 2))
